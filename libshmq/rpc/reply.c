/* SPDX-License-Identifier: Apache-2.0
 *
 * Answering. A request that may be executed again is acked in one step with its last reply: whoever dies, what was
 * answered is not delivered again. An asker that has its answer may go on to what must not happen before it.
 * Of any other the next server would only say that its owner died, and the asker, which has its answer, drops that.
 */
#include "rpc/service.h"

enum { LOOK_NS = 20000000, BLOCK_WAIT_NS = 1000000000, TEXT_MAX = 512 };

struct payload {
  const struct iovec *parts;
  int count;
};

static size_t payload_bytes(const struct payload *p) {
  size_t n = 0;
  for (int i = 0; i < p->count; i++) n += p->parts[i].iov_len;
  return n;
}

static void write_reply(void *at, const shmq_incoming *in, shmq_reply_header *h,
                        const struct payload *p) {
  h->magic = SHMQ_RPC_MAGIC;
  h->kind = SHMQ_RPC_REPLY;
  h->id = in->header.id;
  h->asker = in->header.asker;
  h->generation = in->header.generation;
  h->slot = in->header.slot;
  h->epoch = (uint16_t)in->service->epoch;
  memcpy(at, h, sizeof *h);
  char *to = (char *)at + h->data_offset;
  for (int i = 0; i < p->count; i++) {
    if (p->parts[i].iov_len) memcpy(to, p->parts[i].iov_base, p->parts[i].iov_len);
    to += p->parts[i].iov_len;
  }
}

static int done(shmq_incoming *in, int rc) {
  if (rc == -EAGAIN && in->service->flags & SHMQ_NEVER_WAIT) return rc;
  shmq__request_end(in);
  in->state = INCOMING_DONE;
  return rc;
}

/* There is always room for a reply of an asker that keeps to its credits: this is for one that lives, and
 * has inherited a queue that its dead predecessor left full; it drains it as soon as it waits. */
static bool worth_waiting(shmq_incoming *in, int64_t until_ns, int *rc) {
  shmq_service *s = in->service;
  if (*rc != -EAGAIN && *rc != -ETIMEDOUT && *rc != -EINTR) return false;
  if (s->flags & SHMQ_NEVER_WAIT) {
    *rc = -EAGAIN;
    return false;
  }
  if (!shmq__asker_alive(s, &in->header, true)) {
    s->stats.dropped++;
    *rc = -ECONNRESET;
    return false;
  }
  return shmq_now_ns() < until_ns;
}

static int reserve_reply(shmq_incoming *in, shmq *reply, size_t size, shmq_message *m) {
  int rc = shmq_reserve(reply, size, m, SHMQ_NOWAIT);
  if (rc != -EAGAIN) return rc;
  (void)shmq_service_flush(in->service); /* what is kept back makes no room */
  bool in_cell = size <= shmq_message_bytes(reply);
  int64_t until = in_cell ? SHMQ_FOREVER : shmq_after_ns(BLOCK_WAIT_NS);
  while (worth_waiting(in, until, &rc)) rc = shmq_reserve(reply, size, m, shmq_after_ns(LOOK_NS));
  return rc == -ETIMEDOUT || rc == -EINTR ? -ENOBUFS : rc;
}

/* The reply, and as one step with it the end of its request. */
static int commit_pair(shmq *reply, shmq_message *m, shmq *from, shmq_message *request) {
  const shmq_step steps[] = {{reply, m}, {from, request}};
  int rc = shmq_commit_all(steps, 2);
  if (rc) shmq_abort(reply, m);
  return rc;
}

/* A peer that writes to what is not its own can spoil the step for all: then each goes for itself. */
static int send_one_by_one(shmq_service *s, unsigned n) {
  int worst = 0;
  for (unsigned i = 0; i < n; i++) {
    struct kept_answer *k = &s->kept[i];
    int rc = commit_pair(k->queue, &k->answer, s->requests, &k->request);
    if (rc) (void)shmq_ack(s->requests, &k->request);
    if (rc) worst = rc;
  }
  return worst;
}

