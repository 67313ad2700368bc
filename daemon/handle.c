/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles: descriptors that a client names by number. A number says which slot of the session's table, which
 * descriptor in its row it was (a closed handle's number does not come again soon), and which worker opened it:
 *
 *   index + 1: 16 bits, serial: 24, epoch: 22
 *
 * Descriptors die with their worker. To open a path again could be to open another file, so who comes with a
 * number of an earlier epoch is told -ESTALE.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "session.h"

enum { INDEX_BITS = 16, SERIAL_BITS = 24, EPOCH_BITS = 22, GENERATION_BITS = 16, SHARD_BITS = 6 };

struct handle {
  int fd; /* -1: free */
  uint16_t resource;
  bool closing;
  int flags; /* it was opened with */
  uint32_t serial;
  uint32_t holds;
  void *own; /* the resource's */
};

static uint32_t low_bits(uint64_t value, int bits) {
  return (uint32_t)(value & ((UINT64_C(1) << bits) - 1));
}

/* This worker's participant and generation: another's are others. */
static uint32_t epoch_of(const struct session *s) {
  uint32_t generation = 0;
  int index = shmq_participant(shmq_service_segment(s->service), &generation);
  return low_bits((uint64_t)index << GENERATION_BITS | low_bits(generation, GENERATION_BITS),
                  EPOCH_BITS);
}

int handles_open(struct session *s) {
  const struct daemon *d = s->shard->daemon;
  s->epoch = epoch_of(s);
  s->handles_most = (uint32_t)section_number(d->settings, "handles");
  s->handles = calloc(d->shard_count, sizeof *s->handles);
  return s->handles ? 0 : -ENOMEM;
}

void handles_close(struct session *s) {
  for (unsigned shard = 0; s->handles && shard < s->shard->daemon->shard_count; shard++) {
    struct handle *table = s->handles[shard];
    for (uint32_t i = 0; table && i < s->handles_most; i++)
      if (table[i].fd >= 0) close(table[i].fd);
    free(table);
  }
  free(s->handles);
}

/* ---- tables ---- */

/* That of the resource's shard: nobody else touches it. */
static struct handle **table_of(const struct request *r) {
  return &r->session->handles[r->resource->shard->index];
}

/* Serials of two shards begin far from each other: who confuses resources is told so. */
static int make_table(const struct request *r) {
  uint32_t first = r->resource->shard->index << (SERIAL_BITS - SHARD_BITS);
  struct handle *table = calloc(r->session->handles_most, sizeof *table);
  if (!table) return -ENOMEM;
  for (uint32_t i = 0; i < r->session->handles_most; i++)
    table[i] = (struct handle){.fd = -1, .serial = first};
  *table_of(r) = table;
  return 0;
}

static struct handle *find_handle(const struct request *r, uint64_t number) {
  const struct session *s = r->session;
  struct handle *table = *table_of(r);
  uint32_t i = low_bits(number, INDEX_BITS) - 1;
  if (!table || i >= s->handles_most || number >> (INDEX_BITS + SERIAL_BITS) != s->epoch)
    return NULL;
  struct handle *h = &table[i];
  return h->fd >= 0 && h->serial == low_bits(number >> INDEX_BITS, SERIAL_BITS) ? h : NULL;
}

static int64_t add_to_table(const struct request *r, int fd) {
  const struct session *s = r->session;
  struct handle *h = *table_of(r);
  while (h->fd >= 0) h++;
  *h = (struct handle){.fd = fd,
                       .resource = r->resource->number,
                       .flags = fcntl(fd, F_GETFL),
                       .serial = low_bits(h->serial + UINT64_C(1), SERIAL_BITS)};
  return (int64_t)((uint64_t)s->epoch << (INDEX_BITS + SERIAL_BITS) |
                   (uint64_t)h->serial << INDEX_BITS | (uint64_t)(h - *table_of(r) + 1));
}

/* Counted for all tables together: one that has room in the count has it in its table. */
int64_t handle_add(const struct request *r, int fd) {
  struct session *s = r->session;
  int rc = *table_of(r) ? 0 : make_table(r);
  if (rc) return rc;
  if (atomic_fetch_add_explicit(&s->handle_count, 1, memory_order_relaxed) < s->handles_most)
    return add_to_table(r, fd);
  atomic_fetch_sub_explicit(&s->handle_count, 1, memory_order_relaxed);
  return -EMFILE;
}

int handle_fd(const struct request *r, uint64_t number) {
  const struct handle *h = find_handle(r, number);
  if (h) return !h->closing && h->resource == r->resource->number ? h->fd : -EBADF;
  uint64_t epoch = number >> (INDEX_BITS + SERIAL_BITS);
  return epoch && epoch != r->session->epoch ? -ESTALE : -EBADF;
}

int handle_flags(const struct request *r, uint64_t number) {
  const struct handle *h = find_handle(r, number);
  return h ? h->flags : 0;
}

void **handle_own(const struct request *r, uint64_t number) {
  struct handle *h = find_handle(r, number);
  return h && h->resource == r->resource->number ? &h->own : NULL;
}

static void close_if_unused(struct session *s, struct handle *h) {
  if (h->holds || !h->closing) return;
  close(h->fd);
  h->fd = -1;
  atomic_fetch_sub_explicit(&s->handle_count, 1, memory_order_relaxed);
}

void handle_hold(const struct request *r, uint64_t number) {
  struct handle *h = find_handle(r, number);
  if (h) h->holds++;
}

void handle_release(const struct request *r, uint64_t number) {
  struct handle *h = find_handle(r, number);
  if (!h || !h->holds) return;
  h->holds--;
  close_if_unused(r->session, h);
}

int handle_close(const struct request *r, uint64_t number) {
  int fd = handle_fd(r, number);
  if (fd < 0) return fd;
  struct handle *h = find_handle(r, number);
  h->closing = true;
  close_if_unused(r->session, h);
  return 0;
}
