/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking requests. Everything in a message was written by somebody else: the header is copied once and
 * the copy is checked; what fails is counted and forgotten, for an answer to it could go anywhere.
 */
#include "rpc/service.h"

#include <stdlib.h>

#include "os/descriptor.h"

enum {
  LOOK_NS = 4000000,
  SKIPS_MOST = 64 /* by one call that may not wait: an asker could feed it for ever */
};

/* ---- open and close ---- */

static int open_slots(shmq_service *s) {
  char name[SHMQ_QUEUE_NAME_MAX + 1];
  shmq *probe;

  for (s->slots = 0; s->slots < ASKERS_MAX; s->slots++) {
    shmq__slot_name(name, "reply", s->slots);
    int rc = shmq_open_in(&probe, s->segment, name, 0);
    if (rc == -ENOENT) break;
    if (rc) return rc;
    shmq_close(probe);
  }
  s->slot = calloc(s->slots, sizeof *s->slot);
  return s->slots == 0 ? -ENOTTY : s->slot ? 0 : -ENOMEM;
}

static int finish_open(shmq_service **out, shmq_service *s, int rc) {
  if (!rc)
    rc = shmq__open_requests(&s->requests, s->segment, s->flags & (SHMQ_SPIN | SHMQ_NOSPIN),
                             &s->redeliver);
  if (!rc) s->cell_bytes = shmq_message_bytes(s->requests);
  if (!rc) rc = open_slots(s);
  if (!rc) rc = shmq__aside_open(s);
  if (!rc) rc = shmq_join_segment(s->segment, "server", NULL);
  if (rc)
    shmq_service_close(s);
  else
    *out = s;
  return rc;
}

int shmq_service_open(shmq_service **out, const char *name, unsigned flags) {
  if (!name) return -EINVAL;
  shmq_service *s = calloc(1, sizeof *s);
  if (!s) return -ENOMEM;
  s->fd = -1;
  s->flags = flags;
  s->name = strdup(name);
  return finish_open(out, s, s->name ? shmq_attach(&s->segment, name) : -ENOMEM);
}

int shmq_service_open_fd(shmq_service **out, int fd, unsigned flags) {
  shmq_service *s = calloc(1, sizeof *s);
  if (!s) return -ENOMEM;
  s->flags = flags;
  s->fd = shmq__duplicate(fd);
  return finish_open(out, s, s->fd < 0 ? s->fd : shmq_attach_fd(&s->segment, fd));
}

void shmq_service_close(shmq_service *s) {
  if (!s) return;
  (void)shmq_service_flush(s);
  shmq__refusals_free(s);
  for (uint32_t i = 0; s->slot && i < s->slots; i++) {
    shmq_close(s->slot[i].reply);
    shmq_close(s->slot[i].cancel);
  }
  shmq__aside_close(s);
  shmq_close(s->requests);
  shmq_view_close(s->view);
  shmq_detach(s->segment);
  shmq__descriptor_close(s->fd);
  free(s->name);
  free(s->slot);
  free(s);
}

shmq_segment *shmq_service_segment(shmq_service *s) { return s->segment; }
void shmq_service_set_epoch(shmq_service *s, uint32_t epoch) { s->epoch = epoch; }
int shmq_service_shutdown(shmq_service *s) { return s ? shmq_shutdown(s->requests) : -EINVAL; }
int shmq_service_event_fd(shmq_service *s) { return shmq_event_fd(s->requests); }
int shmq_service_event_arm(shmq_service *s) {
  return s->look_aside ? 1 : shmq_event_arm(s->requests);
}
int shmq_service_event_word(shmq_service *s, uint32_t **word, uint32_t *value) {
  return s->look_aside ? 1 : shmq_event_word(s->requests, word, value);
}
void shmq_service_get_stats(const shmq_service *s, shmq_service_stats *stats) { *stats = s->stats; }

/* ---- askers ---- */

struct reply_slot *shmq__slot_open(shmq_service *s, uint32_t number) {
  if (number >= s->slots) return NULL;
  struct reply_slot *slot = &s->slot[number];

  char name[SHMQ_QUEUE_NAME_MAX + 1];
  shmq__slot_name(name, "reply", number);
  if (!slot->reply && shmq_open_in(&slot->reply, s->segment, name, s->flags & SHMQ_NOSPIN))
    return NULL;
  shmq__slot_name(name, "cancel", number);
  return shmq_open_in(&slot->cancel, s->segment, name, 0) ? NULL : slot;
}

