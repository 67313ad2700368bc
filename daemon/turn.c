/* SPDX-License-Identifier: Apache-2.0
 *
 * A session's turn: a bounded number of its requests are taken and begun. One that brings nothing goes to
 * sleep behind its doorbell.
 */
#include "session.h"
#include "shard.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TURN_REQUESTS = 32, TURN_BYTES = 256 << 10 };
static const int64_t slice_ns = 2000000, again_ns = 10000000, crowded_ns = 300000000;

static void dispatch(struct request *r) {
  const struct shard *shard = r->session->shard;
  uint16_t number = r->in.header.resource;
  if (number == 0) {
    daemon_serve(shard->daemon, r);
    return;
  }
  r->resource = resource_find(shard->daemon, number);
  if (!r->resource)
    request_error(r, -ENODEV, "no such resource");
  else if (r->resource->shard == shard)
    resource_serve(r);
  else
    request_send(r);
}

static void doorbell(struct io_op *op, int result) {
  struct session *s = (struct session *)((char *)op - offsetof(struct session, bell_op));
  s->polls--;
  s->bell_polled = false;
  if (s->state == SESSION_OPEN && result < 0)
    session_end(s, "its doorbell failed");
  else if (s->state == SESSION_OPEN)
    session_make_hot(s);
  else
    session_free_if_over(s);
}

