/* SPDX-License-Identifier: Apache-2.0
 *
 * put_get [plain|timed|bands|attempts]: put and get in one process, so that no cache line travels and only the
 * instructions count. Prints nanoseconds a pair, the least of many short windows.
 */
#include <shmq/shmq.h>
#include <stdio.h>
#include <string.h>

enum { PAIRS = 20000, WINDOWS = 60 };

static int usage(void) {
  fputs("usage: put_get [plain|timed|bands|attempts]\n", stderr);
  return 2;
}

static int pairs(shmq *q, long n) {
  char message[8] = {0};
  int rc = 0;
  for (long i = 0; i < n && rc >= 0; i++) {
    rc = shmq_put(q, message, sizeof message, SHMQ_NOWAIT);
    if (rc >= 0) rc = (int)shmq_get(q, message, sizeof message, SHMQ_NOWAIT);
  }
  return rc;
}

int main(int argc, char **argv) {
  const char *kind = argc > 1 ? argv[1] : "plain";
  shmq_queue_options queues[] = {{.name = "main", .capacity = 1024, .message_bytes = 8},
                                 {.name = "dead", .capacity = 2, .message_bytes = 8}};
  shmq_queue_options *queue = &queues[0];
  if (!strcmp(kind, "timed")) queue->flags = SHMQ_TIMED;
  else if (!strcmp(kind, "bands")) queue->priorities = 4;
  else if (!strcmp(kind, "attempts")) queue->max_attempts = 3, queue->dead_letter = "dead";
  else if (strcmp(kind, "plain") != 0) return usage();
  shmq_segment *segment;
  shmq *q;
  int fd, rc = shmq_create_memfd(&(shmq_options){.queues = queues, .queue_count = 2}, &fd);
  if (rc >= 0) rc = shmq_attach_fd(&segment, fd);
  if (rc >= 0) rc = shmq_open_in(&q, segment, NULL, 0);
  if (rc >= 0) rc = pairs(q, PAIRS);
  int64_t best = INT64_MAX;
  for (int w = 0; w < WINDOWS && rc >= 0; w++) {
    int64_t start = shmq_now_ns();
    rc = pairs(q, PAIRS);
    int64_t took = shmq_now_ns() - start;
    if (took < best) best = took;
  }
  if (rc < 0) return fprintf(stderr, "put_get: %s\n", shmq_strerror(rc)), 1;
  printf("%.2f\n", (double)best / PAIRS);
  return 0;
}