bool shmq__asker_alive_at(shmq_service *s, const shmq_request_header *h, bool now, int64_t now_ns) {
  struct reply_slot *slot = shmq__slot_of(s, h);
  if (!slot) return false;
  bool known = slot->asker == h->asker && slot->generation == h->generation;
  if (known && !now && now_ns - slot->looked_ns < LOOK_NS) return true;
  if (shmq_participant_alive(s->segment, (int)h->asker, h->generation) != 1) return false;
  slot->asker = h->asker;
  slot->generation = h->generation;
  slot->looked_ns = now_ns;
  return true;
}

bool shmq__asker_alive(shmq_service *s, const shmq_request_header *h, bool now) {
  return shmq__asker_alive_at(s, h, now, shmq_now_ns());
}

/* ---- serve ---- */

enum taken { TAKEN_NONSENSE, TAKEN_REQUEST, TAKEN_ANSWER };

/* Copy and check the header; what incoming says afterwards can be relied on. */
static enum taken take_in(shmq_service *s, shmq_incoming *in) {
  const size_t size = in->message.size;
  if (size < sizeof in->header) return TAKEN_NONSENSE;
  memcpy(&in->header, in->message.data, sizeof in->header);

  shmq_request_header *h = &in->header;
  if (h->magic != SHMQ_RPC_MAGIC) return TAKEN_NONSENSE;
  if (h->kind == SHMQ_RPC_REPLY && in->attempts > 1) {
    shmq_reply_header answer;
    memcpy(&answer, h, sizeof answer);
    h->slot = answer.slot;
    return shmq__slot_of(s, h) ? TAKEN_ANSWER : TAKEN_NONSENSE;
  }
  if (h->kind != SHMQ_RPC_REQUEST) return TAKEN_NONSENSE;
  if (h->data_offset < sizeof *h || h->data_offset > size) return TAKEN_NONSENSE;
  if (h->data_bytes > size - h->data_offset) return TAKEN_NONSENSE;
  if (!shmq__slot_of(s, h)) return TAKEN_NONSENSE;
  in->data = (char *)in->message.data + h->data_offset;
  in->size = h->data_bytes;
  in->room = size - h->data_offset;
  in->state = INCOMING_OPEN;
  return TAKEN_REQUEST;
}

/* What we do not execute may have been executed by a server that died. */
static uint8_t not_by_us(const shmq_incoming *in) {
  return in->attempts > 1 ? SHMQ_EXECUTED_UNKNOWN : SHMQ_EXECUTED_NO;
}

/* What is common to the requests of one look at the queue. */
struct look {
  bool waited;    /* it was empty: they have had no time to grow old */
  int64_t now_ns; /* 0: nobody has asked */
};

static int64_t time_of(struct look *look) {
  if (!look->now_ns) look->now_ns = shmq_now_ns();
  return look->now_ns;
}

/* Is it to be executed? If not, it has been dealt with. */
static bool accept_request(shmq_service *s, shmq_incoming *in, struct look *look) {
  const shmq_request_header *h = &in->header;
  if (h->deadline_ns != SHMQ_FOREVER && h->deadline_ns <= time_of(look)) {
    shmq__refuse(in, -ETIMEDOUT, not_by_us(in));
    s->stats.skipped_expired++;
    return false;
  }
  bool fresh = look->waited && in->attempts <= 1;
  if (!fresh && !(h->flags & SHMQ_ASK_CAST) &&
      !shmq__asker_alive_at(s, h, in->attempts > 1, time_of(look))) {
    shmq__forget(in);
    s->stats.skipped_dead++;
    return false;
  }
  if (shmq__is_cancelled(s, h)) {
    shmq__refuse(in, -ECANCELED, not_by_us(in));
    s->stats.skipped_cancelled++;
    return false;
  }
  if (in->attempts > 1) {
    s->stats.redelivered++;
    if (in->attempts > ATTEMPTS_DEFAULT || !shmq__repeats(s, h)) {
      shmq__refuse(in, -EOWNERDEAD, SHMQ_EXECUTED_UNKNOWN);
      s->stats.refused_redelivery++;
      return false;
    }
  }
  s->stats.taken++;
  return true;
}