int shmq_service_flush(shmq_service *s) {
  shmq_step steps[2 * GROUP_MAX];
  unsigned n = s->kept_count;
  if (!n) return 0;
  s->kept_count = 0;
  for (unsigned i = 0; i < n; i++) {
    steps[2 * i] = (shmq_step){s->kept[i].queue, &s->kept[i].answer};
    steps[2 * i + 1] = (shmq_step){s->requests, &s->kept[i].request};
  }
  return shmq_commit_all(steps, (int)(2 * n)) ? send_one_by_one(s, n) : 0;
}

/* Is an answer that ends its request in one step sent together with others? */
static bool is_kept(const shmq_incoming *in) {
  return in->service->flags & SHMQ_GROUP_ANSWERS && !in->aside && in->message.data;
}

/* If we die with answers kept back, none of them was given: their requests are delivered again. */
static int keep_back(shmq_incoming *in, shmq *reply, const shmq_message *m) {
  shmq_service *s = in->service;
  s->kept[s->kept_count++] =
      (struct kept_answer){.queue = reply, .answer = *m, .request = in->message};
  in->message.data = NULL;
  return s->kept_count == GROUP_MAX ? shmq_service_flush(s) : 0;
}

static int commit_reply(shmq_incoming *in, shmq *reply, shmq_message *m, bool as_one) {
  shmq_message *request = shmq__message_of(in);
  if (!as_one || !request->data) return shmq_commit(reply, m);
  return is_kept(in) ? keep_back(in, reply, m) : commit_pair(reply, m, shmq__queue_of(in), request);
}

/* Short, and nothing would be executed again: put together here and copied, and the request acked after it. */
static int put_reply(shmq_incoming *in, shmq *reply, shmq_reply_header *h,
                     const struct payload *p) {
  _Alignas(shmq_reply_header) char bytes[SHORT_BYTES];
  size_t size = sizeof *h + h->data_bytes;
  write_reply(bytes, in, h, p);
  int rc = shmq_put(reply, bytes, size, SHMQ_NOWAIT);
  if (rc == -EAGAIN) (void)shmq_service_flush(in->service);
  while (rc && worth_waiting(in, SHMQ_FOREVER, &rc))
    rc = shmq_put(reply, bytes, size, shmq_after_ns(LOOK_NS));
  return rc;
}

/* Publish one reply message. Unless it is the last, the request stays as it is. */
static int publish(shmq_incoming *in, shmq_reply_header *h, const struct payload *p, bool last) {
  struct reply_slot *slot = shmq__slot_of(in->service, &in->header);
  size_t bytes = payload_bytes(p);
  if (bytes > UINT32_MAX - sizeof *h) return -EMSGSIZE;
  h->data_offset = sizeof *h;
  h->data_bytes = (uint32_t)bytes;
  bool as_one = last && shmq__repeats(in->service, &in->header);
  bool is_short = bytes <= SHORT_BYTES - sizeof *h && bytes <= in->service->cell_bytes - sizeof *h;
  if (is_short && !as_one) return put_reply(in, slot->reply, h, p);
  shmq_message m;
  int rc = reserve_reply(in, slot->reply, sizeof *h + bytes, &m);
  if (rc) return rc;
  write_reply(m.data, in, h, p);
  return commit_reply(in, slot->reply, &m, as_one);
}

/* If we die right after this, the next server finds the mark; right before, it was not begun. */
void shmq_begin(shmq_incoming *in) {
  shmq_request_header *shared = shmq__message_of(in)->data;
  in->header.flags |= SHMQ_ASK_BEGUN;
  if (shared) __atomic_store_n(&shared->flags, in->header.flags, __ATOMIC_RELEASE);
}

void shmq_incoming_id(const shmq_incoming *in, shmq_id *id) {
  shmq_message_id(shmq__queue_of(in), in->aside ? &in->aside->message : &in->message, id);
}

static bool is_cast(const shmq_incoming *in) { return in->header.flags & SHMQ_ASK_CAST; }

