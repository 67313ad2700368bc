/* SPDX-License-Identifier: Apache-2.0
 *
 * The limits: what the machine itself allows. They are no queues: one message is under way at a time, except
 * in memcpy, where a block of 4 MiB lies between the two sides.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "transport.h"

static int map(struct channel *c, size_t bytes) {
  if (c->shape.producers != 1 || c->shape.consumers != 1) return -1;
  c->shared_bytes = bytes;
  c->shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return c->shared == MAP_FAILED ? -1 : 0;
}
static int map_page(struct channel *c) { return map(c, 4096); }
static void unmap(struct channel *c) { munmap(c->shared, c->shared_bytes); }

static void wait_for(const _Atomic uint64_t *word, uint64_t value) {
  while (atomic_load_explicit(word, memory_order_acquire) != value) {
  }
}

/* ---- one word ---- */

static void line_send(struct channel *c, const void *data, size_t n) {
  _Atomic uint64_t *word = c->shared;
  (void)data, (void)n;
  uint64_t next = (uint64_t)(uintptr_t)c->handle + 1;
  atomic_store_explicit(word, next, memory_order_release);
  c->handle = (void *)(uintptr_t)next;
}
static void line_receive(struct channel *c, void *data, size_t n) {
  uint64_t next = (uint64_t)(uintptr_t)c->handle + 1;
  wait_for(c->shared, next);
  c->handle = (void *)(uintptr_t)next;
  next--;
  memcpy(data, &next, n < 8 ? n : 8);
}

const struct transport transport_line = {
    .name = "line", .make = map_page, .send = line_send, .receive = line_receive, .destroy = unmap};

/* ---- 56 bytes and a flag in one line ---- */

struct flag_line {
  _Atomic uint64_t flag;
  unsigned char data[56];
};
static void flag_send(struct channel *c, const void *data, size_t n) {
  struct flag_line *line = c->shared;
  uint64_t next = (uint64_t)(uintptr_t)c->handle + 1;
  (void)n;
  memcpy(line->data, data, sizeof line->data);
  atomic_store_explicit(&line->flag, next, memory_order_release);
  c->handle = (void *)(uintptr_t)next;
}
static void flag_receive(struct channel *c, void *data, size_t n) {
  struct flag_line *line = c->shared;
  uint64_t next = (uint64_t)(uintptr_t)c->handle + 1;
  (void)n;
  wait_for(&line->flag, next);
  memcpy(data, line->data, sizeof line->data);
  c->handle = (void *)(uintptr_t)next;
}

const struct transport transport_flag = {
    .name = "flag", .make = map_page, .send = flag_send, .receive = flag_receive, .destroy = unmap};

/* ---- copies from core to core with a backlog of 4 MiB ---- */

#define BACKLOG (4u << 20)
struct copy_ring {
  _Atomic uint64_t tail;
  char pad0[120];
  _Atomic uint64_t head;
  char pad1[120];
  unsigned char bytes[];
};
struct copy_side {
  uint64_t at, seen;
};

static int memcpy_make(struct channel *c) { return map(c, sizeof(struct copy_ring) + 2 * BACKLOG); }
static int memcpy_attach(struct channel *c, bool producer) {
  static _Thread_local struct copy_side sides[2];
  (void)producer;
  sides[c->number] = (struct copy_side){0};
  c->handle = &sides[c->number];
  return 0;
}
static uint64_t copies_a_step(uint64_t slots) { return slots >= 4 ? slots / 4 : 1; }
/* Indices are published and looked at a quarter of the backlog at a time, so the copies are what is
 * measured. */
static void memcpy_send(struct channel *c, const void *data, size_t n) {
  struct copy_ring *r = c->shared;
  struct copy_side *s = c->handle;
  uint64_t slots = BACKLOG / n, step = copies_a_step(slots);
  while (s->at - s->seen >= slots) s->seen = atomic_load_explicit(&r->head, memory_order_acquire);
  memcpy(r->bytes + s->at % slots * n, data, n);
  s->at++;
  if (s->at % step == 0 || s->at - s->seen >= slots - 1)
    atomic_store_explicit(&r->tail, s->at, memory_order_release);
}
static void memcpy_receive(struct channel *c, void *data, size_t n) {
  struct copy_ring *r = c->shared;
  struct copy_side *s = c->handle;
  uint64_t slots = BACKLOG / n, step = copies_a_step(slots);
  while (s->at >= s->seen) s->seen = atomic_load_explicit(&r->tail, memory_order_acquire);
  memcpy(data, r->bytes + s->at % slots * n, n);
  s->at++;
  if (s->at % step == 0) atomic_store_explicit(&r->head, s->at, memory_order_release);
}
static void memcpy_flush(struct channel *c) {
  struct copy_ring *r = c->shared;
  struct copy_side *s = c->handle;
  if (s->at > atomic_load_explicit(&r->tail, memory_order_relaxed))
    atomic_store_explicit(&r->tail, s->at, memory_order_release);
}

const struct transport transport_memcpy = {.name = "memcpy",
                                           .make = memcpy_make,
                                           .attach = memcpy_attach,
                                           .send = memcpy_send,
                                           .receive = memcpy_receive,
                                           .flush = memcpy_flush,
                                           .destroy = unmap};

/* ---- a futex wake-up ---- */

static void futex_send(struct channel *c, const void *data, size_t n) {
  _Atomic uint32_t *word = c->shared;
  (void)n;
  memcpy((char *)c->shared + 64, data, n < 64 ? n : 64);
  atomic_store_explicit(word, 1, memory_order_release);
  (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}
static void futex_receive(struct channel *c, void *data, size_t n) {
  _Atomic uint32_t *word = c->shared;
  while (atomic_load_explicit(word, memory_order_acquire) == 0)
    (void)syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
  memcpy(data, (char *)c->shared + 64, n < 64 ? n : 64);
  atomic_store_explicit(word, 0, memory_order_relaxed);
}

const struct transport transport_futex = {
    .name = "futex", .make = map_page, .send = futex_send, .receive = futex_receive, .destroy = unmap};
