/* SPDX-License-Identifier: Apache-2.0 */
#include "cases.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/participant.h"
#include "model_hooks.h"
#include "queue.h"

#define MESSAGES_MAX 32
#define STATES 30000000 /* a search gives up beyond, which is a failure */
#define SPARE (PROCS_MAX) /* the participant that judges */

extern void *model_memory;

static const struct model_case *the_case;
static struct shmq_segment *segments[PROCS_MAX + 1];
static shmq *queues[PROCS_MAX + 1], *outs[PROCS_MAX + 1];
static int procs;

/* What came of each message, and what each process is about to do. Part of the state. */
static struct {
  signed char put[MESSAGES_MAX];      /* 1: put returned 0 */
  signed char acked[MESSAGES_MAX];    /* how often an ack returned 0 */
  signed char acking[MESSAGES_MAX];   /* how often a process died inside its ack: either way is right */
  signed char holder[MESSAGES_MAX];   /* process + 1 that leases it */
  signed char doing[PROCS_MAX];       /* message + 1 whose ack is under way */
  bool refused[PROCS_MAX];            /* got -EPIPE */
} ledger;

static void check(bool ok, const char *what) {
  if (!ok) sched_fail(what);
}

/* ---- programs ---- */

static void produce(int me) {
  shmq *q = queues[me];
  uint64_t ids[4];
  struct iovec iov[4];
  for (int done = 0; done < the_case->puts;) {
    int n = the_case->batch ? the_case->batch : 1;
    for (int i = 0; i < n; i++) {
      ids[i] = (uint64_t)(me * the_case->puts + done + i);
      iov[i] = (struct iovec){.iov_base = &ids[i], .iov_len = sizeof ids[i]};
    }
    int rc;
    if (the_case->kind == ABORT && me == 0 && done == 0) {
      shmq_message m;
      rc = shmq_reserve(q, 8, &m, SHMQ_FOREVER);
      check(rc == 0 && shmq_abort(q, &m) == 0, "abort failed");
      done++;
      continue;
    }
    rc = n > 1 ? shmq_put_batch(q, iov, n, SHMQ_FOREVER) : shmq_put(q, ids, 8, SHMQ_FOREVER);
    if (rc == -EPIPE && the_case->kind == CLOSER) break;
    check(rc >= 0, "put failed");
    if (rc < 0) break;
    for (int i = 0; i < (n > 1 ? rc : 1); i++) ledger.put[ids[i]] = 1;
    done += n > 1 ? rc : 1;
  }
}

/* Two reservations at a time, if there is room. */
static void produce_held(int me) {
  shmq *q = queues[me];
  shmq_message m[2];
  for (int done = 0; done < the_case->puts;) {
    int n = shmq_reserve(q, 8, &m[0], SHMQ_FOREVER) == 0;
    check(n == 1, "reserve failed");
    if (n == 1 && done + 1 < the_case->puts && shmq_reserve(q, 8, &m[1], SHMQ_NOWAIT) == 0) n = 2;
    for (int i = 0; i < n; i++, done++) {
      uint64_t id = (uint64_t)(me * the_case->puts + done);
      memcpy(m[i].data, &id, sizeof id);
      check(shmq_commit(q, &m[i]) == 0, "commit failed");
      ledger.put[id] = 1;
    }
    if (n == 0) return;
  }
}

static uint64_t id_of(const shmq_message *m) {
  uint64_t id;
  if (m->size != sizeof id) return MESSAGES_MAX;
  memcpy(&id, m->data, sizeof id);
  return id;
}

static uint64_t got(int me, const shmq_message *m) {
  uint64_t id = id_of(m);
  check(id < MESSAGES_MAX, "a message nobody wrote");
  if (id >= MESSAGES_MAX) return 0;
  int holder = ledger.holder[id];
  check(ledger.acked[id] == 0, "a message was delivered that had been acked");
  check(holder == 0 || (holder <= PROCS_MAX && sched_dead(holder - 1)), "a message was delivered while a living process leases it");
  ledger.holder[id] = (signed char)(me + 1);
  return id;
}

static void settle(int me, shmq *q, shmq_message *m, uint64_t id) {
  if (me < PROCS_MAX) ledger.doing[me] = (signed char)(id + 1);
  int rc = shmq_ack(q, m);
  check(rc == 0, "ack failed");
  if (me < PROCS_MAX) ledger.doing[me] = 0;
  ledger.holder[id] = 0;
  ledger.acked[id]++;
}