/* Publish the last message of an answer, or the error that kept it from being one. */
static int finish(shmq_incoming *in, shmq_reply_header *h, const struct payload *p) {
  if (in->state != INCOMING_OPEN) return -ESTALE;
  if (is_cast(in)) return done(in, 0);
  int rc = publish(in, h, p, true);
  if (rc == -EMSGSIZE || rc == -ENOBUFS) {
    shmq_reply_header error = {.status = rc,
                               .error_class = (uint8_t)shmq_class_of(rc),
                               .executed = SHMQ_EXECUTED_YES,
                               .value = {payload_bytes(p), 0}};
    if (publish(in, &error, &(struct payload){NULL, 0}, true) == -EAGAIN) rc = -EAGAIN;
  }
  if (!rc) {
    in->service->stats.answered++;
    if (h->status) in->service->stats.failed++;
  }
  return done(in, rc);
}

int shmq_reply_value(shmq_incoming *in, const uint64_t value[2], const void *data, size_t size) {
  shmq_reply_header h = {.executed = SHMQ_EXECUTED_YES};
  if (value) memcpy(h.value, value, sizeof h.value);
  struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
  return finish(in, &h, &(struct payload){&part, 1});
}

int shmq_reply(shmq_incoming *in, const void *data, size_t size) {
  return shmq_reply_value(in, NULL, data, size);
}

/* The request's own message becomes the reply: one cell refers to the block instead of another. */
static int pass_on(shmq_incoming *in, shmq *reply, shmq_message *twin, int64_t deadline_ns) {
  shmq *from = shmq__queue_of(in);
  shmq_message *m = shmq__message_of(in);
  return twin ? shmq_reserve_forward(from, m, reply, twin, deadline_ns)
              : shmq_forward(from, m, reply, deadline_ns);
}

/* At once if it came alone, for then nothing is likely to keep it company. */
static int forward(shmq_incoming *in) {
  shmq_service *s = in->service;
  shmq *reply = shmq__slot_of(s, &in->header)->reply;
  shmq_message own, *twin = s->group > 1 && is_kept(in) ? &own : NULL;
  int rc = pass_on(in, reply, twin, SHMQ_NOWAIT);
  if (rc == -EAGAIN) (void)shmq_service_flush(s); /* what is kept back makes no room */
  while (worth_waiting(in, SHMQ_FOREVER, &rc))
    rc = pass_on(in, reply, twin, shmq_after_ns(LOOK_NS));
  if (!rc && twin) rc = keep_back(in, reply, twin);
  if (!rc) s->stats.answered++;
  return done(in, rc);
}

static int reply_too_long(shmq_incoming *in) {
  shmq_answer answer = {.status = -EMSGSIZE,
                        .error_class = (uint8_t)shmq_class_of(-EMSGSIZE),
                        .executed = SHMQ_EXECUTED_YES};
  int rc = shmq_reply_answer(in, &answer);
  return rc ? rc : -EMSGSIZE;
}

int shmq_reply_in_place(shmq_incoming *in, const uint64_t value[2], size_t size) {
  if (in->state != INCOMING_OPEN) return -ESTALE;
  if (size > in->room) return reply_too_long(in);
  if (is_cast(in)) return done(in, 0);

  shmq_reply_header h = {.executed = SHMQ_EXECUTED_YES,
                         .data_offset = in->header.data_offset,
                         .data_bytes = (uint32_t)size};
  if (value) memcpy(h.value, value, sizeof h.value);
  unsigned char *bytes = shmq__message_of(in)->data;
  if (!bytes) return done(in, -EBADMSG);
  if (bytes + h.data_offset != in->data) memcpy(bytes + h.data_offset, in->data, size);
  /* If we die behind this the request is gone, and whoever takes the message next sends the answer. */
  write_reply(bytes, in, &h, &(struct payload){NULL, 0});
  return forward(in);
}

void shmq__finish_in_place(shmq_incoming *in) {
  shmq_service *s = in->service;
  in->state = INCOMING_OPEN;
  int rc = forward(in);
  (void)shmq_service_flush(s); /* nobody outside knows of it */
  if (rc == -EAGAIN) shmq__refuse(in, -EOWNERDEAD, SHMQ_EXECUTED_UNKNOWN);
}

/* domain NUL text NUL, cut to what a cell holds. */
static size_t error_text(char *to, size_t room, const char *domain, const char *text) {
  if (room < 2) return 0;
  size_t d = strnlen(domain, room - 2);
  memcpy(to, domain, d);
  to[d] = 0;
  size_t t = strnlen(text, room - d - 2);
  memcpy(to + d + 1, text, t);
  to[d + 1 + t] = 0;
  return d + t + 2;
}

