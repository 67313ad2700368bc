/* SPDX-License-Identifier: Apache-2.0 */
#include "campaign.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATES_MAX = 200000, WATCHDOG_S = 150 };

const char *const kind_names[KIND_COUNT] = {"kill", "stop", "recover", "rejoin", "twin"};

struct campaign {
  struct world world;
  const struct job *job;
  const struct plan *plan;
  struct place *place;
  struct path path;      /* of the call alone */
  struct path contended; /* of the call after the peer acted at state `act` */
  struct path recovery;  /* of the recoverer after a death at one point */
  int64_t act;           /* -1: the peer does not act */
};

static bool unfinished(const struct campaign *c, const struct victim *v) {
  return v->pid > 0 && c->world.page->phase != PHASE_RETURNED;
}

/* ---- one run ---- */

static void name_point(struct campaign *c, uint32_t n, int64_t m) {
  const struct job *j = c->job;
  c->place->n = n;
  c->place->m = m < 0 ? 0 : (uint32_t)m;
  int used = snprintf(c->world.where, sizeof c->world.where, "%s/%s/%s %s --at %u", j->call->name,
                      state_names[j->state], mode_names[j->mode], kind_names[j->kind], n);
  if (m >= 0 && used > 0)
    snprintf(c->world.where + used, sizeof c->world.where - (size_t)used, " --then %u",
             (unsigned)m);
  if (c->act >= 0 && used > 0)
    snprintf(c->world.where + used, sizeof c->world.where - (size_t)used, " --peer-acts %u",
             (unsigned)c->act);
  alarm(WATCHDOG_S);
}

/* Build the world and start the victim; it stands at state 0. */
static bool begin(struct campaign *c, struct victim *v) {
  struct world *w = &c->world;
  int rc = world_open(w);
  if (rc < 0) fault(w, &w->tally->other, "the world was not built: %s", shmq_strerror(rc));
  *v = (struct victim){.phase = &w->page->phase, .wake = world_wake_victim, .arg = w};
  v->may_sleep = w->state == STATE_SLEEPS;
  bool ok = rc >= 0;
  if (ok && w->state == STATE_ASLEEP && !sleeper_start(w)) {
    fault(w, &w->tally->other, "the sleeper does not sleep");
    ok = false;
  }
  if (ok && victim_start(v, world_victim, w) != 0) {
    fault(w, &w->tally->other, "the victim did not reach its call");
    ok = false;
  }
  if (ok && w->state == STATE_WARM) { /* what it did before its call */
    if (w->call->side & MAIN_TAKE) ledger_allow(w, OWN_MAX + 1, 0, 0);
    if (w->call->side & MAIN_PUT) ledger_allow(w, WARM_ID, 1, 1);
  }
  if (!ok) {
    victim_kill(v);
    world_close(w);
  }
  return ok;
}

static bool gone(struct campaign *c, struct victim *v, enum stop stop) {
  if (stop != STOP_GONE) return false;
  fault(&c->world, &c->world.tally->other, "the victim ended by itself (signal %d)", v->signal);
  return true;
}

/* From state 0 to state n; with contention, to state `act` first, where the peer acts. */
static enum stop reach(struct campaign *c, struct victim *v, uint32_t n) {
  if (c->act < 0) return victim_hop(v, &c->path, n);
  enum stop stop = victim_hop(v, &c->path, (uint32_t)c->act);
  if (stop != STOP_AT) return stop;
  peer_act(&c->world, (unsigned)c->act);
  return victim_hop(v, &c->contended, n);
}

static void finish(struct campaign *c, struct victim *v, uint32_t n) {
  victim_kill(v);
  c->world.tally->points++;
  survive(&c->world, n);
  world_close(&c->world);
}

/* The call runs to its end, single-stepped: the path, and the death at its last state. */
static bool record(struct campaign *c, struct path *path) {
  struct victim v;
  struct world *w = &c->world;
  name_point(c, 0, -1);
  alarm(20 * WATCHDOG_S);
  if (!begin(c, &v)) return false;
  enum stop stop = STOP_AT;
  if (c->act >= 0) {
    stop = victim_hop(&v, &c->path, (uint32_t)c->act);
    if (stop == STOP_AT) peer_act(w, (unsigned)c->act);
  }
  path_reset(path);
  if (stop == STOP_AT) stop = path_record(path, &v, world_image, w, STATES_MAX);
  if (!gone(c, &v, stop)) {
    if (unfinished(c, &v))
      fault(w, &w->tally->hung, "the call did not return in %u instructions", path->length);
    else if (!w->call->good(w))
      fault(w, &w->tally->other, "the call alone returned %ld", (long)w->page->result);
  }
  if (path->length > w->tally->instructions) w->tally->instructions = path->length - 1;
  finish(c, &v, 1);
  return stop == STOP_DONE;
}

/* ---- which points ---- */