static void consume(int me) {
  shmq *q = queues[me];
  shmq_message m[4];
  bool nacked = false;
  for (int done = 0; done < the_case->gets;) {
    int want = the_case->batch ? the_case->batch : 1;
    if (want > the_case->gets - done) want = the_case->gets - done;
    int n = shmq_lease_batch(q, m, want, SHMQ_FOREVER);
    if (n == -EPIPE && the_case->kind == CLOSER) {
      ledger.refused[me] = true;
      return;
    }
    check(n > 0, "lease failed");
    if (n <= 0) return;
    if (the_case->kind == HOLD && done + 1 < the_case->gets &&
        shmq_lease(q, &m[1], SHMQ_NOWAIT) == 0)
      n = 2;
    for (int i = 0; i < n; i++) {
      uint64_t id = got(me, &m[i]);
      if (the_case->kind == NACK && !nacked && me == the_case->producers) {
        nacked = true;
        ledger.holder[id] = 0;
        check(shmq_nack(q, &m[i]) == 0, "nack failed");
        continue;
      }
      settle(me, q, &m[i], id);
      done++;
    }
  }
}

/* Copying get: who dies inside may take the message along only once it was settled. */
static void copy(int me) {
  for (int done = 0; done < the_case->gets; done++) {
    uint64_t id = MESSAGES_MAX;
    ledger.doing[me] = -1;
    ssize_t n = shmq_get(queues[me], &id, sizeof id, SHMQ_FOREVER);
    ledger.doing[me] = 0;
    check(n == sizeof id && id < MESSAGES_MAX, "get failed");
    if (n != sizeof id || id >= MESSAGES_MAX) return;
    check(ledger.acked[id] == 0, "a message was got twice");
    ledger.acked[id]++;
  }
}

/* A stage: what it takes from the first queue comes out of the second, exactly once. */
static void stage(int me) {
  for (int done = 0; done < the_case->gets; done++) {
    shmq_message in, out;
    int rc = shmq_lease(queues[me], &in, SHMQ_FOREVER);
    check(rc == 0, "lease failed");
    if (rc == 0) rc = shmq_reserve(outs[me], 8, &out, SHMQ_FOREVER);
    check(rc == 0, "reserve failed");
    if (rc != 0) return;
    memcpy(out.data, in.data, 8);
    shmq_step steps[2] = {{queues[me], &in}, {outs[me], &out}};
    check(shmq_commit_all(steps, 2) == 0, "commit_all failed");
  }
}

static void program(int me) {
  model_step(NULL, MODEL_CALL);
  if (me < the_case->producers)
    the_case->kind == HOLD ? produce_held(me) : produce(me);
  else if (the_case->kind == CLOSER && me == procs - 1)
    check(shmq_shutdown(queues[me]) == 0, "shutdown failed");
  else if (the_case->kind == STAGE)
    stage(me);
  else if (the_case->kind == COPY)
    copy(me);
  else
    consume(me);
}

/* ---- the verdict ---- */

static bool any_dead(void) {
  for (int i = 0; i < procs; i++)
    if (sched_dead(i)) return true;
  return false;
}

/* Single roles are held by the living; the judge uses their handles. */
static shmq *judge_handle(bool producer) {
  unsigned single = producer ? SHMQ_SINGLE_PRODUCER : SHMQ_SINGLE_CONSUMER;
  int from = producer ? 0 : the_case->producers, to = producer ? the_case->producers : procs;
  if (the_case->flags & single)
    for (int i = from; i < to; i++)
      if (!sched_dead(i)) return queues[i];
  return queues[SPARE];
}

/* Take everything there is; each is a delivery like others. */
static const char *drain(shmq *q) {
  shmq_message m;
  for (int i = 0; i < 2 * MESSAGES_MAX; i++) {
    int rc = shmq_lease(q, &m, SHMQ_NOWAIT);
    if (rc == -EAGAIN || rc == -EPIPE) return NULL;
    if (rc < 0) return "the queue cannot be drained";
    settle(SPARE, q, &m, got(SPARE, &m));
  }
  return "the queue cannot be emptied";
}

/* Who still sleeps in get or put must have nothing to wake for. */
static const char *check_sleepers(void) {
  bool taker = false, putter = false;
  for (int i = 0; i < procs; i++) {
    if (sched_dead(i) || sched_done(i)) continue;
    if (i < the_case->producers) putter = true;
    else taker = true;
  }
  if (the_case->flags || the_case->kind == STAGE) return NULL;
  if (taker && shmq__readable(queues[SPARE])) return "a taker sleeps and a message waits";
  if (putter && shmq__writable(queues[SPARE])) return "a putter sleeps and there is room";
  return NULL;
}

/* Once the dead are recovered, nobody may need a timeout: recovery wakes everybody. */
static const char *quiet(void) {
  for (int i = 0; i < procs; i++)
    if (sched_dead(i) && a_load(&slot_of(segments[i], segments[i]->me)->state) != SLOT_CLEAN) return NULL;
  return check_sleepers();
}

