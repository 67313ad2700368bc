/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq: the program. Finds the command in the table, reads its flags and runs it.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <shmq/version.h>

#include "base/report.h"
#include "command.h"

#define ADDRESS_OF_COMMAND(name) &name##_command,
const struct command *const all_commands[] = {COMMANDS(ADDRESS_OF_COMMAND) NULL};

const struct command *find_command(const char *name) {
  for (size_t i = 0; all_commands[i] != NULL; i++) {
    if (strcmp(all_commands[i]->name, name) == 0) {
      return all_commands[i];
    }
  }
  return NULL;
}

/* Whoever closed a standard descriptor must not make us open a segment in its place and print into
 * the shared memory. Reading and writing what we put there fails, as it would on a closed one. */
static int occupy_standard_descriptors(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
    int flags = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", flags) != fd) {
      return STATUS_FAILED;
    }
  }
  return STATUS_OK;
}

static int run_command(const struct command *command, int argc, char **argv) {
  report_as(command->name);
  int first = 0;
  switch (flags_parse(command, argc, argv, &first)) {
  case FLAGS_HELP: print_command_help(command); return STATUS_OK;
  case FLAGS_WRONG: return STATUS_USAGE;
  case FLAGS_RUN: break;
  }
  int count = argc - first;
  if (count < command->least) {
    return usage("too few arguments: %s", command->arguments);
  }
  if (command->most >= 0 && count > command->most) {
    return usage("too many arguments, from '%s' on", argv[first + command->most]);
  }
  return command->run(count, argv + first);
}

static int dispatch(int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : NULL;
  if (name == NULL) {
    return usage("which command?");
  }
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
    return help_command.run(0, NULL);
  }
  if (strcmp(name, "--version") == 0) {
    puts("shmq " SHMQ_VERSION);
    return STATUS_OK;
  }
  const struct command *command = find_command(name);
  return command != NULL ? run_command(command, argc - 1, argv + 1)
                         : usage("unknown command '%s'", name);
}

int main(int argc, char **argv) {
  if (occupy_standard_descriptors() != STATUS_OK) {
    return STATUS_FAILED;
  }
  setlocale(LC_CTYPE, "");
  signal(SIGPIPE, SIG_IGN); /* a write that fails is noticed where it is made */
  int status = dispatch(argc, argv);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    if (errno != EPIPE) { /* a reader who has seen enough is no news */
      complain("standard output: %s", strerror(errno));
    }
    return status == STATUS_OK ? STATUS_FAILED : status;
  }
  return status;
}