/* Every state, or those around each shared write and each system call, and a sample of the others:
 * between two of them a death leaves the same bytes and the same locks. */
static bool chosen(const struct campaign *c, const struct path *p, uint32_t n, int64_t only,
                   bool every) {
  if (only >= 0) return n == (uint64_t)only;
  if (every || n == 0 || n + 1 >= p->length) return true;
  uint32_t sixteenth = p->length / 16, stride = c->plan->stride;
  return p->mark[n] != 0 || p->mark[n + 1] != 0 ||
         n % (stride > sixteenth ? stride : sixteenth) == 0;
}

/* ---- kill ---- */

static void kill_at(struct campaign *c, uint32_t n) {
  struct victim v;
  name_point(c, n, -1);
  if (!begin(c, &v)) return;
  enum stop stop = reach(c, &v, n);
  gone(c, &v, stop);
  finish(c, &v, n);
}

/* Kill it in its sleep, in the system call of state n. */
static void kill_asleep(struct campaign *c, uint32_t n) {
  struct victim v;
  name_point(c, n, -1);
  if (!begin(c, &v)) return;
  enum stop stop = reach(c, &v, n);
  v.wake = NULL;
  if (stop == STOP_AT) stop = victim_step(&v);
  gone(c, &v, stop);
  finish(c, &v, n);
}

static void kill_everywhere(struct campaign *c, const struct path *p) {
  bool slept = false;
  for (uint32_t n = 0; n < p->length; n++) {
    bool sleeps = (p->mark[n] & MARK_SLEEP) != 0;
    slept = slept || sleeps;
    if (!chosen(c, p, n, c->plan->only_n, c->plan->full)) continue;
    kill_at(c, n);
    if (sleeps) kill_asleep(c, n);
  }
  if (c->world.state == STATE_SLEEPS && !slept)
    fault(&c->world, &c->world.tally->other, "the victim never fell asleep");
}

/* The peer acts at state m, the victim is killed at every later one. It matters most right before
 * the victim writes; some states in between are sampled. */
static void kill_contended(struct campaign *c) {
  uint32_t length = c->path.length - 1, last = UINT32_MAX;
  for (uint32_t m = 0; m < length; m++) {
    bool write = c->plan->full && (c->path.mark[m + 1] & MARK_WRITE) != 0;
    if (!write && last != UINT32_MAX && m - last < length / 4 + 1) continue;
    last = m;
    c->act = m;
    if (record(c, &c->contended)) kill_everywhere(c, &c->contended);
  }
  c->act = -1;
}

/* ---- stop ---- */

/* Results that a call may have beside a peer that works meanwhile. */
static bool unharmed(const struct world *w) {
  int64_t rc = w->page->result;
  if (w->call->creates && w->state == STATE_EMPTY) return rc == (w->peer_created ? -EEXIST : 0);
  if (w->call->creates) return rc == -EEXIST;
  return rc >= 0 || rc == -EAGAIN || (rc == -EMSGSIZE && (w->call->side & MAIN_TAKE) != 0);
}

static void stop_at(struct campaign *c, uint32_t n) {
  struct victim v;
  struct world *w = &c->world;
  name_point(c, n, -1);
  if (!begin(c, &v)) return;
  if (!gone(c, &v, reach(c, &v, n))) {
    w->page->traced = 0;
    if (victim_stop(&v) != 0) fault(w, &w->tally->other, "the victim could not be stopped");
    respect(w, n);
    int status = -1;
    for (int i = 0; i < 10 && status < 0; i++) { /* a batch may sleep several times */
      if (w->state == STATE_SLEEPS) world_wake_victim(w);
      status = victim_continue(&v, i < 8 ? 5 : 5000);
    }
    if (status != 0)
      fault(w, &w->tally->hung, "continued, it ended with wait status %#x", (unsigned)status);
    else if (!unharmed(w))
      fault(w, &w->tally->other, "continued, its call returned %ld", (long)w->page->result);
  }
  finish(c, &v, n);
}

/* ---- kill, then kill who recovers ---- */

/* Recovers, or joins; who comes after a dead creator creates. */
static void recoverer_body(void *world) {
  struct world *w = world;
  shmq_segment *segment = NULL;
  if (w->segment == NULL) {
    victim_begin(w->second);
    int rc = world_create(w);
    w->second->result = rc == -EEXIST ? 0 : rc;
    victim_end(w->second);
    return;
  }
  if (shmq_attach(&segment, w->name) < 0) _exit(20);
  if (w->second->stage == KIND_RECOVER) shmq_join_segment(segment, "recoverer", NULL);
  victim_begin(w->second);
  w->second->result = w->second->stage == KIND_RECOVER
                          ? shmq_recover(segment)
                          : shmq_join_segment(segment, "successor", NULL);
  victim_end(w->second);
}