/* Every cell can be filled and emptied again, twice. */
static const char *check_ring(shmq *in, shmq *out) {
  uint64_t id = 0;
  for (int lap = 0; lap < 2; lap++) {
    for (uint32_t i = 0; i < in->config->capacity; i++)
      if (shmq_put(in, &id, sizeof id, SHMQ_NOWAIT) != 0) return "a cell was leaked";
    if (shmq_put(in, &id, sizeof id, SHMQ_NOWAIT) != -EAGAIN) return "the queue does not know when it is full";
    for (uint32_t i = 0; i < in->config->capacity; i++)
      if (shmq_get(out, &id, sizeof id, SHMQ_NOWAIT) != sizeof id) return "a message got lost";
  }
  return shmq_join(in, SHMQ_NOWAIT) == 0 ? NULL : "the queue does not settle";
}

static const char *check_ledger(void) {
  int missing = 0;
  for (int i = 0; i < procs; i++) {
    if (!sched_dead(i)) continue;
    if (ledger.doing[i] > 0) ledger.acking[ledger.doing[i] - 1]++;
  }
  for (int id = 0; id < MESSAGES_MAX; id++) {
    if (ledger.acked[id] > 1) return "a message was acked twice";
    if (!ledger.put[id]) continue;
    if (ledger.acked[id] + ledger.acking[id] == 0) missing++;
  }
  for (int i = 0; i < procs; i++)
    if (sched_dead(i) && ledger.doing[i] < 0 && missing > 0) missing--; /* died inside a copying get */
  return missing > 0 ? "a message was lost" : NULL;
}

static const char *verdict(void) {
  const char *why = check_sleepers();
  if (why) return why;
  if (shmq_recover(segments[SPARE]) < 0) return "recovery failed";
  shmq *out = judge_handle(false), *in = judge_handle(true);
  if (the_case->kind == CLOSER) {
    for (int i = 0; i < procs; i++)
      if (ledger.refused[i] && shmq_depth(out) > 0 && !any_dead()) return "a taker was refused and a message waits";
    (void)shmq_reopen(in);
  }
  why = drain(out);
  /* What a stage has not done yet waits in the first queue, what it has done in the second. */
  if (!why && the_case->kind == STAGE) why = drain(outs[SPARE]);
  if (!why) why = check_ledger();
  if (!why) why = check_ring(in, out);
  if (!why && the_case->kind == STAGE) why = check_ring(outs[SPARE], outs[SPARE]);
  return why;
}

/* ---- worlds ---- */

static void must(bool ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "model: %s\n", what);
  exit(2);
}

static void own_segment(const struct shmq_segment *s) {
  /* The first page never changes but for an event of blocks. */
  sched_own(s->memory + s->geometry.queues_at, s->geometry.bytes - s->geometry.queues_at);
  for (uint32_t i = 1; i <= s->geometry.participants; i++) sched_unseen(&slot_of(s, i)->puts, 16);
  for (uint32_t i = 0; i < s->geometry.queues; i++) {
    struct shmq__queue *q = &s->queues[i];
    sched_unseen(&q->aborted, sizeof *q - offsetof(struct shmq__queue, aborted));
    sched_unseen(&q->next_due_ns, sizeof q->next_due_ns);
    if (the_case->kind != CLOSER) sched_unseen(&q->shut, sizeof q->shut);
  }
}

static void attach(int proc, int fd) {
  must(shmq_attach_fd(&segments[proc], fd) == 0, "attach");
  if (proc == SPARE) own_segment(segments[proc]); /* first */
  must(shmq_open_in(&queues[proc], segments[proc], NULL, SHMQ_NOSPIN) == 0, "open");
  if (the_case->kind == STAGE)
    must(shmq_open_in(&outs[proc], segments[proc], "out", SHMQ_NOSPIN) == 0, "open");
  sched_fd(segments[proc]->lock_fd, proc);
  sched_own(segments[proc], sizeof *segments[proc]);
  sched_own(queues[proc], sizeof *queues[proc]);
  if (outs[proc]) sched_own(outs[proc], sizeof *outs[proc]);
  must(shmq_join_segment(segments[proc], NULL, NULL) == 0, "join");
}

static void tear_down(void) {
  for (int i = 0; i <= SPARE; i++) {
    shmq_close(queues[i]);
    shmq_close(outs[i]);
    shmq_detach(segments[i]);
    queues[i] = outs[i] = NULL;
    segments[i] = NULL;
  }
  sched_forget();
  model_memory = NULL; /* stays mapped: a few pages a case */
}

