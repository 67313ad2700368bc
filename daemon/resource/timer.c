/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers: a request that is answered when it is due, and messages put into queues, once or again and again.
 * The first kind is its session's; the second outlives it, until it is cleared or the daemon ends. A queue is
 * opened for each message, on a helper thread: whose segment it is may be another one by then.
 */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "shmq/resource.h"
#include "wait_list.h"

enum { RETRY_NS = 100000000, NAME_MAX_BYTES = 2 * (SHMQ_NAME_MAX + 1), EPOCH_SHIFT = 32 };

struct timers;

/* A timer that puts messages. */
struct timer {
  struct alarm alarm;
  struct timers *owner;
  struct timer *next;
  uint64_t id;
  uint32_t uid;
  int64_t period_ns;
  uint64_t put, missed;
  struct io_op op;
  bool putting; /* a helper works on it: it is not to be freed */
  bool cleared;
  size_t bytes; /* of the message */
  char *message;
  char name[]; /* and behind it the message */
};

struct timers {
  struct resource base;
  struct timer *first; /* by id, the newest first */
  uint64_t last_id;
  unsigned count, putting;
  uint64_t bytes; /* of the messages and names of those in the list */
  struct wait_list waiting;
};

/* A request that waits, in its memory. */
struct wake {
  struct alarm alarm;
  struct request *request;
};

static const struct param params[] = {
    {"queues", PARAM_TEXT, "", 0, 0, NULL,
     "patterns of the queues that messages may be put into, separated by spaces; as SEGMENT/QUEUE",
     PARAM_LIVE},
    {"max", PARAM_COUNT, "1024", 1, 1 << 20, NULL, "timers that put messages, at once", PARAM_LIVE},
    {"max_bytes", PARAM_BYTES, "16M", 4096, INT64_C(1) << 40, NULL, "memory of their messages together",
     PARAM_LIVE},
    RIGHTS_PARAM,
    SHARD_PARAM,
    {0},
};

static struct alarms *alarms_of(const struct timers *t) { return &t->base.shard->alarms; }

/* ---- waiting ---- */

static void wake(struct alarm *alarm) {
  struct request *r = ((struct wake *)alarm)->request;
  wait_list_remove(&((struct timers *)r->resource)->waiting, r);
  request_value(r, (uint64_t)alarm->due_ns, 0, NULL, 0);
}

static void no_wake(struct request *r) {
  struct wake *w = r->memory;
  alarm_clear(alarms_of((struct timers *)r->resource), &w->alarm);
}

static void serve_wait(struct request *r) {
  struct timers *t = (struct timers *)r->resource;
  struct wake *w = calloc(1, sizeof *w);
  if (!w) {
    request_refuse(r, -ENOMEM, NULL);
    return;
  }
  *w = (struct wake){.alarm.ring = wake, .request = r};
  r->memory = w;
  wait_list_add(&t->waiting, r);
  alarm_set(alarms_of(t), &w->alarm, (int64_t)request_arg(r, 0));
}

/* ---- messages ---- */

static size_t bytes_of(const struct timer *timer) {
  return (size_t)(timer->message - timer->name) + timer->bytes;
}

static void forget(struct timer *timer) {
  struct timers *t = timer->owner;
  struct timer **at = &t->first;
  alarm_clear(alarms_of(t), &timer->alarm);
  while (*at && *at != timer) at = &(*at)->next;
  if (*at) {
    *at = timer->next;
    t->count--;
    t->bytes -= bytes_of(timer);
  }
  timer->cleared = true;
  if (!timer->putting) free(timer);
}

/* On a helper thread. */
static int put_message(struct io_op *op) {
  const struct timer *timer = op->buffer;
  shmq *queue;
  int rc = shmq_open(&queue, timer->name, SHMQ_NOSPIN);
  if (rc) return rc;
  rc = shmq_put(queue, timer->message, timer->bytes, SHMQ_NOWAIT);
  shmq_close(queue);
  return rc;
}

