/* SPDX-License-Identifier: Apache-2.0
 *
 * What survivors do after a death, and what must then be true.
 *
 *   1  They go on working: a sleeper is woken or wakes by itself, a taker gets what is there, a
 *      putter finds room where there is room, each within the bounded look.
 *   2  The ledger balances: every message whose put returned is seen once, none twice, one in doubt
 *      at most once, a commit_all wholly or not at all.
 *   3  Nothing is left: no cell, no block, no slot; the audit is clean; the ring takes all it can.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "world.h"

static void note_wait(struct world *w, int64_t since) {
  double ms = (double)(shmq_now_ns() - since) * 1e-6;
  if (ms > w->tally->worst_wait_ms) w->tally->worst_wait_ms = ms;
}

/* A survivor's call that has to succeed within its patience. */
static bool must(struct world *w, const char *what, int rc, int64_t since) {
  note_wait(w, since);
  if (rc >= 0) return true;
  shmq_queue_info q = {0};
  shmq_view_queue(w->view, 0, &q);
  fault(w, &w->tally->hung,
        "%s: %s after %.0f ms; main: depth %lu leased %lu reserved %lu returned %lu", what,
        shmq_strerror(rc), (double)(shmq_now_ns() - since) * 1e-6, (unsigned long)q.depth,
        (unsigned long)q.leased, (unsigned long)q.reserved, (unsigned long)q.returned);
  return false;
}

static bool timed_take(struct world *w, shmq *queue, const char *what) {
  int64_t since = shmq_now_ns();
  return must(w, what, peer_take(w, queue, shmq_after_ns(PATIENCE_NS)), since);
}

static bool timed_put(struct world *w, shmq *queue, const char *what) {
  int64_t since = shmq_now_ns();
  return must(w, what, peer_put(w, queue, shmq_after_ns(PATIENCE_NS)), since);
}

static shmq_queue_info look(struct world *w, uint32_t queue) {
  shmq_queue_info info = {0};
  int rc = shmq_view_queue(w->view, queue, &info);
  if (rc < 0) fault(w, &w->tally->other, "view of queue %u: %s", queue, shmq_strerror(rc));
  return info;
}

static void drain(struct world *w) {
  int rc;
  shmq *const queues[2] = {w->main, w->out};
  for (int i = 0; i < 2; i++) {
    do rc = peer_take(w, queues[i], SHMQ_NOWAIT);
    while (rc >= 0);
    if (rc != -EAGAIN && !(rc == -EPIPE && w->call->shuts))
      fault(w, &w->tally->hung, "take while draining: %s", shmq_strerror(rc));
  }
}

static void recover_all(struct world *w) {
  int rc, rounds = 0;
  do rc = shmq_recover(w->segment);
  while (rc > 0 && ++rounds < PARTICIPANTS);
  if (rc != 0) fault(w, &w->tally->other, "recover returned %d after %d rounds", rc, rounds);
}

/* ---- the sleeper ---- */

static bool sleeper_gone(struct world *w) {
  if (w->sleeper <= 0) return true;
  if (waitpid(w->sleeper, NULL, WNOHANG) != w->sleeper) return false;
  w->sleeper = 0;
  return true;
}

static bool await_sleeper(struct world *w, int64_t ns) {
  struct timespec tick = {.tv_nsec = 20000};
  for (int64_t end = shmq_after_ns(ns); !sleeper_gone(w);) {
    if (shmq_now_ns() > end) return false;
    nanosleep(&tick, NULL);
  }
  return true;
}

/* What the sleeper brought back goes into the ledger. */
static void book_sleeper(struct world *w) {
  int64_t rc = w->page->sleeper.result;
  uint64_t id = w->page->sleeper.id;
  if (rc > 0)
    ledger_seen(w, -1, id, 1);
  else if (rc == 0)
    ledger_allow(w, id, 1, 1);
  else if (!(rc == -EPIPE && w->call->shuts))
    fault(w, &w->tally->hung, "the sleeper's call: %s", shmq_strerror((int)rc));
}

static bool sleeper_puts(const struct world *w) {
  return (w->call->side & MAIN_TAKE) != 0 && (w->call->side & OUT_PUT) == 0;
}

/* Must it wake without anybody else doing anything? Yes, when the call that wakes it has returned,
 * or has come so far that what the sleeper waits for is there. */
static bool wakes_alone(struct world *w) {
  if (w->page->phase == PHASE_RETURNED) return true;
  if (sleeper_puts(w)) return false;
  shmq_queue_info info = look(w, (w->call->side & OUT_PUT) != 0 ? 1 : 0);
  return info.depth > 0 || info.shut_down;
}