struct sched_case model_setup(const struct model_case *c) {
  tear_down();
  the_case = c;
  procs = c->producers + c->consumers + (c->kind == CLOSER);
  shmq_queue_options q[2] = {
      {.capacity = (uint32_t)c->capacity, .message_bytes = 8, .flags = c->flags},
      /* Nobody takes from it before the verdict. */
      {.name = "out", .capacity = (uint32_t)(c->producers * c->puts), .message_bytes = 8}};
  shmq_options options = {.participants = (uint32_t)procs + 1,
                          .queues = q,
                          .queue_count = c->kind == STAGE ? 2 : 1};
  int fd;
  memset(&ledger, 0, sizeof ledger);
  must(shmq_create_memfd(&options, &fd) == 0, "create");
  attach(SPARE, fd);
  for (int i = 0; i < procs; i++) attach(i, fd);
  sched_own(&ledger, sizeof ledger);
  (void)close(fd);
  return (struct sched_case){.name = c->name, .procs = procs, .program = program, .verdict = verdict, .quiet = quiet};
}

/* Small ones are searched whole, with one death or one stop at any step; larger ones at random. The
 * bounds are those of the test suite. */
const struct model_case model_cases[] = {
    /* name, producers, consumers, puts, gets, flags, capacity, batch, kind, {deaths, stops, preemptions, states} */
    {"one to one", 1, 1, 3, 3, 0, 2, 0, PLAIN, {1, 0, -1, STATES}},
    {"one to one, stop", 1, 1, 3, 3, 0, 2, 0, PLAIN, {0, 1, -1, STATES}},
    {"two to two", 2, 2, 1, 1, 0, 2, 0, PLAIN, {0, 0, 2, STATES}},
    {"two to two, death", 2, 2, 1, 1, 0, 2, 0, PLAIN, {1, 0, 1, STATES}},
    {"two to two, stop", 2, 2, 1, 1, 0, 2, 0, PLAIN, {0, 1, 1, STATES}},
    {"two to one, full", 2, 1, 2, 4, 0, 2, 0, PLAIN, {1, 0, 1, STATES}},
    {"one to two, nack", 1, 2, 2, 1, 0, 2, 0, NACK, {1, 0, 1, STATES}},
    {"copying get", 1, 2, 2, 1, 0, 2, 0, COPY, {1, 0, 1, STATES}},
    {"batches", 2, 1, 2, 4, 0, 2, 2, PLAIN, {1, 0, 1, STATES}},
    {"abort", 2, 1, 1, 1, 0, 2, 0, ABORT, {1, 0, 2, STATES}},
    {"two at a time", 1, 1, 2, 2, 0, 2, 0, HOLD, {1, 0, -1, STATES}},
    {"stages", 1, 2, 2, 1, 0, 2, 0, STAGE, {1, 0, 1, STATES}},
    {"one stage, two deaths", 1, 1, 1, 1, 0, 2, 0, STAGE, {2, 0, 2, STATES}},
    {"shutdown", 2, 1, 1, 9, 0, 2, 0, CLOSER, {1, 0, 1, STATES}},
    {"single producer", 1, 2, 2, 1, SHMQ_SINGLE_PRODUCER, 2, 0, PLAIN, {1, 0, 1, STATES}},
    {"single consumer", 2, 1, 1, 2, SHMQ_SINGLE_CONSUMER, 2, 0, PLAIN, {1, 0, 2, STATES}},
    {"single both", 1, 1, 3, 3, SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER, 2, 0, PLAIN, {1, 0, -1, STATES}},
    {"single shutdown", 1, 1, 2, 9, SHMQ_SINGLE_PRODUCER, 2, 0, CLOSER, {1, 0, 1, STATES}},
    /* At random only. */
    {"three to three", 3, 3, 4, 4, 0, 4, 0, PLAIN, {1, 1, -1, 0}},
    {"three to one", 3, 1, 4, 12, 0, 2, 0, PLAIN, {1, 0, -1, 0}},
    {"one to three", 1, 3, 9, 3, 0, 2, 0, PLAIN, {1, 0, -1, 0}},
    {"three to one, batches", 3, 1, 4, 12, 0, 4, 2, PLAIN, {1, 0, -1, 0}},
    {"three to three, batches", 3, 3, 4, 4, 0, 4, 2, PLAIN, {2, 1, -1, 0}},
    {"two to two, nack", 2, 2, 6, 6, 0, 2, 0, NACK, {1, 1, -1, 0}},
    {"two at a time, three", 2, 2, 6, 6, 0, 4, 0, HOLD, {1, 1, -1, 0}},
    {"four stages", 1, 4, 8, 2, 0, 2, 0, STAGE, {2, 1, -1, 0}},
};
const int model_case_count = sizeof model_cases / sizeof *model_cases;