/* Somebody changed the word and did not live to ring, or did not ring for good: what waits behind the old value ends. */
static void ring_own_bell(uint32_t *word) {
  (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Sleep behind the doorbell: announced, looked again, and only then no longer polled. It may be armed still, when an answer has made the
 * session hot meanwhile. */
static void sleep_behind_bell(struct session *s) {
  uint32_t *word, value;
  int rc = shmq_service_event_word(s->service, &word, &value);
  if (rc < 0) {
    session_end(s, "its doorbell cannot be armed");
    return;
  }
  if (rc > 0) return;
  if (s->bell_polled && value != (uint32_t)s->bell_op.offset) {
    ring_own_bell(word);
    return;
  }
  session_make_cold(s);
  if (s->bell_polled) return;
  s->bell_op = (struct io_op){.what = IO_FUTEX, .buffer = word, .offset = value, .done = doorbell};
  s->bell_polled = true;
  s->polls++;
  io_submit(s->shard->io, &s->bell_op);
}

static void go_to_sleep(struct session *s) {
  requests_make_way(s); /* what began to wait elsewhere when this was looked at last */
  if (s->in_flight >= s->credits)
    session_make_cold(s); /* until an answer gives a credit back */
  else
    sleep_behind_bell(s);
}

/* ---- answers ---- */

void session_answered(struct session *s) {
  if (s->unsent) return;
  s->unsent = true;
  s->unsent_next = s->shard->unsent;
  s->shard->unsent = s;
}

void session_forget_answers(struct session *s) {
  struct session **at = &s->shard->unsent;
  if (!s->unsent) return;
  while (*at != s) at = &(*at)->unsent_next;
  *at = s->unsent_next;
  s->unsent = false;
}

static void send_answers(struct session *s) {
  if (s->state == SESSION_OPEN && shmq_service_flush(s->service) < 0)
    session_end(s, "its memory makes no sense");
}

void sessions_send(struct shard *shard) {
  for (struct session *s; (s = shard->unsent);) {
    shard->unsent = s->unsent_next;
    s->unsent = false;
    send_answers(s);
  }
}

/* ---- requests ---- */

/* For others to read: nobody else counts. */
static void count(_Atomic uint64_t *n) {
  atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1, memory_order_relaxed);
}

static struct request *next_taken(struct session *s) {
  struct request *r = s->taken;
  s->taken = r->next;
  r->next = NULL;
  s->in_flight++;
  count(&s->shard->requests);
  if (r->in.attempts <= 1) return r;
  count(&s->shard->redelivered);
  s->unlooked = s->credits; /* if it waits, then not for its executions */
  return r;
}

/* Returns how many were begun, or why the session cannot go on. Answers go out before more is looked for. */
static int take_requests(struct session *s) {
  int begun = 0;
  for (size_t bytes = 0; begun < TURN_REQUESTS && bytes < TURN_BYTES; begun++) {
    if (!s->taken) {
      if (begun) send_answers(s);
      if (s->state != SESSION_OPEN || s->in_flight >= s->credits) return begun;
      int rc = requests_take(s, s->credits - s->in_flight);
      s->unlooked += rc > 0 ? (uint32_t)rc : 0;
      if (s->unlooked >= (s->credits + 3) / 4) requests_make_way(s);
      if (rc <= 0) return rc ? rc : begun;
    }
    struct request *r = next_taken(s);
    bytes += r->in.room;
    dispatch(r);
    if (s->state != SESSION_OPEN) return begun;
  }
  return begun;
}

/* ---- how long it is polled ---- */

/* `spin`; where that ended too early the last time, `spin_most`: it was back soon, or its answer was, as a disk's is. Asleep, both processors
 * sleep in the end, and on a virtual machine their waking takes longer than the disk's next block. Apart for who waits for an answer and who has
 * none to wait for: who asks at once after slow answers is not polled through them. */
static int64_t spin_of(const struct session *s, int64_t now_ns) {
  const struct daemon *d = s->shard->daemon;
  return s->soon[s->in_flight > 0] && now_ns >= s->shard->crowded_until_ns ? d->spin_most_ns : d->spin_ns;
}

static void note_activity(struct session *s, bool brought, int64_t now_ns) {
  const struct daemon *d = s->shard->daemon;
  if (s->woken) s->soon[s->waiting] = now_ns - s->active_ns <= d->spin_most_ns;
  if (brought || s->woken || s->answered) s->active_ns = now_ns;
  s->woken = s->answered = false;
  if (now_ns - s->active_ns <= d->spin_ns) s->shard->patient_ns = 0;
}

/* Others took the processor for a whole slice, and soon again: they do not wait for anything, and a sleeper is let in before them where who
 * polls is not. */
static void look_for_others(struct shard *shard, int64_t now_ns) {
  if (!shard->patient_ns || now_ns - shard->patient_ns < slice_ns) return;
  if (now_ns - shard->taken_ns < again_ns) shard->crowded_until_ns = now_ns + crowded_ns;
  shard->taken_ns = now_ns;
}

/* ---- turns ---- */

/* It must not be freed while it is worked on: polls keeps it. */
static int session_turn(struct session *s, int64_t now_ns) {
  s->polls++;
  int n = take_requests(s);
  s->polls--;
  if (s->state != SESSION_OPEN) {
    session_free_if_over(s);
    return 0;
  }
  note_activity(s, n > 0, now_ns);
  if (n == -EPIPE && s->shard->daemon->draining) session_leave_resources(s); /* who came to wait since */
  if (n == -EPIPE && s->in_flight) {
    s->shut = true;
    session_make_cold(s);
  } else if (n < 0)
    session_end(s, n == -EPIPE ? "its queue was shut" : "its memory makes no sense");
  else if (n == 0 && now_ns - s->active_ns > spin_of(s, now_ns))
    go_to_sleep(s);
  return n > 0 ? n : 0;
}

int sessions_turn(struct shard *shard) {
  int n = 0;
  shard->takes++;
  int64_t now = shard->hot ? shmq_now_ns() : 0;
  if (shard->hot) look_for_others(shard, now);
  shard->patient_ns = now;
  for (struct session *s = shard->hot, *next; s; s = next) {
    next = s->hot_next;
    n += session_turn(s, now);
  }
  if (!shard->hot) shard->patient_ns = 0;
  return n;
}

void sessions_shut(struct shard *shard) {
  for (struct session *s = shard->sessions, *next; s; s = next) {
    next = s->next;
    session_leave_resources(s);
    if (s->state == SESSION_OPEN) {
      shmq_service_shutdown(s->service);
      session_make_hot(s); /* what is queued is taken, and then the end of the queue is seen */
    } else {
      session_free_if_over(s);
    }
  }
}

void sessions_pause(struct shard *shard) {
  for (struct session *s = shard->sessions; s; s = s->next) session_make_cold(s);
}

/* Wherever they are parked. */
static uint32_t parked(const struct session *s) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < s->credits; i++)
    n += atomic_load_explicit(&s->requests[i].rest, memory_order_relaxed) == REQUEST_PARKED;
  return n;
}

bool sessions_idle(const struct shard *shard) {
  bool keeping = shard->daemon->keeping;
  for (const struct session *s = shard->sessions; s; s = s->next)
    if (keeping ? s->in_flight && s->in_flight > parked(s)
                : s->in_flight || s->state == SESSION_OPEN)
      return false;
  return true;
}
