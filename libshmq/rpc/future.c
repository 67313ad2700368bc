/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking, and collecting the answer.
 */
#include <stdlib.h>

#include "rpc/client.h"

enum { ROOM_STEP_NS = 1000000, CLIENTS_MAX = 64 };

/* ---- asking ---- */

static size_t payload_bytes(const shmq_ask *ask) {
  size_t n = 0;
  for (int i = 0; i < ask->part_count; i++) n += ask->parts[i].iov_len;
  return n;
}

static shmq_request_header header_of(const shmq_client *c, const shmq_ask *ask,
                                     const shmq_future *f, int64_t deadline_ns, size_t bytes) {
  return (shmq_request_header){
      .magic = SHMQ_RPC_MAGIC,
      .kind = SHMQ_RPC_REQUEST,
      .flags = (uint16_t)((ask->flags & SHMQ_ASK_IDEMPOTENT) | (f ? 0 : SHMQ_ASK_CAST)),
      .id = f ? f->id : 0,
      .asker = c->asker,
      .generation = c->generation,
      .slot = c->slot,
      .resource = ask->resource,
      .op = ask->op,
      .deadline_ns = deadline_ns == SHMQ_NOWAIT ? SHMQ_FOREVER : deadline_ns,
      .data_offset = SHMQ_RPC_HEADER_BYTES,
      .data_bytes = (uint32_t)bytes,
      .value = {ask->value[0], ask->value[1]}};
}

static void write_request(void *at, const shmq_request_header *h, const shmq_ask *ask) {
  char *to = (char *)at + sizeof *h;
  memcpy(at, h, sizeof *h);
  for (int i = 0; i < ask->part_count; i++) {
    if (ask->parts[i].iov_len) memcpy(to, ask->parts[i].iov_base, ask->parts[i].iov_len);
    to += ask->parts[i].iov_len;
  }
}

/* A short one is put together here: to copy it twice costs less than to reserve. */
static int put_request(shmq_client *c, const shmq_request_header *h, const shmq_ask *ask,
                       size_t size, int64_t deadline_ns) {
  _Alignas(shmq_request_header) char bytes[SHORT_BYTES];
  shmq_message m;
  if (size <= sizeof bytes && size == sizeof *h + h->data_bytes) {
    write_request(bytes, h, ask);
    return shmq_put(c->requests, bytes, size, deadline_ns);
  }
  int rc = shmq_reserve(c->requests, size, &m, deadline_ns);
  if (rc) return rc;
  write_request(m.data, h, ask);
  return shmq_commit(c->requests, &m);
}

/* Room may depend on our own answers being taken in (blocks travel back in them), so this never
 * sleeps in the request queue alone while any are to come. */
static int put_or_wait(shmq_client *c, const shmq_request_header *h, const shmq_ask *ask,
                       size_t size, int64_t deadline_ns) {
  for (;;) {
    int rc = put_request(c, h, ask, size, SHMQ_NOWAIT);
    if (rc != -EAGAIN || deadline_ns == SHMQ_NOWAIT) return rc;
    int64_t now = shmq_now_ns();
    if (now >= deadline_ns) return -ETIMEDOUT;
    int64_t step = now + ROOM_STEP_NS < deadline_ns ? now + ROOM_STEP_NS : deadline_ns;
    if (c->outstanding) {
      rc = shmq__wait_news(c, step);
    } else {
      rc = put_request(c, h, ask, size, step);
      if (!rc) return 0;
      if (rc == -ETIMEDOUT && shmq__session_over(c)) return -EOWNERDEAD;
    }
    if (rc && rc != -ETIMEDOUT && rc != -EAGAIN) return rc;
  }
}

static int wait_for_credit(shmq_client *c, int64_t deadline_ns) {
  while (c->outstanding >= c->credits) {
    int rc = shmq__wait_news(c, deadline_ns);
    if (rc) return rc;
  }
  return 0;
}

