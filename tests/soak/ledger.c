/* SPDX-License-Identifier: Apache-2.0 */
#include "soak.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- messages ---- */

uint64_t soak_random(uint64_t *state) { /* splitmix64, Steele et al. 2014 */
  uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

static unsigned char pattern(uint64_t id, size_t size, size_t i) {
  return (unsigned char)((id ^ size) * UINT64_C(0x9e3779b97f4a7c15) >> 56) ^ (unsigned char)i;
}

void message_fill(unsigned char *data, uint64_t id, size_t size) {
  uint32_t length = (uint32_t)size;
  memcpy(data, &id, 8);
  memcpy(data + 8, &length, 4);
  for (size_t i = 12; i < size; i++) data[i] = pattern(id, size, i);
}

uint64_t message_id(const unsigned char *data, size_t size) {
  uint64_t id;
  uint32_t length;
  if (size < MESSAGE_MIN || size > MESSAGE_MAX) return 0;
  memcpy(&id, data, 8);
  memcpy(&length, data + 8, 4);
  if (length != size) return 0;
  for (size_t i = 12; i < size; i++)
    if (data[i] != pattern(id, size, i)) return 0;
  return id;
}

/* ---- writing ---- */

static uint64_t check_of(const struct record *r) {
  return (r->id * 31 + r->kind) * 31 + (uint64_t)r->pid * 7 + r->attempts + 0x5ca1ab1e;
}

int ledger_open(const char *path) {
  return open(path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
}

void ledger_write(int fd, enum record_kind kind, const uint64_t *ids, int n, uint64_t attempts) {
  struct record records[BATCH_MAX] = {{0}};
  for (int i = 0; i < n; i++) {
    records[i] = (struct record){.kind = kind, .pid = getpid(), .id = ids[i], .attempts = attempts};
    records[i].check = check_of(&records[i]);
  }
  ssize_t bytes = (ssize_t)sizeof *records * n;
  if (write(fd, records, (size_t)bytes) == bytes) return;
  perror("soak: ledger");
  abort();
}

/* ---- judging ---- */

struct fate {
  int32_t holder; /* process that took it last, 0: nobody */
  uint8_t put, delivered, acked, maybe;
};

struct producer {
  struct fate *fates; /* by running number */
  uint32_t room, used;
  off_t died_at; /* in the ledger; 0: it lives */
  bool closed;   /* judged and forgotten */
};

struct judge {
  int fd;
  off_t at;
  struct producer *producers; /* by incarnation */
  uint32_t producer_count;
  uint32_t oldest; /* all before it are closed */
  uint8_t *killed; /* bit per pid */
  struct verdict verdict;
};

enum { PID_LIMIT = 1 << 22 };

/* A message cannot be overtaken by more than the queues hold, so one that is not delivered this
 * many bytes of ledger after its producer's death never will be. */
#define CLOSE_AFTER_BYTES ((off_t)64 << 20)

struct judge *judge_open(int fd) {
  struct judge *j = calloc(1, sizeof *j);
  if (j == NULL || (j->killed = calloc(PID_LIMIT / 8, 1)) == NULL) abort();
  j->fd = fd;
  return j;
}

static struct producer *producer_of(struct judge *j, uint32_t incarnation) {
  if (incarnation >= j->producer_count) {
    uint32_t count = incarnation + 1024;
    struct producer *more = realloc(j->producers, count * sizeof *more);
    if (more == NULL) abort();
    memset(more + j->producer_count, 0, (count - j->producer_count) * sizeof *more);
    j->producers = more;
    j->producer_count = count;
  }
  return &j->producers[incarnation];
}

static struct fate *fate_of(struct judge *j, uint64_t id) {
  static struct fate late; /* of a producer that is closed: whatever comes now comes too often */
  struct producer *p = producer_of(j, (uint32_t)(id >> 32));
  uint32_t number = (uint32_t)id;
  if (p->closed) {
    late = (struct fate){.acked = 1, .delivered = 1};
    return &late;
  }
  if (number >= p->room) {
    uint32_t room = number + number / 2 + 256;
    struct fate *more = realloc(p->fates, room * sizeof *more);
    if (more == NULL) abort();
    memset(more + p->room, 0, (room - p->room) * sizeof *more);
    p->fates = more;
    p->room = room;
  }
  if (number >= p->used) p->used = number + 1;
  return &p->fates[number];
}

static bool was_killed(const struct judge *j, int32_t pid) {
  return j->killed[(uint32_t)pid % PID_LIMIT / 8] >> ((uint32_t)pid % 8) & 1;
}

static void complain(const char *what, const struct record *r) {
  fprintf(stderr, "FAULT %s: message %#lx, process %d, attempt %lu\n", what, (unsigned long)r->id,
          r->pid, (unsigned long)r->attempts);
}

/* Twice is once too often, unless the one before died with it or gave it back. */
static void judge_taken(struct judge *j, const struct record *r) {
  struct fate *f = fate_of(j, r->id);
  if (f->acked || (f->holder != 0 && !was_killed(j, f->holder))) {
    j->verdict.duplicated++;
    complain("delivered twice", r);
  }
  if (f->delivered)
    j->verdict.redelivered++;
  else
    j->verdict.delivered++;
  f->delivered = 1;
  f->holder = r->pid;
}

static void judge_record(struct judge *j, const struct record *r) {
  switch (r->kind) {
  case RECORD_PUT:
    fate_of(j, r->id)->put = 1;
    j->verdict.messages++;
    break;
  case RECORD_TAKEN: judge_taken(j, r); break;
  case RECORD_ACKED: fate_of(j, r->id)->acked = 1; break;
  case RECORD_NACKED: fate_of(j, r->id)->holder = 0; break;
  case RECORD_MAYBE: fate_of(j, r->id)->maybe = 1; break;
  case RECORD_STALE:
    j->verdict.stale++;
    complain("taken from the living", r);
    break;
  case RECORD_DAMAGED:
    j->verdict.damaged++;
    complain("damaged", r);
    break;
  case RECORD_KILLED: {
    uint32_t pid = (uint32_t)r->id % PID_LIMIT;
    j->killed[pid / 8] |= (uint8_t)(1u << pid % 8);
    break;
  }
  case RECORD_BORN: { /* a pid that is used again is alive again */
    uint32_t pid = (uint32_t)r->id % PID_LIMIT;
    j->killed[pid / 8] &= (uint8_t) ~(1u << pid % 8);
    break;
  }
  case RECORD_BURIED: producer_of(j, (uint32_t)r->id)->died_at = j->at + 1; break;
  default: complain("unknown record", r);
  }
}

static void close_producer(struct judge *j, uint32_t incarnation) {
  struct producer *p = &j->producers[incarnation];
  for (uint32_t n = 0; n < p->used; n++) {
    const struct fate *f = &p->fates[n];
    if (!f->put || f->delivered || f->maybe) continue;
    if (j->verdict.lost++ < 20)
      fprintf(stderr, "FAULT lost: message %#lx was put and never delivered\n",
              (unsigned long)id_make(incarnation, n));
  }
  free(p->fates);
  *p = (struct producer){.closed = true};
}

/* Runs of hours would otherwise remember every message. */
static void close_the_old(struct judge *j) {
  for (; j->oldest < j->producer_count; j->oldest++) {
    struct producer *p = &j->producers[j->oldest];
    if (j->oldest == 0 || p->closed) continue; /* incarnations start at 1 */
    if (p->died_at == 0 || j->at - p->died_at < CLOSE_AFTER_BYTES) break;
    close_producer(j, j->oldest);
  }
}

void judge_read(struct judge *j) {
  struct record records[1024];
  for (;;) {
    ssize_t n = pread(j->fd, records, sizeof records, j->at);
    if (n < (ssize_t)sizeof *records) break;
    n -= n % (ssize_t)sizeof *records;
    for (ssize_t i = 0; i < n / (ssize_t)sizeof *records; i++) {
      if (records[i].check != check_of(&records[i])) {
        complain("the ledger itself is damaged", &records[i]);
        abort();
      }
      judge_record(j, &records[i]);
    }
    j->at += n;
  }
  close_the_old(j);
  off_t whole = j->at & ~(off_t)0xfff;
  if (whole > 0) /* saves disk in runs of hours; not every file system can */
    (void)fallocate(j->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, whole);
}

struct verdict judge_close(struct judge *j) {
  judge_read(j);
  for (uint32_t i = 0; i < j->producer_count; i++) close_producer(j, i);
  struct verdict v = j->verdict;
  free(j->producers);
  free(j->killed);
  free(j);
  return v;
}