/* A world in which the victim has died at state n and a recoverer, who was there before, stands at
 * its state 0. (Somebody who joins later recovers on the way in: that is KIND_REJOIN.) */
static bool begin_recovery(struct campaign *c, struct victim *r, uint32_t n) {
  struct victim v;
  struct world *w = &c->world;
  if (!begin(c, &v)) return false;
  w->twin = c->job->kind == KIND_TWIN;
  if (!w->twin) w->second->stage = c->job->kind;
  *r = (struct victim){.phase = &w->second->phase};
  bool ready = victim_start(r, w->twin ? world_twin : recoverer_body, w) == 0;
  gone(c, &v, reach(c, &v, n));
  victim_kill(&v);
  if (ready) return true;
  fault(w, &w->tally->other, "the recoverer did not reach its call");
  finish(c, r, n);
  return false;
}

/* The dead hold no role any more, and nothing is damaged. */
static bool second_is_blocked(const struct world *w) {
  return w->second->result == -EBUSY || w->second->result == -EBADMSG;
}

static void recover_from(struct campaign *c, uint32_t n, bool every) {
  struct victim r;
  struct world *w = &c->world;
  name_point(c, n, -1);
  alarm(20 * WATCHDOG_S);
  if (!begin_recovery(c, &r, n)) return;
  path_reset(&c->recovery);
  enum stop stop = path_record(&c->recovery, &r, world_image, w, STATES_MAX);
  if (stop != STOP_DONE)
    fault(w, &w->tally->hung, "the recoverer did not return");
  else if (!w->twin ? w->second->result < 0 : second_is_blocked(w))
    fault(w, &w->tally->other, "the recoverer's call returned %ld", (long)w->second->result);
  if (c->recovery.length > w->tally->instructions) w->tally->instructions = c->recovery.length - 1;
  finish(c, &r, n + 1);

  for (uint32_t m = 0; m < c->recovery.length; m++) {
    if (!chosen(c, &c->recovery, m, c->plan->only_m, every)) continue;
    name_point(c, n, m);
    if (!begin_recovery(c, &r, n)) return;
    stop = victim_hop(&r, &c->recovery, m);
    if (stop == STOP_GONE)
      fault(w, &w->tally->other, "the recoverer ended by itself (%d)", r.signal);
    finish(c, &r, n + m);
  }
}

/* Is the i-th distinct death worth a recoverer, and each of its instructions? Most of the way of
 * KIND_REJOIN has nothing to do with the dead, so it gets a quarter of the others' share. */
static bool worth_recovering(const struct campaign *c, uint32_t i, bool *every) {
  uint32_t share = c->plan->full ? 1 : 4;
  if (c->job->kind == KIND_REJOIN) share *= 4;
  *every = c->plan->full && c->job->kind == KIND_RECOVER && i % 8 == 1;
  return c->plan->only_n >= 0 || i % share == 1 % share;
}

/* Deaths that leave the same bytes and the same locks behind are one death to a recoverer: only the
 * first of each counts. The short plan takes one in four of those, the full plan all, and kills the
 * recoverer of one in eight at every instruction. */
static void recover_everywhere(struct campaign *c) {
  uint64_t seen[256];
  uint32_t distinct = 0;
  int64_t only = c->plan->only_n;
  for (uint32_t n = 0; n < c->path.length && distinct < 256; n++) {
    bool every, locks = (c->path.mark[n] & MARK_SYSCALL) != 0;
    bool is_new = n == 0 || locks || (c->path.mark[n] & MARK_WRITE) != 0;
    for (uint32_t i = 0; i < distinct && is_new && !locks; i++)
      is_new = seen[i] != c->path.image[n];
    if (only >= 0) is_new = n == (uint64_t)only;
    if (!is_new) continue;
    seen[distinct] = c->path.image[n];
    if (worth_recovering(c, distinct++, &every)) recover_from(c, n, every);
  }
}

void campaign(const struct job *job, const struct plan *plan, const char *name, struct page *pages,
              struct place *place, struct tally *tally) {
  static struct campaign c; /* keeps its paths' memory from job to job */
  c.job = job;
  c.plan = plan;
  c.place = place;
  c.act = -1;
  c.world = (struct world){.call = job->call,
                           .mode = job->mode,
                           .state = job->state,
                           .tally = tally,
                           .page = &pages[0],
                           .second = &pages[1]};
  snprintf(c.world.name, sizeof c.world.name, "%s", name);
  if (record(&c, &c.path)) {
    switch (job->kind) {
    case KIND_KILL:
      if (job->state == STATE_CONTENDED)
        kill_contended(&c);
      else
        kill_everywhere(&c, &c.path);
      break;
    case KIND_STOP:
      for (uint32_t n = 0; n < c.path.length; n++)
        if (chosen(&c, &c.path, n, plan->only_n, plan->full)) stop_at(&c, n);
      break;
    default: recover_everywhere(&c); break;
    }
  }
  alarm(0);
}