static int send_request(shmq_client *c, const shmq_ask *ask, int64_t deadline_ns, shmq_future *f) {
  size_t bytes = payload_bytes(ask);
  size_t room = bytes > ask->room ? bytes : ask->room;
  if (room > UINT32_MAX - SHMQ_RPC_HEADER_BYTES) return -EMSGSIZE;
  shmq_request_header h = header_of(c, ask, f, deadline_ns, bytes);
  int rc = put_or_wait(c, &h, ask, sizeof h + room, deadline_ns);
  if (rc) return rc;
  c->stats.asked++;
  if (f) c->outstanding++;
  return 0;
}

/* A forked child's answers would go to its parent, who takes them for its own. */
static bool is_parents(const shmq_client *c) {
  uint32_t generation = 0;
  int index = shmq_participant(c->segment, &generation);
  return index != (int)c->asker || generation != c->generation;
}

int shmq_request(shmq_client *c, const shmq_ask *ask, int64_t deadline_ns, shmq_future **future) {
  if (!c) return -EINVAL;
  if (is_parents(c)) return -ESTALE;
  int rc = wait_for_credit(c, deadline_ns);
  if (rc) return rc;
  rc = shmq__make_way(c, 1);
  if (rc) return rc;
  shmq_future *f = shmq__future_new(c);
  if (!f) return -ENOMEM;
  f->deadline_ns = deadline_ns == SHMQ_NOWAIT ? SHMQ_FOREVER : deadline_ns;
  f->idempotent = ask->flags & SHMQ_ASK_IDEMPOTENT;
  /* Answers may be taken in while this one is still to be sent: it must not expire on its own then. */
  int64_t own_deadline = f->deadline_ns;
  f->deadline_ns = SHMQ_FOREVER;
  rc = send_request(c, ask, deadline_ns, f);
  f->deadline_ns = own_deadline;
  if (rc)
    shmq__future_reset(f);
  else
    *future = f;
  return rc;
}

int shmq_cast(shmq_client *c, const shmq_ask *ask, int64_t deadline_ns) {
  if (!c) return -EINVAL;
  return is_parents(c) ? -ESTALE : send_request(c, ask, deadline_ns, NULL);
}

static int failed_call(shmq_result *result, int rc) {
  *result = (shmq_result){.status = rc,
                          .error_class = (uint8_t)shmq_class_of(rc),
                          .executed = SHMQ_EXECUTED_NO,
                          .domain = "",
                          .text = ""};
  return rc;
}

int shmq_call(shmq_client *c, const shmq_ask *ask, shmq_result *result, int64_t deadline_ns) {
  if (!c) return failed_call(result, -EINVAL);
  shmq_call_done(c);
  int rc = shmq_request(c, ask, deadline_ns, &c->call);
  if (rc) return failed_call(result, rc);
  rc = shmq_await(c->call, result, SHMQ_FOREVER);
  if (rc != -EINTR || !result->more) return rc;
  /* The future is ours: nobody could collect the answer later. */
  shmq_cancel(c->call);
  shmq__settle_locally(c->call, -EINTR, SHMQ_EXECUTED_UNKNOWN);
  return shmq_await(c->call, result, SHMQ_NOWAIT);
}

void shmq_call_done(shmq_client *c) {
  if (!c) return;
  if (c->call) c->call->observed = true;
  shmq_future_free(c->call);
  c->call = NULL;
}

/* ---- collecting ---- */

int shmq_poll(shmq_future *f) {
  if (!f) return 0;
  shmq_client *c = f->client;
  if (!shmq__has_news(f))
    while (shmq__wait_news(c, SHMQ_NOWAIT) == 0) {}
  return shmq__has_news(f) ? 1 : 0;
}

/* Answers to others may come all the time: that must not keep anything from its end. */
static bool is_late(shmq_client **clients, int n, int64_t deadline_ns) {
  int64_t now = shmq_now_ns();
  for (int i = 0; i < n; i++) (void)shmq__look(clients[i], now);
  return deadline_ns != SHMQ_NOWAIT && now >= deadline_ns;
}