static void settle_sleeper(struct world *w) {
  if (w->sleeper <= 0) return;
  shmq *queue = (w->call->side & OUT_PUT) != 0 ? w->out : w->main;
  int64_t since = shmq_now_ns();
  bool alone = wakes_alone(w);
  if (!alone && !sleeper_puts(w)) {
    int rc = peer_put(w, queue, shmq_after_ns(PATIENCE_NS));
    must(w, "put for the sleeper", rc == -EPIPE && w->call->shuts ? 0 : rc, since);
  } else if (!alone) {
    for (int i = 0; i < 2 * CAPACITY; i++)
      if (peer_take(w, queue, SHMQ_NOWAIT) < 0 && shmq_recover(w->segment) == 0) break;
  }
  if (await_sleeper(w, PATIENCE_NS)) {
    note_wait(w, since);
    book_sleeper(w);
  } else {
    fault(w, &w->tally->hung, "the sleeper still sleeps%s", alone ? ", though it should wake" : "");
  }
}

/* ---- the steps ---- */

static void release_held(struct world *w) {
  if (w->peer_reservation.data) {
    int rc = shmq_commit(w->main, &w->peer_reservation);
    if (rc < 0)
      fault(w, &w->tally->lost, "commit by the living: %s", shmq_strerror(rc));
    else
      ledger_allow(w, w->peer_reserved_id, 1, 1);
  }
  if (w->peer_lease.data) {
    ledger_seen(w, -1, message_id(w->peer_lease.data, w->peer_lease.size), 1);
    int rc = shmq_ack(w->main, &w->peer_lease);
    if (rc < 0) fault(w, &w->tally->duplicated, "ack by the living: %s", shmq_strerror(rc));
  }
  memset(&w->peer_reservation, 0, sizeof w->peer_reservation);
  memset(&w->peer_lease, 0, sizeof w->peer_lease);
}

/* Cells given up wait for a taker; only a declared consumer may take them from its queue. */
static bool given_up(struct world *w) {
  shmq_cell_info cell;
  uint64_t cursor = 0;
  while (shmq_view_next(w->view, 0, &cursor, &cell, NULL, 0) > 0)
    if (cell.state == SHMQ_CELL_TOMBSTONE) return true;
  return false;
}

/* One message out and one in, as the state allows. */
static void go_on(struct world *w) {
  shmq_queue_info info = look(w, 0);
  if (info.depth > 0 && info.delayed == 0 && !w->call->buries)
    timed_take(w, w->main, "take what is there");
  info = look(w, 0);
  bool room = info.leased == 0 && info.returned == 0 && info.depth + info.reserved < CAPACITY;
  if (w->mode == MODE_MPSC || w->mode == MODE_SPSC) room = room && !given_up(w);
  if (room && !w->call->shuts) timed_put(w, w->main, "put where there is room");
}

/* Takers that do nothing but wait find by themselves what the dead held. */
static bool outstanding(const struct world *w) {
  for (uint32_t id = 1; id < w->next_id; id++)
    if (w->entries[id].seen < w->entries[id].min) return true;
  return false;
}
static void wait_for_the_rest(struct world *w) {
  int64_t since = shmq_now_ns(), end = since + PATIENCE_NS;
  int rc = 0;
  while (outstanding(w) && shmq_now_ns() < end) {
    if (w->call->side & OUT_PUT) { /* it may come out at either end */
      rc = peer_take(w, w->out, SHMQ_NOWAIT);
      if (rc < 0) rc = peer_take(w, w->main, shmq_after_ns(100000000));
    } else {
      rc = peer_take(w, w->main, end);
    }
  }
  must(w, "wait for what is outstanding", outstanding(w) ? rc : 0, since);
}

/* A commit_all of n inputs and n outputs: all the one or all the other. */
static void balance_step(struct world *w, int victim) {
  int inputs = 0, outputs = 0, n = 0;
  for (uint32_t id = 1; id < w->next_id; id++) {
    const struct entry *e = &w->entries[id];
    if (e->step_of != victim) continue;
    n += e->step == STEP_INPUT;
    inputs += e->step == STEP_INPUT && e->seen > 0;
    outputs += e->step == STEP_OUTPUT && e->seen > 0;
  }
  if (inputs + outputs == n && (inputs == 0 || outputs == 0)) return;
  fault(w, inputs + outputs < n ? &w->tally->lost : &w->tally->duplicated,
        "commit_all by halves: %d of %d inputs came back, %d outputs were made", inputs, n,
        outputs);
}

static void balance(struct world *w) {
  for (uint32_t id = 1; id < w->next_id; id++) {
    const struct entry *e = &w->entries[id];
    if (e->seen < e->min) fault(w, &w->tally->lost, "message %u is lost", id);
    if (e->seen > e->max)
      fault(w, &w->tally->duplicated, "message %u was seen %u times, not %u", id, e->seen, e->max);
  }
  for (int victim = 0; victim < 2; victim++) balance_step(w, victim);
}

/* How far did they come, and what follows for the ledger? */
static void expect(struct world *w) {
  struct page *page = w->page;
  w->call->expect(w);
  if (!w->twin) return;
  w->page = w->second;
  w->own = TWIN_ID;
  w->call->expect(w);
  w->page = page;
  w->own = OWN_ID;
}

