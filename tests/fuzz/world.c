/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments of every kind, small enough that their words are met again and again, and what a view shows.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

#include "check.h"

#define DEAD {.name = "dead", .capacity = 4, .message_bytes = 32}

static const shmq_queue_options plain[] = {{.capacity = 4, .message_bytes = 16}};
static const shmq_queue_options single[] = {
    {.capacity = 4, .message_bytes = 8, .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER}};
static const shmq_queue_options limited[] = {{.capacity = 4,
                                              .message_bytes = 20,
                                              .flags = SHMQ_TIMED,
                                              .max_attempts = 2,
                                              .dead_letter = "dead"},
                                             DEAD};
static const shmq_queue_options bands[] = {{.capacity = 2, .message_bytes = 1, .priorities = 3}};
static const shmq_queue_options expiring[] = {{.capacity = 4,
                                               .message_bytes = 24,
                                               .ttl_ns = 100000,
                                               .dead_letter = "dead",
                                               .max_attempts = 1,
                                               .full_policy = SHMQ_FULL_DROP_OLDEST},
                                              DEAD};
static const shmq_queue_options dropping[] = {{.capacity = 2,
                                               .message_bytes = 16,
                                               .flags = SHMQ_SINGLE_PRODUCER,
                                               .full_policy = SHMQ_FULL_DROP_NEWEST}};
static const shmq_queue_options stages[] = {
    {.name = "in", .capacity = 4, .message_bytes = 8},
    {.name = "out", .capacity = 8, .message_bytes = 64, .flags = SHMQ_SINGLE_CONSUMER},
    {.name = "rest", .capacity = 2, .message_bytes = 4, .full_policy = SHMQ_FULL_FAIL}};
static const shmq_queue_options one_consumer[] = {{.capacity = 16,
                                                   .message_bytes = 4,
                                                   .flags = SHMQ_SINGLE_CONSUMER | SHMQ_TIMED,
                                                   .max_attempts = 3,
                                                   .priorities = 2,
                                                   .dead_letter = "dead"},
                                                  DEAD};
static const shmq_queue_options longer[] = {
    {.capacity = 128, .message_bytes = 100, .full_policy = SHMQ_FULL_DROP_OLDEST}};

#define SEGMENT(q, many, n, size)                                                                  \
  {.queues = (q), .queue_count = sizeof(q) / sizeof *(q), .participants = (many), .blocks = (n),   \
   .block_bytes = (size)}
static const shmq_options segments[] = {
    SEGMENT(plain, 3, 0, 0),     SEGMENT(plain, 3, 2, 64),     SEGMENT(single, 2, 3, 128),
    SEGMENT(limited, 4, 2, 64),  SEGMENT(bands, 3, 2, 64),     SEGMENT(expiring, 3, 2, 64),
    SEGMENT(dropping, 3, 1, 64), SEGMENT(stages, 4, 4, 256),   SEGMENT(one_consumer, 3, 3, 64),
    SEGMENT(longer, 16, 16, 256)};
const unsigned world_geometries = sizeof segments / sizeof *segments;

int world_create(unsigned which) {
  int fd = -1;
  int rc = shmq_create_memfd(&segments[which % world_geometries], &fd);
  if (rc < 0) {
    fprintf(stderr, "cannot create a segment: %s\n", shmq_strerror(rc));
    exit(1);
  }
  return fd;
}

/* ---- looking ---- */

static void view_queue(shmq_view *view, uint32_t index) {
  char data[96];
  shmq_queue_info queue;
  shmq_cell_info cell;
  check_result("shmq_view_queue", shmq_view_queue(view, index, &queue));
  check(memchr(queue.name, 0, sizeof queue.name) != NULL, "a queue's name without an end");
  uint64_t steps = 0, cursor = 0;
  while (shmq_view_next(view, index, &cursor, &cell, data, sizeof data) == 1) {
    check(++steps <= (uint64_t)queue.capacity * queue.priorities, "a walk longer than the queue");
    check(cell.in_block || cell.size <= queue.message_bytes, "a message longer than its cell");
  }
}

static void view_all(shmq_view *view) {
  shmq_segment_info segment;
  shmq_participant_info participant;
  shmq_audit audit;
  check_result("shmq_view_segment", shmq_view_segment(view, &segment));
  for (uint32_t i = 0; i < segment.queues; i++) view_queue(view, i);
  for (uint32_t i = 0; i <= segment.participants_max + 1; i++) {
    int rc = shmq_view_participant(view, i, &participant);
    check_result("shmq_view_participant", rc);
    if (rc == 0) check(!participant.role[15] && !participant.label[31], "a label without an end");
  }
  check_result("shmq_view_audit", shmq_view_audit(view, &audit));
}

void world_view(int fd) {
  shmq_view *view;
  int rc = shmq_view_open_fd(&view, fd);
  check_result("shmq_view_open_fd", rc);
  if (rc < 0) return;
  view_all(view);
  shmq_view_close(view);
}