/* Wait until there is news; an unusable queue is the answer, too. */
static int wait_for(shmq_future *f, int64_t deadline_ns) {
  while (!shmq__has_news(f)) {
    int rc = shmq__wait_news(f->client, deadline_ns);
    if (rc == -EAGAIN || rc == -ETIMEDOUT) return shmq__has_news(f) ? 0 : -EAGAIN;
    if (rc == -EINTR || rc == -EBUSY) return rc; /* the future is pending still */
    if (rc) shmq__settle_locally(f, rc, SHMQ_EXECUTED_UNKNOWN);
    if (!shmq__has_news(f) && is_late(&f->client, 1, deadline_ns))
      return shmq__has_news(f) ? 0 : -EAGAIN;
  }
  return 0;
}

static shmq_result unfinished(int rc) {
  return (shmq_result){.status = rc,
                       .error_class = (uint8_t)shmq_class_of(rc),
                       .executed = SHMQ_EXECUTED_UNKNOWN,
                       .more = 1,
                       .domain = "",
                       .text = ""};
}

int shmq_await(shmq_future *f, shmq_result *result, int64_t deadline_ns) {
  if (!f) return failed_call(result, -EINVAL);
  int rc = wait_for(f, deadline_ns);
  if (rc) {
    *result = unfinished(rc);
    return rc;
  }
  struct part *p = f->parts;
  if (p) {
    free(f->current);
    f->current = p;
    f->parts = p->next;
    if (!f->parts) f->parts_end = &f->parts;
    *result = p->result;
    return 0;
  }
  f->observed = f->seen = true;
  *result = f->result;
  return result->status;
}

/* ---- several at once ---- */

static int find_settled(shmq_future **futures, int n) {
  for (int i = 0; i < n; i++)
    if (shmq__has_news(futures[i])) return i;
  return -EAGAIN;
}

/* The different clients that these futures belong to. */
static int clients_of(shmq_future **futures, int n, shmq_client *clients[CLIENTS_MAX]) {
  int count = 0;
  for (int i = 0; i < n; i++) {
    int k = 0;
    while (k < count && clients[k] != futures[i]->client) k++;
    if (k < count) continue;
    if (count == CLIENTS_MAX) return -EINVAL;
    clients[count++] = futures[i]->client;
  }
  return count;
}

static int wait_clients(shmq_client **clients, int n, int64_t deadline_ns) {
  if (n == 1) return shmq__wait_news(clients[0], deadline_ns);

  shmq_wait_item items[CLIENTS_MAX];
  int64_t now = shmq_now_ns(), until = deadline_ns;
  for (int i = 0; i < n; i++) {
    int rc = shmq__make_way(clients[i], 0);
    if (rc) return rc;
    shmq__begin_wait(clients[i], now);
    if (deadline_ns != SHMQ_NOWAIT) until = shmq__wake_at(clients[i], until);
    items[i] = (shmq_wait_item){.queue = clients[i]->reply, .want = SHMQ_READABLE};
  }
  int rc = shmq_wait(items, n, until);
  if (rc < 0 && rc != -ETIMEDOUT && rc != -EAGAIN) return rc;
  for (int i = 0; i < n; i++)
    while (shmq__take_answer(clients[i], SHMQ_NOWAIT) == 0) {}
  return deadline_ns == SHMQ_NOWAIT ? -EAGAIN : 0;
}

int shmq_await_any(shmq_future **futures, int n, int64_t deadline_ns) {
  shmq_client *clients[CLIENTS_MAX];
  int count = clients_of(futures, n, clients);
  if (count <= 0) return -EINVAL;
  for (;;) {
    int i = find_settled(futures, n);
    if (i >= 0) return i;
    int rc = wait_clients(clients, count, deadline_ns);
    if ((!rc || rc == -EAGAIN) && is_late(clients, count, deadline_ns)) rc = -EAGAIN;
    if (rc && (i = find_settled(futures, n)) >= 0) return i;
    if (rc) return rc == -ETIMEDOUT ? -EAGAIN : rc;
  }
}

int shmq_await_all(shmq_future **futures, int n, int64_t deadline_ns) {
  for (int i = 0; i < n; i++) {
    int rc = wait_for(futures[i], deadline_ns);
    if (rc) return rc;
  }
  return 0;
}
