/* SPDX-License-Identifier: Apache-2.0
 *
 * The soak: producers, stages and consumers work on one segment while a supervisor kills and stops
 * them at random. What became of each message stands in a ledger outside of the segment, an
 * append-only file that every process writes before and after what it does, and a judge reads it.
 *
 *   producer --> raw --> stage (commit_all, forward) --> done --> consumer
 *                 \--> dead (after too many deliveries) ----------> consumer
 */
#ifndef SOAK_H
#define SOAK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <shmq/shmq.h>

enum { MESSAGE_MIN = 16, MESSAGE_CELL = 96, MESSAGE_MAX = 4096, BATCH_MAX = 8 };

/* ---- messages: id, size, and a pattern made of both ---- */

/* incarnation of a producer in the high half, its running number in the low half */
static inline uint64_t id_make(uint32_t producer, uint32_t number) {
  return (uint64_t)producer << 32 | number;
}
uint64_t soak_random(uint64_t *state);
void message_fill(unsigned char *data, uint64_t id, size_t size);
uint64_t message_id(const unsigned char *data, size_t size); /* 0: damaged */

/* ---- ledger ---- */

enum record_kind {
  RECORD_PUT = 1, /* by the producer, after put returned 0 */
  RECORD_TAKEN,   /* by the consumer that leased it, before its ack */
  RECORD_ACKED,   /* after its ack returned 0 */
  RECORD_NACKED,  /* before its nack */
  RECORD_STALE,   /* ack or nack said that it was taken away */
  RECORD_MAYBE,   /* by the supervisor: found whole in the mailbox of a killed consumer */
  RECORD_DAMAGED, /* a message did not carry what was put */
  RECORD_KILLED,  /* by the supervisor, before it kills */
  RECORD_BORN,    /* by the supervisor: a producer with this incarnation */
  RECORD_BURIED   /* by the supervisor: that producer is dead */
};

/* 32 bytes, so that no record crosses a page: a write of whole records is never cut in two. */
struct record {
  uint32_t kind;
  int32_t pid;
  uint64_t id;
  uint64_t attempts;
  uint64_t check;
};

int ledger_open(const char *path);
void ledger_write(int fd, enum record_kind kind, const uint64_t *ids, int n, uint64_t attempts);

struct verdict {
  uint64_t messages, delivered, redelivered, lost, duplicated, stale, damaged;
};
struct judge;
struct judge *judge_open(int fd);
/* Read what was appended since, and give the file's read part back to the disk. */
void judge_read(struct judge *j);
/* Everything has come to rest: what was put and never delivered is lost. */
struct verdict judge_close(struct judge *j);

/* ---- workers ---- */

enum role { ROLE_PRODUCER, ROLE_STAGE, ROLE_CONSUMER, ROLE_COUNT };
extern const char *const role_names[ROLE_COUNT];

/* Shared with the supervisor, one a worker. */
struct mailbox {
  volatile uint32_t armed; /* a get is under way, or done and not yet in the ledger */
  unsigned char buffer[MESSAGE_MAX];
};
struct control {
  volatile uint32_t stop_producing, stop;
};

struct job {
  enum role role;
  const char *segment;
  uint32_t incarnation;
  uint64_t seed;
  int ledger;
  struct mailbox *mailbox;
  struct control *control;
};
_Noreturn void work(const struct job *job);

#endif
