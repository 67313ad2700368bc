/* SPDX-License-Identifier: Apache-2.0
 *
 * The commands of the program `shmq`. One list; dispatch, help, the manual page and shell
 * completion are all made from it, so none of them can forget a command or a flag.
 *
 * To add a command `foo`:
 *   1. write foo.c, which defines `const struct command foo_command` with its flags beside it;
 *   2. add foo to COMMANDS below, where it shall stand in help and manual;
 *   3. add foo.c to CMakeLists.txt.
 */
#ifndef TOOLS_COMMAND_H
#define TOOLS_COMMAND_H

#include "base/flags.h"

/* clang-format off */
#define COMMANDS(X) \
  X(create) \
  X(rm) \
  X(ls) \
  X(info) \
  X(put) \
  X(get) \
  X(tail) \
  X(peek) \
  X(work) \
  X(serve) \
  X(call) \
  X(cast) \
  X(pool) \
  X(ask) \
  X(wait) \
  X(shutdown) \
  X(reopen) \
  X(forward) \
  X(requeue) \
  X(top) \
  X(topo) \
  X(bench) \
  X(doctor) \
  X(evict) \
  X(help)
/* clang-format on */

struct command {
  const char *name;
  const char *arguments;                   /* the positional ones, as help shows them */
  const char *summary;                     /* one line, imperative, no full stop */
  const char *details;                     /* paragraphs, separated by an empty line */
  const char *examples;                    /* lines to type, or NULL */
  const struct flag *flags;                /* ends with a nameless one; NULL: none */
  int least, most;                         /* positional arguments; most -1: any number */
  int (*run)(int count, char **arguments); /* returns an exit status of base/report.h */
};

#define DECLARE_COMMAND(name) extern const struct command name##_command;
COMMANDS(DECLARE_COMMAND)
#undef DECLARE_COMMAND

extern const struct command *const all_commands[]; /* ends with NULL */

const struct command *find_command(const char *name);
void print_command_help(const struct command *command);

#endif
