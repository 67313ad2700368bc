/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of a future: an answer settles it, or this side does. A short answer is copied and its
 * cell freed at once; a long one is read where it lies and holds its place in the reply queue
 * until the future is freed.
 */
#include <stdlib.h>

#include "rpc/client.h"

enum { INDEX_BITS = 16, TABLE_MAX = 1 << INDEX_BITS };

/* ---- the table ---- */

static bool table_grow(shmq_client *c) {
  if (c->table_count < c->table_room) return true;
  if (c->table_room == TABLE_MAX) return false;
  uint32_t room = c->table_room ? c->table_room * 2 : 16;
  shmq_future **table = realloc(c->table, room * sizeof(shmq_future *));
  if (!table) return false;
  c->table = table;
  c->table_room = room;
  return true;
}

static shmq_future *free_entry(shmq_client *c) {
  for (uint32_t n = 0; n < c->table_count; n++) {
    uint32_t i = (c->free_hint + n) % c->table_count;
    if (c->table[i]->state != FUTURE_FREE) continue;
    c->free_hint = i;
    return c->table[i];
  }
  if (!table_grow(c)) return NULL;
  shmq_future *f = calloc(1, sizeof *f + c->cell_bytes);
  if (!f) return NULL;
  f->client = c;
  f->id = c->table_count;
  c->free_hint = c->table_count;
  c->table[c->table_count++] = f;
  return f;
}

/* A fresh pending future; the caller publishes its request or resets it. */
shmq_future *shmq__future_new(shmq_client *c) {
  shmq_future *f = free_entry(c);
  if (!f) return NULL;
  uint64_t index = f->id & (TABLE_MAX - 1);
  f->id = ++c->serial << INDEX_BITS | index;
  f->state = FUTURE_PENDING;
  f->answered = f->cancelled = f->observed = f->seen = f->idempotent = false;
  f->result = (shmq_result){.domain = "", .text = ""};
  f->parts_end = &f->parts;
  f->steps_end = &f->steps;
  return f;
}

shmq_future *shmq__future_find(shmq_client *c, uint64_t id) {
  uint64_t index = id & (TABLE_MAX - 1);
  if (index >= c->table_count) return NULL;
  shmq_future *f = c->table[index];
  return f->id == id && f->state != FUTURE_FREE && !f->answered ? f : NULL;
}

/* ---- answers held in place ---- */

static void hold(shmq_future *f, const shmq_message *m) {
  shmq_client *c = f->client;
  f->held = *m;
  f->held_next = NULL;
  f->held_prev = c->newest_held;
  *(c->newest_held ? &c->newest_held->held_next : &c->oldest_held) = f;
  c->newest_held = f;
}

static void let_go(shmq_future *f) {
  shmq_client *c = f->client;
  if (!f->held.data) return;
  shmq_ack(c->reply, &f->held);
  f->held.data = NULL;
  *(f->held_prev ? &f->held_prev->held_next : &c->oldest_held) = f->held_next;
  *(f->held_next ? &f->held_next->held_prev : &c->newest_held) = f->held_prev;
}

/* Copy a held answer out of the reply queue. -EBUSY: somebody has looked at it where it lies. */
static int move_out(shmq_future *f) {
  if (f->seen) return -EBUSY;
  f->moved = malloc(f->result.size + 1);
  if (!f->moved) return -ENOMEM;
  memcpy(f->moved, f->result.data, f->result.size);
  f->result.data = f->moved;
  let_go(f);
  return 0;
}

/* What is held stands in the ring, and the answers to come must not reach it: half of the ring is theirs. */
static bool in_the_way(const shmq_client *c, uint32_t more) {
  if (!c->oldest_held) return false;
  uint64_t behind = (c->last_position - c->oldest_held->held.position) & ((UINT64_C(1) << 48) - 1);
  return behind + c->outstanding + more > (uint64_t)2 * c->credits;
}

int shmq__make_way(shmq_client *c, uint32_t more) {
  int rc = 0;
  while (!rc && in_the_way(c, more)) rc = move_out(c->oldest_held);
  return rc;
}