/* Make what `in` holds a request that is to be executed. 1: it is one; 0: it has been dealt with; -EBADMSG. */
static int take_one(shmq_service *s, shmq_incoming *in, struct look *look) {
  in->service = s;
  in->attempts = in->message.attempts;
  switch (take_in(s, in)) {
  case TAKEN_REQUEST: return accept_request(s, in, look);
  case TAKEN_ANSWER: shmq__finish_in_place(in); return 0;
  default: return -EBADMSG;
  }
}

static int look_into_ring(shmq_service *s, int n, int64_t deadline_ns, struct look *look) {
  int got = shmq_lease_batch(s->requests, s->ahead, n, SHMQ_NOWAIT);
  look->waited = got == -EAGAIN && deadline_ns != SHMQ_NOWAIT;
  if (look->waited) {
    (void)shmq_service_flush(s); /* who waits for an answer may be who would ask */
    got = shmq_lease_batch(s->requests, s->ahead, n, deadline_ns);
  }
  if (got > 0) s->newest = s->ahead[got - 1].position;
  return got;
}

/* Lease up to n messages into s->ahead, where there are none. */
static int look_ahead(shmq_service *s, int n, int64_t deadline_ns, struct look *look) {
  int got = s->look_aside ? shmq__aside_inherit(s, n) : 0;
  if (got == 0) got = look_into_ring(s, n, deadline_ns, look);
  if (got < 0) return got;
  s->ahead_next = 0;
  s->ahead_end = got;
  return 0;
}

/* Requests up to n from what is ahead, or up to what makes no sense: what stands behind that comes after it. */
static int take_ahead(shmq_service *s, shmq_incoming **in, int n, struct look *look) {
  bool tell = s->flags & SHMQ_NEVER_WAIT;
  int taken = 0;
  while (taken < n && s->ahead_next < s->ahead_end) {
    in[taken]->message = s->ahead[s->ahead_next];
    in[taken]->aside = s->ahead_aside[s->ahead_next];
    int rc = take_one(s, in[taken], look);
    if (rc < 0 && tell && taken) break;
    s->ahead_next++;
    taken += rc > 0;
    if (rc >= 0) continue;
    shmq__forget(in[taken]);
    s->stats.malformed++;
    if (tell) return -EBADMSG;
  }
  return taken;
}

int shmq_serve_batch(shmq_service *s, shmq_incoming **in, int n, int64_t deadline_ns) {
  if (!s || n < 1) return -EINVAL;
  if (n > GROUP_MAX) n = GROUP_MAX;
  if (s->refusals) shmq__refuse_again(s);
  for (int skipped = 0;;) {
    struct look look = {0};
    int rc = s->ahead_next < s->ahead_end ? 0 : look_ahead(s, n, deadline_ns, &look);
    if (rc) return rc;
    skipped -= s->ahead_next;
    s->group = rc = take_ahead(s, in, n, &look);
    if (rc) return rc;
    skipped += s->ahead_next;
    if (s->flags & SHMQ_NEVER_WAIT && skipped > SKIPS_MOST) return -EAGAIN;
  }
}

int shmq_serve(shmq_service *s, shmq_incoming *in, int64_t deadline_ns) {
  int rc = shmq_serve_batch(s, &in, 1, deadline_ns);
  return rc < 0 ? rc : 0;
}

/* ---- the loop ---- */

static int dispatch(const shmq_handler *handlers, int n, shmq_incoming *in, void *ctx) {
  for (int i = 0; i < n; i++)
    if (handlers[i].op == in->header.op) return handlers[i].fn(in, ctx);
  return -EOPNOTSUPP;
}

int shmq_service_run(shmq_service *s, const shmq_handler *handlers, int n, void *ctx,
                     int64_t deadline_ns) {
  for (;;) {
    shmq_incoming in;
    int rc = shmq_serve(s, &in, deadline_ns);
    if (rc) return rc == -EPIPE ? 0 : rc;
    rc = dispatch(handlers, n, &in, ctx);
    if (rc < 0 && in.state == INCOMING_OPEN) shmq_reply_error(&in, rc, NULL, 0, NULL);
    if (rc > 0) return rc;
  }
}
