/* SPDX-License-Identifier: Apache-2.0
 *
 * A segment, attachments to it and everything that a caller can do with one, chosen by an input. The calls
 * check what the library promises of damaged segments: a documented error or a result, and only
 * memory that is a message's.
 */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include "input.h"
#include "shmq/inspect.h"
#include "shmq/shmq.h"

enum { QUEUES_MAX = 3, HELD_MAX = 12 };

struct held_message {
  int queue; /* -1: none */
  bool leased;
  shmq_message message;
};

/* One participant and what it holds. */
struct caller {
  int fd; /* the segment's, the world's */
  shmq_segment *segment;
  shmq *queues[QUEUES_MAX];
  unsigned queue_count;
  struct held_message held[HELD_MAX];
  int64_t patience_ns; /* the longest that a call may wait */
};

/* Make segment number `which` (any number) in a memfd. Returns its descriptor. */
int world_create(unsigned which);
extern const unsigned world_geometries;

/* Attach and open the first queues. Returns 0 or the library's error. */
int caller_open(struct caller *c, int fd);
void caller_close(struct caller *c);

/* One call. Returns its name, for reports. */
const char *caller_call(struct caller *c, struct input *in);

/* Look at everything through a view. */
void world_view(int fd);

/* Change one word that the protocol lives in, or any. */
void world_scribble(const shmq_segment *s, struct input *in);
/* The same word again and again. */
void world_hammer(const shmq_segment *s, struct input *in, uint64_t times);

#endif
