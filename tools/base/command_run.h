/* SPDX-License-Identifier: Apache-2.0
 *
 * Running a command on a message. The message is its standard input; or, where an argument
 * contains {}, it takes that place and standard input is /dev/null. The command runs in a process
 * group of its own, so that a ^C on the terminal lets it finish, and is killed when the process
 * that runs it dies: the message is then delivered again, and should not be worked on twice at a
 * time.
 */
#ifndef TOOLS_BASE_COMMAND_RUN_H
#define TOOLS_BASE_COMMAND_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct command_run {
  char *const *argv;      /* ends with NULL */
  _Atomic pid_t *running; /* told while the command runs, then 0; may be NULL */
  bool foreground;        /* it keeps this process's standard input and process group, and gets its SIGTERM and SIGHUP */
  int output, error;      /* descriptors for what it writes; 0: those of this process */
  /* Asked from time to time while it runs; true: nobody wants the result any more, and the command
   * gets SIGTERM. NULL: it runs to its end. */
  bool (*unwanted)(void *context);
  void *context;
};

/* What is wrong with the command itself: an errno, 0 if it can be found and run. */
int command_run_check(const char *program);

/* Run it and wait for its end. Returns 0 with waitpid's status and the pid, or a negative errno if
 * it could not be started: -EINVAL for a message with a NUL byte as an argument, -E2BIG for one
 * too long. */
int command_run_message(const struct command_run *run, const void *data, size_t size, pid_t *pid,
                        int *status);

#endif
