/* SPDX-License-Identifier: Apache-2.0
 *
 * What no command of shmq does for longer than an instant: hold a message. `tools_hold NAME reserve`
 * reserves one and does not publish it, `tools_hold NAME lease` takes one and does not acknowledge it;
 * both say "held" and wait for the end of standard input.
 */
#include <stdio.h>
#include <string.h>

#include <shmq/shmq.h>

int main(int argc, char **argv) {
  shmq *queue;
  shmq_message message;
  if (argc != 3 || shmq_open(&queue, argv[1], 0) != 0) {
    return 1;
  }
  int rc = strcmp(argv[2], "reserve") == 0 ? shmq_reserve(queue, 1, &message, SHMQ_NOWAIT)
                                           : shmq_lease(queue, &message, SHMQ_NOWAIT);
  if (rc != 0) {
    return 1;
  }
  puts("held");
  fflush(stdout);
  while (getchar() != EOF) {}
  shmq_close(queue); /* gives back what is held */
  return 0;
}
