/* SPDX-License-Identifier: Apache-2.0
 *
 * Every public call, with arguments that a correct program might use. Only the segment is not to be trusted.
 */
#include <errno.h>

#include "check.h"
#include "world.h"

/* ---- arguments ---- */

static int64_t deadline(const struct caller *c, struct input *in) {
  return input_below(in, 16) < 15 ? SHMQ_NOWAIT : shmq_after_ns(c->patience_ns);
}

static unsigned any_queue(const struct caller *c, struct input *in) {
  return input_below(in, c->queue_count);
}

/* Sizes around the limits: of a cell, of a block. */
static size_t any_size(const shmq *q, struct input *in) {
  size_t cell = shmq_message_bytes(q), limit = shmq_message_limit(q);
  switch (input_below(in, 6)) {
    case 0: return 0;
    case 1: return cell;
    case 2: return cell + 1;
    case 3: return limit;
    case 4: return limit + 1;
    default: return input_below(in, (uint32_t)limit + 1);
  }
}

/* Images may say that messages are long: what is copied is cut. */
enum { BUFFER_BYTES = 512, BATCH = 5 };
static unsigned char buffers[BATCH][BUFFER_BYTES];

static size_t copied_size(const shmq *q, struct input *in) {
  size_t size = any_size(q, in);
  return size < BUFFER_BYTES ? size : BUFFER_BYTES;
}

static int batch(struct input *in, struct iovec *iov, const shmq *q) {
  int n = 1 + (int)input_below(in, BATCH);
  for (int i = 0; i < n; i++)
    iov[i] = (struct iovec){.iov_base = buffers[i], .iov_len = copied_size(q, in)};
  return n;
}

/* ---- what is held ---- */

static struct held_message *free_place(struct caller *c) {
  for (int i = 0; i < HELD_MAX; i++)
    if (c->held[i].queue < 0) return &c->held[i];
  return NULL;
}

static void hold(struct caller *c, unsigned queue, const shmq_message *m, bool leased) {
  check_payload(c->segment, m->data, m->size, !leased);
  check(m->size <= shmq_message_limit(c->queues[queue]), "a message longer than the limit");
  struct held_message *place = free_place(c);
  if (!place) { /* it stays unsettled: closing the queue gives it back */
    return;
  }
  *place = (struct held_message){.queue = (int)queue, .leased = leased, .message = *m};
}

static struct held_message *any_held(struct caller *c, struct input *in) {
  uint32_t from = input_below(in, HELD_MAX);
  for (uint32_t i = 0; i < HELD_MAX; i++) {
    struct held_message *h = &c->held[(from + i) % HELD_MAX];
    if (h->queue >= 0) return h;
  }
  return NULL;
}

/* After a call that settled it, or that said it is somebody else's. */
static void settled(const char *call, struct held_message *h, int rc) {
  check_result(call, rc);
  if (rc == 0 || rc == -ESTALE) h->queue = -1;
}

static void forget_queue(struct caller *c, unsigned queue) {
  for (int i = 0; i < HELD_MAX; i++)
    if (c->held[i].queue == (int)queue) c->held[i].queue = -1;
}

/* ---- producers ---- */

static const char *call_put(struct caller *c, struct input *in) {
  shmq *q = c->queues[any_queue(c, in)];
  size_t size = copied_size(q, in);
  check_result("shmq_put", shmq_put(q, buffers[0], size, deadline(c, in)));
  return "shmq_put";
}

static shmq_put_options put_options(struct input *in) {
  shmq_put_options o = {.priority = input_below(in, 4)};
  if (input_u8(in) & 1) o.not_before_ns = shmq_after_ns(input_u16(in));
  if (input_u8(in) & 1) o.expires_ns = shmq_after_ns(input_u16(in));
  return o;
}

static const char *call_put_with(struct caller *c, struct input *in) {
  shmq *q = c->queues[any_queue(c, in)];
  shmq_put_options o = put_options(in);
  check_result("shmq_put_with", shmq_put_with(q, buffers[0], copied_size(q, in), &o, deadline(c, in)));
  return "shmq_put_with";
}

static const char *call_put_batch(struct caller *c, struct input *in) {
  struct iovec iov[BATCH];
  shmq *q = c->queues[any_queue(c, in)];
  int n = batch(in, iov, q);
  check_result("shmq_put_batch", shmq_put_batch(q, iov, n, deadline(c, in)));
  return "shmq_put_batch";
}

