/* SPDX-License-Identifier: Apache-2.0
 *
 * What the workers do until they are killed. Each tells the ledger what it did right after a call
 * that promises something, and what it is about to do right before one that gives something away.
 */
#include "soak.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

const char *const role_names[ROLE_COUNT] = {"producer", "stage", "consumer"};

#define STEP_NS INT64_C(200000000)

struct worker {
  const struct job *job;
  shmq_segment *segment;
  shmq *raw, *done, *dead;
  uint64_t random;
  uint32_t number; /* of the producer's last message */
};

static uint32_t chance(struct worker *w, uint32_t of) {
  return (uint32_t)(soak_random(&w->random) % of);
}

/* Hold what is held for a while, now and then, so that death often finds it held. */
static void linger(struct worker *w) {
  struct timespec some = {.tv_nsec = (long)(soak_random(&w->random) % 3000000)};
  if (chance(w, 32) == 0) nanosleep(&some, NULL);
}

/* An error that no part of this test may cause. */
static void check(const struct worker *w, const char *what, int64_t rc) {
  if (rc >= 0 || rc == -EAGAIN || rc == -ETIMEDOUT) return;
  fprintf(stderr, "FAULT %s: %s: %s\n", role_names[w->job->role], what, shmq_strerror((int)rc));
  abort();
}

/* Log-uniform: as many small ones as large ones; above MESSAGE_CELL they travel in blocks. */
static size_t any_size(struct worker *w) {
  size_t most = (size_t)MESSAGE_MIN << chance(w, 9);
  return MESSAGE_MIN + soak_random(&w->random) % most / 2;
}

static uint64_t next_id(struct worker *w) { return id_make(w->job->incarnation, w->number++); }

/* ---- producer ---- */

static void put_one(struct worker *w) {
  unsigned char data[MESSAGE_MAX];
  uint64_t id = next_id(w);
  size_t size = any_size(w);
  message_fill(data, id, size);
  int rc = shmq_put(w->raw, data, size, shmq_after_ns(STEP_NS));
  check(w, "put", rc);
  if (rc == 0) ledger_write(w->job->ledger, RECORD_PUT, &id, 1, 0);
}

static void reserve_one(struct worker *w) {
  shmq_message m;
  uint64_t id = next_id(w);
  size_t size = any_size(w);
  int rc = shmq_reserve(w->raw, size, &m, shmq_after_ns(STEP_NS));
  check(w, "reserve", rc);
  if (rc != 0) return;
  message_fill(m.data, id, size);
  linger(w);
  if (chance(w, 8) == 0) {
    check(w, "abort", shmq_abort(w->raw, &m));
    return;
  }
  rc = shmq_commit(w->raw, &m);
  check(w, "commit", rc);
  ledger_write(w->job->ledger, RECORD_PUT, &id, 1, 0);
}

static void put_some(struct worker *w) {
  unsigned char data[BATCH_MAX][MESSAGE_CELL];
  struct iovec iov[BATCH_MAX];
  uint64_t ids[BATCH_MAX];
  int n = 1 + (int)chance(w, BATCH_MAX);
  for (int i = 0; i < n; i++) {
    ids[i] = next_id(w);
    message_fill(data[i], ids[i], MESSAGE_CELL);
    iov[i] = (struct iovec){data[i], MESSAGE_CELL};
  }
  int rc = shmq_put_batch(w->raw, iov, n, shmq_after_ns(STEP_NS));
  check(w, "put_batch", rc);
  if (rc > 0) ledger_write(w->job->ledger, RECORD_PUT, ids, rc, 0);
}

static bool produce(struct worker *w) {
  static void (*const ways[])(struct worker *) = {put_one, reserve_one, put_some};
  struct timespec pause = {.tv_nsec = 20000};
  ways[chance(w, 3)](w);
  if (chance(w, 4) == 0) nanosleep(&pause, NULL);
  return !w->job->control->stop_producing;
}

/* ---- stage ---- */

static void ledger_fault(struct worker *w, enum record_kind kind, uint64_t id, uint32_t attempts) {
  ledger_write(w->job->ledger, kind, &id, 1, attempts);
}

static uint64_t id_of(struct worker *w, const shmq_message *m) {
  uint64_t id = message_id(m->data, m->size);
  if (id == 0) {
    memcpy(&id, m->data, sizeof id);
    ledger_fault(w, RECORD_DAMAGED, id, m->attempts);
  }
  return id;
}

static void step_one(struct worker *w, shmq_message *in, uint64_t id) {
  shmq_message out;
  int rc = shmq_reserve(w->done, in->size, &out, shmq_after_ns(STEP_NS));
  check(w, "reserve in done", rc);
  if (rc != 0) {
    check(w, "nack", shmq_nack(w->raw, in));
    return;
  }
  memcpy(out.data, in->data, in->size);
  linger(w);
  shmq_step steps[2] = {{w->raw, in}, {w->done, &out}};
  rc = shmq_commit_all(steps, 2);
  if (rc == -ESTALE)
    ledger_fault(w, RECORD_STALE, id, 0);
  else
    check(w, "commit_all", rc);
}