/* What is not done in time is left out: a queue that was full gets one message then and not all at once. */
static void next_time(struct timer *timer) {
  int64_t now = shmq_now_ns(), due = timer->alarm.due_ns;
  uint64_t late = now > due ? (uint64_t)(now - due) / (uint64_t)timer->period_ns : 0;
  timer->missed += late;
  alarm_set(alarms_of(timer->owner), &timer->alarm,
            due + (int64_t)(late + 1) * timer->period_ns);
}

static void message_put(struct io_op *op, int result) {
  struct timer *timer = op->buffer;
  timer->putting = false;
  timer->owner->putting--;
  *(result ? &timer->missed : &timer->put) += 1;
  if (timer->cleared) {
    free(timer);
    return;
  }
  if (timer->period_ns) return;
  if (result == -EAGAIN) {
    alarm_set(alarms_of(timer->owner), &timer->alarm, shmq_after_ns(RETRY_NS));
    return;
  }
  if (result)
    say(SAY_WARNING, "[timer:%s] nothing put into %s: %s", timer->owner->base.section->name,
        timer->name, shmq_strerror(result));
  forget(timer);
}

static void due(struct alarm *alarm) {
  struct timer *timer = (struct timer *)alarm;
  bool busy = timer->putting;
  if (busy) timer->missed++;
  if (timer->period_ns) next_time(timer);
  if (busy) return;
  timer->putting = true;
  timer->owner->putting++;
  timer->op = (struct io_op){
      .what = IO_CALL, .buffer = timer, .call = put_message, .done = message_put};
  io_submit(timer->owner->base.shard->io, &timer->op);
}

/* ---- set and clear ---- */

static bool may_put_into(const struct timers *t, const char *name) {
  char pattern[NAME_MAX_BYTES + 2];
  for (const char *at = section_text(t->base.section, "queues"); *at;) {
    size_t n = strcspn(at, " \t");
    if (n && n < sizeof pattern) {
      memcpy(pattern, at, n);
      pattern[n] = 0;
      if (fnmatch(pattern, name, 0) == 0) return true;
    }
    at += n + strspn(at + n, " \t");
  }
  return false;
}

/* Our own copy of a request's name and message. */
static struct timer *new_timer(struct timers *t, const struct request *r, int *rc) {
  struct timer *timer = calloc(1, sizeof *timer + r->in.size + 1);
  *rc = -ENOMEM;
  if (!timer) return NULL;
  memcpy(timer->name, r->in.data, r->in.size);
  size_t n = strlen(timer->name);
  *rc = n >= r->in.size              ? -EINVAL
        : n > NAME_MAX_BYTES         ? -ENAMETOOLONG
        : may_put_into(t, timer->name) ? 0
                                       : -EACCES;
  if (*rc) {
    free(timer);
    return NULL;
  }
  timer->owner = t;
  timer->uid = session_uid(r->session);
  timer->message = timer->name + n + 1;
  timer->bytes = r->in.size - n - 1;
  timer->period_ns = (int64_t)request_arg(r, 1);
  timer->alarm.ring = due;
  return timer;
}

static void serve_set(struct request *r) {
  struct timers *t = (struct timers *)r->resource;
  int64_t when = (int64_t)request_arg(r, 0), period = (int64_t)request_arg(r, 1);
  int rc = 0;
  if (when < 0 || period < 0 || (period && period < SHMQ_TIMER_PERIOD_MIN) ||
      period > INT64_MAX / 4 || when > INT64_MAX / 4)
    rc = -EINVAL;
  else if (t->count >= section_number(t->base.section, "max") ||
           t->bytes + r->in.size > (uint64_t)section_number(t->base.section, "max_bytes"))
    rc = -EDQUOT;
  struct timer *timer = rc ? NULL : new_timer(t, r, &rc);
  if (rc) {
    request_refuse(r, rc, rc == -EACCES ? "the configuration lets no timer put into that queue" : NULL);
    return;
  }
  timer->id = ++t->last_id;
  timer->next = t->first;
  t->first = timer;
  t->count++;
  t->bytes += bytes_of(timer);
  alarm_set(alarms_of(t), &timer->alarm, when);
  request_value(r, timer->id, 0, NULL, 0);
}