static const char *call_reserve(struct caller *c, struct input *in) {
  unsigned number = any_queue(c, in);
  shmq *q = c->queues[number];
  shmq_message m;
  shmq_put_options o = put_options(in);
  if (!free_place(c)) return "shmq_reserve";
  bool plain = input_u8(in) & 1;
  size_t size = any_size(q, in);
  int rc = shmq_reserve_with(q, size, &m, plain ? NULL : &o, deadline(c, in));
  check_result("shmq_reserve", rc);
  if (rc == 0) {
    check(m.size == size, "a reservation of another size");
    hold(c, number, &m, false);
  }
  return "shmq_reserve";
}

static const char *call_settle(struct caller *c, struct input *in) {
  struct held_message *h = any_held(c, in);
  if (!h) return "settle";
  shmq *q = c->queues[h->queue];
  uint32_t how = input_below(in, 4);
  if (!h->leased) {
    if (how == 0) settled("shmq_abort", h, shmq_abort(q, &h->message));
    else settled("shmq_commit", h, shmq_commit(q, &h->message));
    return "shmq_commit or shmq_abort";
  }
  shmq_cause cause;
  int64_t delay = how == 3 ? input_u16(in) : 0;
  check_payload(c->segment, h->message.data, h->message.size, true);
  check_result("shmq_message_cause", shmq_message_cause(q, &h->message, &cause));
  if (how < 2) settled("shmq_ack", h, shmq_ack(q, &h->message));
  else settled("shmq_nack_with", h, shmq_nack_with(q, &h->message, delay, NULL));
  return "shmq_ack or shmq_nack";
}

/* ---- consumers ---- */

static const char *call_get(struct caller *c, struct input *in) {
  shmq *q = c->queues[any_queue(c, in)];
  size_t room = copied_size(q, in);
  ssize_t got = shmq_get(q, buffers[1], room, deadline(c, in));
  check_result("shmq_get", got);
  check(got <= (ssize_t)room, "more than the buffer holds");
  return "shmq_get";
}

static const char *call_get_batch(struct caller *c, struct input *in) {
  struct iovec iov[BATCH], before[BATCH];
  shmq *q = c->queues[any_queue(c, in)];
  int n = batch(in, iov, q);
  memcpy(before, iov, sizeof before);
  int got = shmq_get_batch(q, iov, n, deadline(c, in));
  check_result("shmq_get_batch", got);
  check(got <= n, "more messages than asked for");
  for (int i = 0; i < got; i++) check(iov[i].iov_len <= before[i].iov_len, "more than the buffer holds");
  return "shmq_get_batch";
}

static const char *call_lease(struct caller *c, struct input *in) {
  shmq_message m[BATCH];
  unsigned number = any_queue(c, in);
  int n = 1 + (int)input_below(in, BATCH);
  int got = shmq_lease_batch(c->queues[number], m, n, deadline(c, in));
  check_result("shmq_lease_batch", got);
  check(got <= n, "more messages than asked for");
  for (int i = 0; i < got; i++) hold(c, number, &m[i], true);
  return "shmq_lease";
}

/* ---- steps ---- */

static const char *call_commit_all(struct caller *c, struct input *in) {
  shmq_step steps[SHMQ_COMMIT_MAX];
  struct held_message *parts[SHMQ_COMMIT_MAX];
  uint32_t which = input_u16(in);
  int n = 0;
  for (int i = 0; i < HELD_MAX; i++) {
    if (!(which >> i & 1) || c->held[i].queue < 0) continue;
    parts[n] = &c->held[i];
    steps[n++] = (shmq_step){c->queues[c->held[i].queue], &c->held[i].message};
  }
  if (n == 0) return "shmq_commit_all";
  int rc = shmq_commit_all(steps, n);
  check_result("shmq_commit_all", rc);
  for (int i = 0; rc == 0 && i < n; i++) parts[i]->queue = -1;
  return "shmq_commit_all";
}

static const char *call_forward(struct caller *c, struct input *in) {
  struct held_message *h = any_held(c, in);
  shmq *to = c->queues[any_queue(c, in)];
  if (!h || !h->leased) return "shmq_forward";
  settled("shmq_forward", h, shmq_forward(c->queues[h->queue], &h->message, to, deadline(c, in)));
  return "shmq_forward";
}

/* The twin is one reservation more, whatever becomes of it and of the message. */
static const char *call_reserve_forward(struct caller *c, struct input *in) {
  struct held_message *h = any_held(c, in);
  unsigned number = any_queue(c, in);
  shmq_message twin;
  if (!h || !h->leased || !free_place(c)) return "shmq_reserve_forward";
  int rc = shmq_reserve_forward(c->queues[h->queue], &h->message, c->queues[number], &twin, deadline(c, in));
  check_result("shmq_reserve_forward", rc);
  if (rc == -ESTALE) h->queue = -1;
  if (rc == 0) hold(c, number, &twin, false);
  return "shmq_reserve_forward";
}