static void step_some(struct worker *w) {
  shmq_message in[BATCH_MAX], out[BATCH_MAX];
  shmq_step steps[2 * BATCH_MAX];
  int n = shmq_lease_batch(w->raw, in, 1 + (int)chance(w, BATCH_MAX), shmq_after_ns(STEP_NS));
  check(w, "lease_batch", n);
  int made = 0;
  for (int i = 0; i < n; i++) {
    (void)id_of(w, &in[i]);
    int rc = shmq_reserve(w->done, in[i].size, &out[made], shmq_after_ns(STEP_NS));
    check(w, "reserve in done", rc);
    if (rc != 0) {
      check(w, "nack", shmq_nack(w->raw, &in[i]));
      continue;
    }
    memcpy(out[made].data, in[i].data, in[i].size);
    steps[2 * made] = (shmq_step){w->raw, &in[i]};
    steps[2 * made + 1] = (shmq_step){w->done, &out[made]};
    made++;
  }
  linger(w);
  if (made > 0) check(w, "commit_all", shmq_commit_all(steps, 2 * made));
}

static bool stage(struct worker *w) {
  shmq_message in;
  if (chance(w, 4) == 0) {
    step_some(w);
    return true;
  }
  int rc = shmq_lease(w->raw, &in, shmq_after_ns(STEP_NS));
  check(w, "lease", rc);
  if (rc != 0) return !w->job->control->stop;
  uint64_t id = id_of(w, &in);
  linger(w);
  uint32_t way = chance(w, 16);
  if (way == 0) {
    check(w, "nack", shmq_nack(w->raw, &in));
  } else if (way < 8) {
    rc = shmq_forward(w->raw, &in, w->done, shmq_after_ns(STEP_NS));
    check(w, "forward", rc);
    if (rc != 0) check(w, "nack", shmq_nack(w->raw, &in));
  } else {
    step_one(w, &in, id);
  }
  return true;
}

/* ---- consumer ---- */

static void take_one(struct worker *w, shmq *queue, int64_t deadline) {
  shmq_message m;
  int rc = shmq_lease(queue, &m, deadline);
  check(w, "lease", rc);
  if (rc != 0) return;
  uint64_t id = id_of(w, &m);
  uint32_t attempts = m.attempts;
  linger(w);
  ledger_write(w->job->ledger, RECORD_TAKEN, &id, 1, attempts);
  if (chance(w, 32) == 0 && queue == w->done) {
    ledger_write(w->job->ledger, RECORD_NACKED, &id, 1, attempts);
    rc = shmq_nack(queue, &m);
  } else {
    rc = shmq_ack(queue, &m);
    if (rc == 0) ledger_write(w->job->ledger, RECORD_ACKED, &id, 1, attempts);
  }
  if (rc == -ESTALE)
    ledger_fault(w, RECORD_STALE, id, attempts);
  else
    check(w, "ack", rc);
}

static void take_some(struct worker *w) {
  shmq_message m[BATCH_MAX];
  uint64_t ids[BATCH_MAX];
  int n = shmq_lease_batch(w->done, m, 1 + (int)chance(w, BATCH_MAX), shmq_after_ns(STEP_NS));
  check(w, "lease_batch", n);
  if (n <= 0) return;
  for (int i = 0; i < n; i++) ids[i] = id_of(w, &m[i]);
  linger(w);
  ledger_write(w->job->ledger, RECORD_TAKEN, ids, n, m[0].attempts);
  linger(w);
  int rc = shmq_ack_batch(w->done, m, n);
  check(w, "ack_batch", rc);
  ledger_write(w->job->ledger, RECORD_ACKED, ids, n, 0);
}

/* A copying get has acked when it returns; who is killed before the ledger knows leaves the message
 * in the mailbox, for the supervisor to find. */
static void get_one(struct worker *w) {
  struct mailbox *box = w->job->mailbox;
  memset(box->buffer, 0, sizeof(uint64_t));
  box->armed = 1;
  ssize_t size = shmq_get(w->done, box->buffer, sizeof box->buffer, shmq_after_ns(STEP_NS));
  check(w, "get", size);
  if (size > 0) {
    uint64_t id = message_id(box->buffer, (size_t)size);
    if (id == 0) {
      memcpy(&id, box->buffer, sizeof id);
      ledger_fault(w, RECORD_DAMAGED, id, 0);
    }
    ledger_write(w->job->ledger, RECORD_TAKEN, &id, 1, 0);
    ledger_write(w->job->ledger, RECORD_ACKED, &id, 1, 0);
  }
  box->armed = 0;
}

static bool consume(struct worker *w) {
  uint32_t way = chance(w, 8);
  if (way == 0) take_one(w, w->dead, SHMQ_NOWAIT);
  if (way < 4)
    take_one(w, w->done, shmq_after_ns(STEP_NS));
  else if (way < 6)
    take_some(w);
  else
    get_one(w);
  return !w->job->control->stop;
}

_Noreturn void work(const struct job *job) {
  static bool (*const roles[ROLE_COUNT])(struct worker *) = {produce, stage, consume};
  struct worker w = {.job = job, .random = job->seed};
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  check(&w, "attach", shmq_attach(&w.segment, job->segment));
  check(&w, "join", shmq_join_segment(w.segment, role_names[job->role], NULL));
  check(&w, "open raw", shmq_open_in(&w.raw, w.segment, "raw", 0));
  check(&w, "open done", shmq_open_in(&w.done, w.segment, "done", 0));
  check(&w, "open dead", shmq_open_in(&w.dead, w.segment, "dead", 0));
  while (roles[job->role](&w)) continue;
  shmq_close(w.raw);
  shmq_close(w.done);
  shmq_close(w.dead);
  shmq_detach(w.segment);
  _exit(0);
}