static void audit(struct world *w, uint32_t living) {
  shmq_audit a = {0};
  shmq_segment_info s = {0};
  int rc = shmq_view_audit(w->view, &a);
  if (rc < 0) fault(w, &w->tally->other, "audit: %s", shmq_strerror(rc));
  if (a.dead_participants || a.held_by_dead || a.leaked_blocks || a.damaged || a.unexplained)
    fault(w, &w->tally->leaked, "audit: dead %u held %lu blocks %lu damaged %lu unexplained %lu",
          a.dead_participants, (unsigned long)a.held_by_dead, (unsigned long)a.leaked_blocks,
          (unsigned long)a.damaged, (unsigned long)a.unexplained);
  for (uint32_t i = 0; i < 2; i++) {
    shmq_queue_info q = look(w, i);
    if (q.depth || q.leased || q.reserved || q.returned || q.damaged)
      fault(w, &w->tally->leaked, "queue %u: depth %lu leased %lu reserved %lu returned %lu", i,
            (unsigned long)q.depth, (unsigned long)q.leased, (unsigned long)q.reserved,
            (unsigned long)q.returned);
  }
  rc = shmq_view_segment(w->view, &s);
  if (rc < 0) fault(w, &w->tally->other, "view of the segment: %s", shmq_strerror(rc));
  if (s.blocks_free != s.blocks)
    fault(w, &w->tally->leaked, "%u of %u blocks are free", s.blocks_free, s.blocks);
  if (s.participants != living)
    fault(w, &w->tally->leaked, "%u slots are in use, not %u", s.participants, living);
}

/* The ring has all its cells, and a put and a get still do what they say. */
static void full_circle(struct world *w) {
  int rc = 0;
  if (w->call->shuts && (rc = shmq_reopen(w->main)) < 0)
    fault(w, &w->tally->other, "reopen: %s", shmq_strerror(rc));
  for (int i = 0; i < CAPACITY; i++)
    if (!timed_put(w, w->main, "put into the empty ring")) return;
  if ((rc = peer_put(w, w->main, SHMQ_NOWAIT)) >= 0 && w->call->options == NULL)
    fault(w, &w->tally->other, "a full ring took one more");
  for (int i = 0; i < CAPACITY; i++)
    if (!timed_take(w, w->main, "take from the full ring")) return;
}

/* Messages given back with a delay come of age. */
static void await_delayed(struct world *w) {
  struct timespec tick = {.tv_nsec = 100000};
  for (int i = 0; i < 1000 && look(w, 0).delayed > 0; i++) {
    nanosleep(&tick, NULL);
    drain(w);
  }
  drain(w); /* it may have come of age between the drain and the look */
}

/* After a creator's death: its name is free for a new segment, or stands for a whole one. */
static bool adopt(struct world *w) {
  int rc = world_create(w);
  bool whole = w->page->phase == PHASE_RETURNED && w->page->result == 0;
  if (rc != -EEXIST && (rc < 0 || whole)) {
    fault(w, &w->tally->hung, "create after a dead creator: %s", shmq_strerror(rc));
    return false;
  }
  if ((rc = world_adopt(w)) < 0)
    fault(w, &w->tally->hung, "attach after a dead creator: %s", shmq_strerror(rc));
  return rc >= 0;
}

void survive(struct world *w, unsigned pick) {
  if (w->segment == NULL && !adopt(w)) return;
  expect(w);
  settle_sleeper(w);
  release_held(w);
  go_on(w);
  if (pick % 16 == 0) wait_for_the_rest(w);
  recover_all(w);
  drain(w);
  await_delayed(w);
  balance(w);
  full_circle(w);
  audit(w, 1);
}

void respect(struct world *w, unsigned pick) {
  if (w->segment == NULL) { /* either creator may win, but not both */
    w->peer_created = world_create(w) == 0;
    return;
  }
  int rc = shmq_recover(w->segment);
  if (rc != 0) fault(w, &w->tally->other, "a living, stopped process was recovered (%d)", rc);
  /* A sleeper shall get what it waits for: the peer leaves that alone. */
  for (unsigned i = 0; i < 3 && w->sleeper <= 0; i++) peer_act(w, pick + i);
  shmq_audit a = {0};
  rc = shmq_view_audit(w->view, &a);
  if (rc < 0) fault(w, &w->tally->other, "audit: %s", shmq_strerror(rc));
  if (a.dead_participants || a.damaged || a.leaked_blocks || a.unexplained)
    fault(w, &w->tally->other,
          "audit beside a stopped process: dead %u damaged %lu blocks %lu unexplained %lu",
          a.dead_participants, (unsigned long)a.damaged, (unsigned long)a.leaked_blocks,
          (unsigned long)a.unexplained);
}