/* ---- the rest ---- */

static const char *call_state(struct caller *c, struct input *in) {
  shmq *q = c->queues[any_queue(c, in)];
  switch (input_below(in, 8)) {
    case 0: check_result("shmq_shutdown", shmq_shutdown(q)); return "shmq_shutdown";
    case 1: case 2: check_result("shmq_reopen", shmq_reopen(q)); return "shmq_reopen";
    case 3: check_result("shmq_drain", shmq_drain(q, deadline(c, in))); return "shmq_drain";
    case 4: check_result("shmq_join", shmq_join(q, deadline(c, in))); return "shmq_join";
    case 5: check_result("shmq_recover", shmq_recover(c->segment)); return "shmq_recover";
    case 6: {
      int rc = shmq_participant_alive(c->segment, 1 + (int)input_below(in, 4), input_u8(in));
      if (rc != -EINVAL) check_result("shmq_participant_alive", rc);
      return "shmq_participant_alive";
    }
    default: {
      int64_t depth = shmq_depth(q);
      check(depth >= 0 && depth <= 2 * SHMQ_PRIORITIES_MAX * (int64_t)shmq_capacity(q),
            "a queue deeper than it is");
      return "shmq_depth";
    }
  }
}

static const char *call_wait(struct caller *c, struct input *in) {
  shmq_wait_item items[QUEUES_MAX];
  for (unsigned i = 0; i < c->queue_count; i++)
    items[i] = (shmq_wait_item){.queue = c->queues[i], .want = 1 + input_below(in, 3)};
  int rc = shmq_wait(items, (int)c->queue_count, deadline(c, in));
  check_result("shmq_wait", rc);
  check(rc <= (int)c->queue_count, "more items ready than there are");
  return "shmq_wait";
}

static const char *call_event(struct caller *c, struct input *in) {
  shmq *q = c->queues[any_queue(c, in)];
  if (input_u8(in) != 255) return "shmq_event_arm"; /* making one is slow */
  check_result("shmq_event_fd", shmq_event_fd(q));
  check_result("shmq_event_arm", shmq_event_arm(q));
  return "shmq_event_arm";
}

static const char *call_view(struct caller *c, struct input *in) {
  (void)in;
  world_view(c->fd);
  return "shmq_view";
}

static void open_queues(struct caller *c) {
  static const char *const names[] = {"main", "dead", "in", "out", "rest"};
  c->queue_count = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names && c->queue_count < QUEUES_MAX; i++)
    if (shmq_open_in(&c->queues[c->queue_count], c->segment, names[i], 0) == 0) c->queue_count++;
  if (c->queue_count == 0) /* an image may call them anything */
    check(shmq_open_in(&c->queues[c->queue_count++], c->segment, NULL, 0) == 0, "no first queue");
}

static void close_queue(struct caller *c, unsigned number) {
  forget_queue(c, number);
  shmq_close(c->queues[number]);
}

static const char *call_open(struct caller *c, struct input *in) {
  for (unsigned i = 0; i < c->queue_count; i++) close_queue(c, i);
  if (input_u8(in) & 1) {
    shmq_detach(c->segment);
    (void)caller_open(c, c->fd);
    return "shmq_detach and shmq_attach";
  }
  open_queues(c);
  return "shmq_close";
}

/* ---- the caller ---- */

int caller_open(struct caller *c, int fd) {
  c->fd = fd;
  c->queue_count = 0;
  c->segment = NULL;
  for (int i = 0; i < HELD_MAX; i++) c->held[i].queue = -1;
  int rc = shmq_attach_fd(&c->segment, fd);
  check_result("shmq_attach_fd", rc);
  if (rc < 0) return rc;
  open_queues(c);
  return 0;
}

void caller_close(struct caller *c) {
  if (!c->segment) return;
  for (unsigned i = 0; i < c->queue_count; i++) close_queue(c, i);
  shmq_detach(c->segment);
  c->segment = NULL;
}

const char *caller_call(struct caller *c, struct input *in) {
  static const char *(*const calls[])(struct caller *, struct input *) = {
      call_put,   call_put,   call_put_with, call_put_batch, call_reserve, call_settle, call_settle,
      call_get,   call_get,   call_get_batch, call_lease,    call_lease,   call_settle, call_commit_all,
      call_forward, call_reserve_forward, call_state, call_state, call_wait, call_event, call_view,
      call_open};
  if (!c->segment) return caller_open(c, c->fd) == 0 ? "shmq_attach_fd" : "nothing";
  return calls[input_below(in, sizeof calls / sizeof *calls)](c, in);
}
