/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop: take requests, let the resources group what belongs together, submit and reap. It polls
 * while any session is hot and sleeps in the ring when none is; a session goes cold behind its
 * doorbell when it has brought nothing for the spin budget.
 */
#include <stdio.h>
#include <string.h>

#include "daemon.h"

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
  const struct shard *shard = d->shards;
  char text[192];
  int n =
      snprintf(text, sizeof text,
               "io=%s\nsessions=%u\nrequests=%llu\nredelivered=%llu\nresources=%u\ndraining=%d\nepoch=%u\n",
               io_name(shard->io), shard->session_count, (unsigned long long)shard->requests,
               (unsigned long long)shard->redelivered, d->resource_count, d->draining, d->epoch);
  request_value(r, 0, 0, text, (size_t)n);
}

static void children(const struct daemon *d, struct request *r) {
  size_t size = d->news ? strlen(d->news) : 0;
  if (size > r->in.room) {
    request_error(r, -EMSGSIZE, "there is more to be said than there is room for");
    return;
  }
  if (size) memcpy(r->in.data, d->news, size);
  request_in_place(r, 0, 0, size);
}

void daemon_serve(const struct daemon *d, struct request *r) {
  switch (r->in.header.op) {
  case SHMQ_DAEMON_NULL: request_value(r, 0, 0, NULL, 0); return;
  case SHMQ_DAEMON_RESOLVE: resolve(d, r); return;
  case SHMQ_DAEMON_STATUS: status(d, r); return;
  case SHMQ_DAEMON_CHILDREN: children(d, r); return;
  default: request_error(r, -EOPNOTSUPP, "no such operation");
  }
}

/* ---- draining ---- */

/* Asked again, it only has less time. */
void daemon_drain(struct daemon *d, int64_t until_ns, bool keep) {
  d->drain_until_ns = until_ns;
  if (d->draining) return;
  d->draining = true;
  d->keeping = keep;
  guard_stop(d);
  if (keep)
    sessions_pause(d->shards);
  else
    sessions_shut(d->shards);
}

/* ---- the loop ---- */

static bool drained(const struct shard *s) {
  return s->daemon->draining && !s->hot && sessions_idle(s) && resources_idle(s);
}

/* How long the ring may be waited in when nothing was found. */
static int64_t wait_until(struct shard *s, int found) {
  if (found || s->hot) return SHMQ_NOWAIT;
  const struct daemon *d = s->daemon;
  int64_t next = alarms_next(&s->alarms);
  return d->draining && d->drain_until_ns < next ? d->drain_until_ns : next;
}

int shard_run(struct shard *s) {
  int found = 1;
  while (!drained(s)) {
    if (s->daemon->draining && shmq_now_ns() >= s->daemon->drain_until_ns) {
      say(SAY_WARNING, "not everything was drained in time");
      return 0;
    }
    alarms_run(&s->alarms);
    found = sessions_turn(s);
    resources_turn(s);
    sessions_send(s);
    int rc = io_run(s->io, wait_until(s, found));
    sessions_send(s);
    if (rc < 0) {
      say(SAY_ERROR, "waiting for I/O: %s", strerror(-rc));
      return rc;
    }
  }
  return 0;
}