/* ---- the end of a future ---- */

static void free_parts(shmq_future *f) {
  free(f->current);
  f->current = NULL;
  for (struct part *p = f->parts, *next; p; p = next) {
    next = p->next;
    free(p);
  }
  f->parts = NULL;
}

static void leave_ready(shmq_future *f) {
  shmq_client *c = f->client;
  if (!f->in_ready) return;
  shmq_future **at = &c->ready;
  while (*at != f) at = &(*at)->ready_next;
  *at = f->ready_next;
  if (!*at) c->ready_end = at;
  f->in_ready = false;
}

void shmq__future_reset(shmq_future *f) {
  let_go(f);
  free(f->moved);
  f->moved = NULL;
  free_parts(f);
  leave_ready(f);
  for (struct step *s = f->steps, *next; s; s = next) {
    next = s->next;
    free(s);
  }
  f->steps = NULL;
  f->state = FUTURE_FREE;
}

void shmq__make_ready(shmq_future *f) {
  if (f->in_ready || f->running) return;
  f->in_ready = true;
  f->ready_next = NULL;
  *f->client->ready_end = f;
  f->client->ready_end = &f->ready_next;
}

static void settled(shmq_future *f) {
  f->state = FUTURE_SETTLED;
  if (f->steps)
    shmq__make_ready(f);
  else
    f->client->news = true;
}

void shmq__settle_locally(shmq_future *f, int status, uint8_t executed) {
  f->result = (shmq_result){.status = status,
                            .error_class = (uint8_t)shmq_class_of(status),
                            .executed = executed,
                            .domain = "",
                            .text = ""};
  settled(f);
}

/* ---- answers ---- */

static void read_text(shmq_result *r) {
  const char *domain = r->data;
  if (!r->size || domain[r->size - 1] != 0) return;
  size_t d = strlen(domain) + 1;
  r->domain = domain;
  if (d < r->size) r->text = domain + d;
  r->data = NULL;
  r->size = 0;
}

/* The header has room for the low bits. One server is never more than half their range from the next; an answer that
 * a dead one left behind may be from before the latest. */
static uint32_t epoch_of(const shmq_client *c, const shmq_reply_header *h) {
  if (!c->epoch) return h->epoch;
  return c->epoch + (uint32_t)(int16_t)(uint16_t)(h->epoch - c->epoch);
}

static void see_epoch(shmq_client *c, const shmq_reply_header *h) {
  uint32_t epoch = epoch_of(c, h);
  if ((int32_t)(epoch - c->epoch) > 0) c->epoch = epoch;
}

static void read_header(const shmq_client *c, shmq_result *r, const shmq_reply_header *h) {
  *r = (shmq_result){.status = h->status > 0 ? -h->status : h->status,
                     .error_class = h->error_class,
                     .executed = h->executed,
                     .more = h->flags & SHMQ_REPLY_MORE ? 1 : 0,
                     .code = h->code,
                     .epoch = epoch_of(c, h),
                     .value = {h->value[0], h->value[1]},
                     .size = h->data_bytes,
                     .domain = "",
                     .text = ""};
}

static bool well_formed(const shmq_reply_header *h, size_t size) {
  return h->data_offset >= sizeof *h && h->data_offset <= size &&
         h->data_bytes <= size - h->data_offset;
}

static void take_payload(shmq_future *f, const shmq_reply_header *h, const void *data,
                         const shmq_message *m) {
  const char *payload = (const char *)data + h->data_offset;
  read_header(f->client, &f->result, h);
  if (m) {
    hold(f, m);
    f->result.data = (char *)m->data + h->data_offset;
    return;
  }
  if (h->data_bytes) memcpy(f->copy, payload, h->data_bytes);
  f->result.data = f->copy;
  if (h->flags & SHMQ_REPLY_TEXT) read_text(&f->result);
}

