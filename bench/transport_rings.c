/* SPDX-License-Identifier: Apache-2.0
 *
 * Rings of Debian's libraries, placed in shared memory: Concurrency Kit and DPDK's rte_ring. They are designs for
 * one process; nothing in them survives a death.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "transport.h"

static int map(struct channel *c, size_t bytes) {
  c->shared_bytes = bytes;
  c->shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return c->shared == MAP_FAILED ? -1 : 0;
}
static void unmap(struct channel *c) { munmap(c->shared, c->shared_bytes); }

#ifdef BENCH_CK
#include <ck_ring.h>

struct m8 { unsigned char bytes[8]; };
struct m64 { unsigned char bytes[64]; };
struct m1024 { unsigned char bytes[1024]; };
CK_RING_PROTOTYPE(m8, m8)
CK_RING_PROTOTYPE(m64, m64)
CK_RING_PROTOTYPE(m1024, m1024)

static int ck_make(struct channel *c, bool single) {
  size_t n = c->shape.bytes;
  if (n != 8 && n != 64 && n != 1024) return -1;
  if (single && (c->shape.producers != 1 || c->shape.consumers != 1)) return -1;
  if (map(c, 4096 + n * c->shape.depth) < 0) return -1;
  ck_ring_init(c->shared, c->shape.depth);
  return 0;
}
static int ck_make_spsc(struct channel *c) { return ck_make(c, true); }
static int ck_make_mpmc(struct channel *c) { return ck_make(c, false); }

#define CK_TRY(what, mode, data)                                                       \
  (n == 8 ? ck_ring_##what##_##mode##_m8(ring, (void *)cells, data)                    \
          : n == 64 ? ck_ring_##what##_##mode##_m64(ring, (void *)cells, data)         \
                    : ck_ring_##what##_##mode##_m1024(ring, (void *)cells, data))

#define CK_CALLS(mode)                                                                 \
  static void ck_send_##mode(struct channel *c, const void *data, size_t n) {          \
    ck_ring_t *ring = c->shared;                                                       \
    unsigned char *cells = (unsigned char *)c->shared + 4096;                          \
    while (!CK_TRY(enqueue, mode, (void *)(uintptr_t)data)) ck_pr_stall();             \
  }                                                                                    \
  static void ck_receive_##mode(struct channel *c, void *data, size_t n) {             \
    ck_ring_t *ring = c->shared;                                                       \
    unsigned char *cells = (unsigned char *)c->shared + 4096;                          \
    while (!CK_TRY(dequeue, mode, data)) ck_pr_stall();                                \
  }
CK_CALLS(spsc)
CK_CALLS(mpmc)

const struct transport transport_ck_spsc = {.name = "ck-spsc",
                                            .make = ck_make_spsc,
                                            .send = ck_send_spsc,
                                            .receive = ck_receive_spsc,
                                            .destroy = unmap};
const struct transport transport_ck_mpmc = {.name = "ck-mpmc",
                                            .make = ck_make_mpmc,
                                            .send = ck_send_mpmc,
                                            .receive = ck_receive_mpmc,
                                            .destroy = unmap};
#endif

#ifdef BENCH_DPDK
#include <rte_ring.h>
#include <rte_ring_elem.h>

static int rte_make(struct channel *c, bool single) {
  unsigned flags = single ? RING_F_SP_ENQ | RING_F_SC_DEQ : 0;
  unsigned count = c->shape.depth, n = (unsigned)c->shape.bytes;
  if (single && (c->shape.producers != 1 || c->shape.consumers != 1)) return -1;
  ssize_t bytes = n % 4 == 0 ? rte_ring_get_memsize_elem(n, count) : -1;
  if (bytes < 0 || map(c, (size_t)bytes) < 0) return -1;
  return rte_ring_init(c->shared, "bench", count, flags) == 0 ? 0 : -1;
}
static int rte_make_spsc(struct channel *c) { return rte_make(c, true); }
static int rte_make_mpmc(struct channel *c) { return rte_make(c, false); }

#define RTE_CALLS(mode, enqueue, dequeue)                                                          \
  static void rte_send_##mode(struct channel *c, const void *data, size_t n) {                     \
    while (enqueue##_bulk_elem(c->shared, data, (unsigned)n, 1, NULL) == 0) rte_pause();           \
  }                                                                                                \
  static void rte_receive_##mode(struct channel *c, void *data, size_t n) {                        \
    while (dequeue##_bulk_elem(c->shared, data, (unsigned)n, 1, NULL) == 0) rte_pause();           \
  }                                                                                                \
  static int rte_send_batch_##mode(struct channel *c, const void *data, size_t n, int count) {     \
    unsigned done;                                                                                 \
    while ((done = enqueue##_burst_elem(c->shared, data, (unsigned)n, (unsigned)count, NULL)) == 0) \
      rte_pause();                                                                                 \
    return (int)done;                                                                              \
  }                                                                                                \
  static int rte_receive_batch_##mode(struct channel *c, void *data, size_t n, int count) {        \
    unsigned done;                                                                                 \
    while ((done = dequeue##_burst_elem(c->shared, data, (unsigned)n, (unsigned)count, NULL)) == 0) \
      rte_pause();                                                                                 \
    return (int)done;                                                                              \
  }
RTE_CALLS(spsc, rte_ring_sp_enqueue, rte_ring_sc_dequeue)
RTE_CALLS(mpmc, rte_ring_mp_enqueue, rte_ring_mc_dequeue)

const struct transport transport_rte_spsc = {
    "rte-spsc",          false,                  rte_make_spsc, NULL, rte_send_spsc, rte_receive_spsc,
    rte_send_batch_spsc, rte_receive_batch_spsc, NULL,          unmap, NULL};
const struct transport transport_rte_mpmc = {
    "rte-mpmc",          false,                  rte_make_mpmc, NULL, rte_send_mpmc, rte_receive_mpmc,
    rte_send_batch_mpmc, rte_receive_batch_mpmc, NULL,          unmap, NULL};
#endif
