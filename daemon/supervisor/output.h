/* SPDX-License-Identifier: Apache-2.0
 *
 * What a child writes to its standard output and error: line by line, prefixed with its name, and no more lines in a
 * second than are wanted; those left out are counted.
 */
#ifndef SHMQD_OUTPUT_H
#define SHMQD_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "supervisor/event.h"

struct output {
  struct source source; /* our end of the pipe */
  int epoll;
  const char *name;
  unsigned lines_most; /* in a second; 0: any number */
  int64_t second_ns;   /* when the present one began */
  unsigned lines, left_out;
  size_t used;
  bool cutting; /* the rest of a line that was too long */
  char line[900];
};

/* Make the pipe; *child_end is the caller's, to be given to the child. The name must stay. */
int output_open(struct output *output, int epoll, const char *name, unsigned lines_most,
                int *child_end);
/* Say what is left. */
void output_close(struct output *output);

#endif
