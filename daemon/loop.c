/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop: take requests, let the resources group what belongs together, submit and reap. It polls
 * while any session is hot and sleeps in the ring when none is; a session goes cold behind its
 * doorbell when it has brought nothing for the spin budget.
 */
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "shard.h"

/* ---- resource 0 ---- */

static void resolve(const struct daemon *d, struct request *r) {
  char name[64];
  int rc = request_text(r, name, sizeof name);
  if (rc < 0) {
    request_error(r, rc, "the name makes no sense");
    return;
  }
  for (const struct resource *o = d->resources; o; o = o->next) {
    if (strcmp(o->section->name, name) != 0) continue;
    const char *kind = o->kind->section.name;
    request_value(r, o->number, 0, kind, strlen(kind));
    return;
  }
  request_error(r, -ENOENT, "no resource of that name");
}

static void status(const struct daemon *d, struct request *r) {
  unsigned sessions = 0;
  unsigned long long requests = 0, redelivered = 0, mapped = 0;
  char text[224];
  for (const struct shard *s = d->shards; s < d->shards + d->shard_count; s++) {
    sessions += s->session_count;
    requests += s->requests;
    redelivered += s->redelivered;
    mapped += s->mapped;
  }
  int n = snprintf(text, sizeof text,
                   "io=%s\nshards=%u\nsessions=%u\nrequests=%llu\nredelivered=%llu\n"
                   "resources=%u\nmapped=%llu\ndraining=%d\nepoch=%u\n",
                   io_name(d->shards->io), d->shard_count, sessions, requests, redelivered,
                   d->resource_count, mapped, d->draining, d->epoch);
  request_value(r, 0, 0, text, (size_t)n);
}

static void children(struct daemon *d, struct request *r) {
  pthread_mutex_lock(&d->lock);
  size_t size = d->news ? strlen(d->news) : 0;
  bool fits = size <= r->in.room;
  if (fits && size) memcpy(r->in.data, d->news, size);
  pthread_mutex_unlock(&d->lock);
  if (fits)
    request_in_place(r, 0, 0, size);
  else
    request_error(r, -EMSGSIZE, "there is more to be said than there is room for");
}

void daemon_serve(struct daemon *d, struct request *r) {
  switch (r->in.header.op) {
  case SHMQ_DAEMON_NULL: request_value(r, 0, 0, NULL, 0); return;
  case SHMQ_DAEMON_RESOLVE: resolve(d, r); return;
  case SHMQ_DAEMON_STATUS: status(d, r); return;
  case SHMQ_DAEMON_CHILDREN: children(d, r); return;
  default: request_error(r, -EOPNOTSUPP, "no such operation");
  }
}

void daemon_read_spin(struct daemon *d) {
  d->spin_ns = section_number(d->settings, "spin");
  d->spin_most_ns = section_number(d->settings, "spin_most");
  if (d->spin_most_ns < d->spin_ns || !d->spin_ns) d->spin_most_ns = d->spin_ns;
}

/* ---- draining ---- */

void shard_drain(struct shard *s) {
  if (s->daemon->keeping)
    sessions_pause(s);
  else
    sessions_shut(s);
}

/* Asked again, it only has less time. */
void daemon_drain(struct daemon *d, int64_t until_ns, bool keep) {
  d->drain_until_ns = until_ns;
  if (d->draining) return;
  d->keeping = keep;
  d->draining = true;
  guard_stop(d);
  shard_drain(d->shards);
  shards_ask_others(d, ERRAND_DRAIN);
}

/* The first shard ends the loops of all. */
static void drain_turn(struct shard *s) {
  struct daemon *d = s->daemon;
  shard_set_quiet(s, !s->hot && sessions_idle(s) && resources_idle(s));
  if (s->index) return;
  bool late = shmq_now_ns() >= d->drain_until_ns;
  bool quiet = shards_quiet(d);
  if (late && !quiet) say(SAY_WARNING, "not everything was drained in time");
  if (late || quiet) d->over = true;
}

/* ---- the loop ---- */

static bool is_over(struct shard *s) {
  if (s->daemon->draining) drain_turn(s);
  return s->daemon->over;
}

/* How long the ring may be waited in when nothing was found. */
static int64_t wait_until(struct shard *s, int found) {
  const struct daemon *d = s->daemon;
  if (found || s->hot) return SHMQ_NOWAIT;
  if (d->shard_count > 1 && !shard_may_sleep(s)) return SHMQ_NOWAIT;
  int64_t next = alarms_next(&s->alarms);
  return d->draining && !s->index && d->drain_until_ns < next ? d->drain_until_ns : next;
}

int shard_run(struct shard *s) {
  int rc = 0;
  while (!is_over(s)) {
    int found = s->daemon->shard_count > 1 ? shard_deliver(s) : 0;
    alarms_run(&s->alarms);
    found += sessions_turn(s);
    resources_turn(s);
    sessions_send(s);
    bool offer = s->lingering || (s->patient_ns && rc == 0);
    if (!found && offer) sched_yield(); /* others may have been woken on this processor */
    rc = io_run(s->io, wait_until(s, found));
    sessions_send(s);
    if (rc < 0) {
      say(SAY_ERROR, "waiting for I/O: %s", strerror(-rc));
      return rc;
    }
  }
  return 0;
}