/* Returns true when the message stays held. */
static bool take_final(shmq_future *f, const shmq_reply_header *h, const void *data,
                       const shmq_message *m) {
  shmq_client *c = f->client;
  f->answered = true;
  c->outstanding--;
  if (f->cancelled) c->cancels_pending--;
  if (f->state == FUTURE_ORPHAN && !f->running) shmq__future_reset(f);
  if (f->state != FUTURE_PENDING) { /* it expired, or was given up: nobody wants the answer */
    c->stats.dropped++;
    return false;
  }
  c->stats.answered++;
  take_payload(f, h, data, m);
  settled(f);
  return m != NULL;
}

static void take_part(shmq_future *f, const shmq_reply_header *h, const void *data) {
  if (f->state != FUTURE_PENDING) {
    f->client->stats.dropped++;
    return;
  }
  struct part *p = malloc(sizeof *p + h->data_bytes);
  if (!p) { /* a hole in a stream is an error: the end of it, whatever still comes */
    shmq__settle_locally(f, -ENOMEM, SHMQ_EXECUTED_UNKNOWN);
    return;
  }
  p->next = NULL;
  read_header(f->client, &p->result, h);
  if (h->data_bytes) memcpy(p->data, (const char *)data + h->data_offset, h->data_bytes);
  p->result.data = p->data;
  *f->parts_end = p;
  f->parts_end = &p->next;
  f->client->news = true;
}

/* m: the message it lies in, when it may stay there. */
static bool take_message(shmq_client *c, const void *data, size_t size, const shmq_message *m) {
  shmq_reply_header h;
  if (size < sizeof h) goto drop;
  memcpy(&h, data, sizeof h);
  if (h.magic != SHMQ_RPC_MAGIC || h.kind != SHMQ_RPC_REPLY) goto drop;
  if (h.asker != c->asker || h.generation != c->generation) goto drop;
  see_epoch(c, &h);
  shmq_future *f = shmq__future_find(c, h.id);
  if (!f || !well_formed(&h, size)) goto drop;
  if (!(h.flags & SHMQ_REPLY_MORE)) return take_final(f, &h, data, m);
  take_part(f, &h, data);
  return false;
drop:
  c->stats.dropped++;
  return false;
}

/* One that does not fit a cell. */
static int take_long(shmq_client *c) {
  shmq_message m;
  int rc = shmq_lease(c->reply, &m, SHMQ_NOWAIT);
  if (rc) return rc;
  c->last_position = m.position;
  bool is_long = m.size > c->cell_bytes;
  if (!take_message(c, m.data, m.size, is_long ? &m : NULL)) shmq_ack(c->reply, &m);
  return 0;
}

/* Several at once, when several are to come: their lines come from the server's CPU side by side. */
static int take_short(shmq_client *c, int64_t deadline_ns) {
  struct iovec answers[ANSWERS_MOST];
  int most = c->outstanding < ANSWERS_MOST ? (int)c->outstanding : ANSWERS_MOST;
  for (int i = 0; i < most; i++)
    answers[i] = (struct iovec){c->scratch + (size_t)i * c->cell_bytes, c->cell_bytes};
  int n = shmq_get_batch(c->reply, answers, most, deadline_ns);
  for (int i = 0; i < n; i++) {
    c->last_position++;
    take_message(c, answers[i].iov_base, answers[i].iov_len, NULL);
  }
  return n < 0 ? n : 0;
}

static int take_one(shmq_client *c, int64_t deadline_ns) {
  ssize_t n = shmq_get(c->reply, c->scratch, c->cell_bytes, deadline_ns);
  if (n < 0) return (int)n;
  c->last_position++;
  take_message(c, c->scratch, (size_t)n, NULL);
  return 0;
}

int shmq__take_answer(shmq_client *c, int64_t deadline_ns) {
  int rc = c->outstanding > 1 ? take_short(c, deadline_ns) : take_one(c, deadline_ns);
  if (rc == -EMSGSIZE) rc = take_long(c);
  if (rc == 0 && c->cancels_queued && !c->cancels_pending) shmq__tidy_cancels(c);
  return rc;
}