int shmq_reply_answer(shmq_incoming *in, const shmq_answer *a) {
  if (in->state != INCOMING_OPEN) return -ESTALE;
  shmq_reply_header h = {.status = a->status,
                         .error_class = a->error_class,
                         .executed = a->executed,
                         .code = a->code,
                         .value = {a->value[0], a->value[1]}};
  char text[TEXT_MAX];
  struct iovec part = {.iov_base = text};
  if (a->domain || a->text) {
    size_t room = shmq_message_bytes(in->service->requests) - sizeof h;
    if (room > sizeof text) room = sizeof text;
    part.iov_len = error_text(text, room, a->domain ? a->domain : "", a->text ? a->text : "");
    h.flags = SHMQ_REPLY_TEXT;
  }
  return finish(in, &h, &(struct payload){&part, 1});
}

/* An error that speaks about the request, not about the work, left the work undone. */
static uint8_t executed_by(enum shmq_class error_class) {
  switch (error_class) {
  case SHMQ_CLASS_CLIENT:
  case SHMQ_CLASS_AUTH:
  case SHMQ_CLASS_BUSY:
  case SHMQ_CLASS_CANCELLED:
  case SHMQ_CLASS_UNSUPPORTED: return SHMQ_EXECUTED_NO;
  default: return SHMQ_EXECUTED_YES;
  }
}

int shmq_reply_error(shmq_incoming *in, int status, const char *domain, int code,
                     const char *text) {
  enum shmq_class error_class = shmq_class_of(status);
  shmq_answer a = {.status = status,
                   .error_class = (uint8_t)error_class,
                   .executed = executed_by(error_class),
                   .code = code,
                   .domain = domain,
                   .text = text};
  return shmq_reply_answer(in, &a);
}

/* ---- streams ---- */

/* Parts may fill half the reply queue; the other half stays for answers. */
static bool too_many_parts(const shmq *reply) {
  return shmq_depth(reply) >= (int64_t)shmq_capacity(reply) / 2;
}

static bool is_writable(shmq *reply, int64_t deadline_ns) {
  shmq_wait_item item = {.queue = reply, .want = SHMQ_WRITABLE};
  return shmq_wait(&item, 1, deadline_ns) > 0;
}

/* An answer that the asker still reads where it lies may keep the next cell. */
static bool has_part_room(shmq *reply) {
  return !too_many_parts(reply) && is_writable(reply, SHMQ_NOWAIT);
}

static void wait_for_asker(shmq *reply, int64_t until_ns) {
  if (too_many_parts(reply))
    (void)shmq_drain(reply, until_ns);
  else
    (void)is_writable(reply, until_ns);
}

static int wait_for_part_room(shmq_incoming *in, shmq *reply, int64_t deadline_ns) {
  if (shmq__is_cancelled(in->service, &in->header)) return -ECANCELED;
  while (!has_part_room(reply)) {
    if (shmq_cancelled(in))
      return shmq__asker_alive(in->service, &in->header, true) ? -ECANCELED : -ECONNRESET;
    if (deadline_ns == SHMQ_NOWAIT) return -EAGAIN;
    int64_t look = shmq_after_ns(LOOK_NS);
    wait_for_asker(reply, look < deadline_ns ? look : deadline_ns);
    if (deadline_ns <= look && !has_part_room(reply)) return -ETIMEDOUT;
  }
  return 0;
}

int shmq_reply_stream(shmq_incoming *in, const void *data, size_t size, int64_t deadline_ns) {
  if (in->state != INCOMING_OPEN) return -ESTALE;
  if (is_cast(in)) return 0;
  struct reply_slot *slot = shmq__slot_of(in->service, &in->header);
  (void)shmq_service_flush(in->service); /* parts stand behind what is kept back, and make no room either */
  int rc = wait_for_part_room(in, slot->reply, deadline_ns);
  if (rc) return rc;
  shmq_reply_header h = {.flags = SHMQ_REPLY_MORE, .executed = SHMQ_EXECUTED_YES};
  struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
  return publish(in, &h, &(struct payload){&part, 1}, false);
}