static void serve_clear(struct request *r) {
  struct timers *t = (struct timers *)r->resource;
  struct timer *timer = t->first;
  uint32_t uid = session_uid(r->session);
  while (timer && timer->id != request_arg(r, 0)) timer = timer->next;
  if (!timer && request_arg(r, 0) >> EPOCH_SHIFT < t->last_id >> EPOCH_SHIFT) {
    request_restarted(r, -ESTALE, r->in.attempts > 1 ? SHMQ_EXECUTED_UNKNOWN : SHMQ_EXECUTED_NO,
                      "it ended with the worker that had it");
    return;
  }
  if (!timer || (uid != timer->uid && !request_may(r, RIGHT_ADMIN))) {
    request_refuse(r, timer ? -EPERM : -ENOENT, timer ? "another user's timer" : "no such timer");
    return;
  }
  uint64_t put = timer->put;
  forget(timer);
  request_value(r, put, 0, NULL, 0);
}

/* ---- list ---- */

static size_t write_entry(const struct timer *timer, char *to, size_t room) {
  shmq_timer_entry e = {.timer = timer->id,
                        .due_ns = timer->alarm.due_ns,
                        .period_ns = timer->period_ns,
                        .put = timer->put,
                        .missed = timer->missed,
                        .uid = timer->uid,
                        .bytes = (uint32_t)strlen(timer->name)};
  size_t bytes = sizeof e + ((e.bytes + 7) & ~(size_t)7);
  if (bytes > room) return 0;
  memset(to, 0, bytes);
  memcpy(to, &e, sizeof e);
  memcpy(to + sizeof e, timer->name, e.bytes);
  return bytes;
}

/* Newest first, so that going on below the last one listed misses and repeats none. */
static void serve_list(struct request *r) {
  struct timers *t = (struct timers *)r->resource;
  uint64_t below = request_arg(r, 0) ? request_arg(r, 0) : UINT64_MAX, last = 0;
  size_t filled = 0;
  const struct timer *timer = t->first;
  for (; timer; timer = timer->next) {
    if (timer->id >= below) continue;
    size_t n = write_entry(timer, (char *)r->in.data + filled, r->in.room - filled);
    if (!n) break;
    filled += n;
    last = timer->id;
  }
  if (timer && !filled)
    request_refuse(r, -EMSGSIZE, NULL);
  else
    request_in_place(r, timer ? last : 0, t->waiting.count, filled);
}

/* ---- the table ---- */

static const struct operation operations[] = {{SHMQ_TIMER_WAIT, RIGHT_READ, serve_wait},
                                              {SHMQ_TIMER_SET, RIGHT_WRITE, serve_set},
                                              {SHMQ_TIMER_CLEAR, RIGHT_WRITE, serve_clear},
                                              {SHMQ_TIMER_LIST, RIGHT_READ, serve_list},
                                              {0}};

static void timer_leave(struct resource *resource, struct session *session) {
  wait_list_leave(&((struct timers *)resource)->waiting, session);
}

static bool timer_idle(const struct resource *resource) {
  return ((const struct timers *)resource)->putting == 0;
}

/* What a helper is still at, when the drain has run out of time, ends with the process. */
static void timer_close(struct resource *resource) {
  struct timers *t = (struct timers *)resource;
  wait_list_close(&t->waiting);
  while (t->first) forget(t->first);
}

/* A timer's number names its worker as well: after a death it is not another's timer. */
static uint64_t first_id(const struct timers *t) {
  return (uint64_t)t->base.shard->daemon->epoch << EPOCH_SHIFT;
}

static int timer_open(struct resource *resource) {
  struct timers *t = (struct timers *)resource;
  t->last_id = first_id(t);
  wait_list_open(&t->waiting, resource->shard);
  t->waiting.refused = no_wake;
  return 0;
}

const struct resource_kind timer_kind = {
    .section = {"timer", true, params, "Answers and messages at a time", true, NULL},
    .bytes = sizeof(struct timers),
    .open = timer_open,
    .operations = operations,
    .leave = timer_leave,
    .idle = timer_idle,
    .close = timer_close};
