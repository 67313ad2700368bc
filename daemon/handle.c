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

enum { INDEX_BITS = 16, SERIAL_BITS = 24, EPOCH_BITS = 22, GENERATION_BITS = 16 };

struct handle {
  int fd; /* -1: free */
  uint16_t resource;
  bool closing;
  bool direct;
  uint32_t serial;
  uint32_t holds;
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
  s->epoch = epoch_of(s);
  uint32_t count = (uint32_t)section_number(s->shard->daemon->settings, "handles");
  s->handles = calloc(count, sizeof *s->handles);
  if (!s->handles) return -ENOMEM;
  s->handle_count = count;
  for (uint32_t i = 0; i < count; i++) s->handles[i].fd = -1;
  return 0;
}

void handles_close(struct session *s) {
  for (uint32_t i = 0; i < s->handle_count; i++)
    if (s->handles[i].fd >= 0) close(s->handles[i].fd);
  free(s->handles);
}

static struct handle *find_handle(const struct session *s, uint64_t number) {
  uint32_t i = low_bits(number, INDEX_BITS) - 1;
  if (i >= s->handle_count || number >> (INDEX_BITS + SERIAL_BITS) != s->epoch) return NULL;
  struct handle *h = &s->handles[i];
  return h->fd >= 0 && h->serial == low_bits(number >> INDEX_BITS, SERIAL_BITS) ? h : NULL;
}

int64_t handle_add(const struct request *r, int fd) {
  const struct session *s = r->session;
  for (uint32_t i = 0; i < s->handle_count; i++) {
    struct handle *h = &s->handles[i];
    if (h->fd >= 0) continue;
    *h = (struct handle){.fd = fd,
                         .resource = r->resource->number,
                         .direct = fcntl(fd, F_GETFL) & O_DIRECT,
                         .serial = low_bits(h->serial + UINT64_C(1), SERIAL_BITS)};
    return (int64_t)((uint64_t)s->epoch << (INDEX_BITS + SERIAL_BITS) |
                     (uint64_t)h->serial << INDEX_BITS | (i + 1));
  }
  return -EMFILE;
}

int handle_fd(const struct request *r, uint64_t number) {
  const struct handle *h = find_handle(r->session, number);
  if (h) return !h->closing && h->resource == r->resource->number ? h->fd : -EBADF;
  uint64_t epoch = number >> (INDEX_BITS + SERIAL_BITS);
  return epoch && epoch != r->session->epoch ? -ESTALE : -EBADF;
}

bool handle_direct(const struct request *r, uint64_t number) {
  const struct handle *h = find_handle(r->session, number);
  return h && h->direct;
}

static void close_if_unused(struct handle *h) {
  if (h->holds || !h->closing) return;
  close(h->fd);
  h->fd = -1;
}

void handle_hold(const struct request *r, uint64_t number) {
  struct handle *h = find_handle(r->session, number);
  if (h) h->holds++;
}

void handle_release(const struct request *r, uint64_t number) {
  struct handle *h = find_handle(r->session, number);
  if (!h || !h->holds) return;
  h->holds--;
  close_if_unused(h);
}

int handle_close(const struct request *r, uint64_t number) {
  int fd = handle_fd(r, number);
  if (fd < 0) return fd;
  struct handle *h = find_handle(r->session, number);
  h->closing = true;
  close_if_unused(h);
  return 0;
}
