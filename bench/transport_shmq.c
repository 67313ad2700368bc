/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq itself: the many-to-many queue, the single-producer/single-consumer one, and messages in place.
 */
#include <shmq/shmq.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport.h"

#define CELL_MAX 4096u /* longer messages go in blocks */
#define BATCH_MAX 64

static void name_of(const struct channel *c, char name[48]) {
  snprintf(name, 48, "bench-%d-%d", (int)(intptr_t)c->shared, c->number);
}

static int make(struct channel *c, uint32_t flags) {
  char name[48];
  bool in_block = c->shape.bytes > CELL_MAX;
  c->shared = (void *)(intptr_t)getpid();
  name_of(c, name);
  shmq_queue_options queue = {.capacity = c->shape.depth,
                              .message_bytes = in_block ? 16 : (uint32_t)c->shape.bytes,
                              .flags = flags};
  shmq_options options = {.queues = &queue,
                          .queue_count = 1,
                          .blocks = in_block ? c->shape.depth : 0,
                          .block_bytes = in_block ? (uint32_t)c->shape.bytes : 0};
  (void)shmq_unlink(name);
  int rc = shmq_create(name, &options);
  if (rc < 0) fprintf(stderr, "bench: shmq: %s\n", shmq_strerror(rc));
  return rc;
}

static int make_many(struct channel *c) { return make(c, 0); }
static int make_single(struct channel *c) {
  return make(c, SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER);
}

static int open_with(struct channel *c, unsigned flags) {
  char name[48];
  shmq *queue;
  name_of(c, name);
  int rc = shmq_open(&queue, name, flags);
  c->handle = queue;
  return rc;
}

static int attach(struct channel *c, bool producer) {
  (void)producer;
  return open_with(c, c->shape.sleeping ? SHMQ_NOSPIN : SHMQ_SPIN);
}

static int attach_default(struct channel *c, bool producer) {
  (void)producer;
  return open_with(c, 0);
}

static void must(long rc) {
  if (rc >= 0) return;
  fprintf(stderr, "bench: shmq: %s\n", shmq_strerror((int)rc));
  abort();
}

static void put(struct channel *c, const void *data, size_t n) {
  must(shmq_put(c->handle, data, n, SHMQ_FOREVER));
}

static void get(struct channel *c, void *data, size_t n) {
  must(shmq_get(c->handle, data, n, SHMQ_FOREVER));
}

static int put_batch(struct channel *c, const void *data, size_t n, int count) {
  struct iovec iov[BATCH_MAX];
  if (count > BATCH_MAX) count = BATCH_MAX;
  for (int i = 0; i < count; i++)
    iov[i] = (struct iovec){.iov_base = (char *)(uintptr_t)data + (size_t)i * n, .iov_len = n};
  int rc = shmq_put_batch(c->handle, iov, count, SHMQ_FOREVER);
  must(rc);
  return rc;
}

static int get_batch(struct channel *c, void *data, size_t n, int count) {
  struct iovec iov[BATCH_MAX];
  if (count > BATCH_MAX) count = BATCH_MAX;
  for (int i = 0; i < count; i++)
    iov[i] = (struct iovec){.iov_base = (char *)data + (size_t)i * n, .iov_len = n};
  int rc = shmq_get_batch(c->handle, iov, count, SHMQ_FOREVER);
  must(rc);
  return rc;
}

/* In place: only the first line is touched, as a stage does that hands a picture on. */
static void reserve_commit(struct channel *c, const void *data, size_t n) {
  shmq_message message;
  must(shmq_reserve(c->handle, n, &message, SHMQ_FOREVER));
  memcpy(message.data, data, n < 64 ? n : 64);
  must(shmq_commit(c->handle, &message));
}

static void lease_ack(struct channel *c, void *data, size_t n) {
  shmq_message message;
  must(shmq_lease(c->handle, &message, SHMQ_FOREVER));
  memcpy(data, message.data, n < 64 ? n : 64);
  must(shmq_ack(c->handle, &message));
}

static void detach(struct channel *c) { shmq_close(c->handle); }

static void destroy(struct channel *c) {
  char name[48];
  name_of(c, name);
  (void)shmq_unlink(name);
}

const struct transport transport_shmq = {
    .name = "shmq",
    .make = make_many,
    .attach = attach,
    .send = put,
    .receive = get,
    .send_batch = put_batch,
    .receive_batch = get_batch,
    .detach = detach,
    .destroy = destroy};
const struct transport transport_shmq_single = {
    .name = "shmq-single",
    .make = make_single,
    .attach = attach,
    .send = put,
    .receive = get,
    .send_batch = put_batch,
    .receive_batch = get_batch,
    .detach = detach,
    .destroy = destroy};
const struct transport transport_shmq_default = {
    .name = "shmq-default",
    .make = make_many,
    .attach = attach_default,
    .send = put,
    .receive = get,
    .send_batch = put_batch,
    .receive_batch = get_batch,
    .detach = detach,
    .destroy = destroy};
const struct transport transport_shmq_in_place = {
    .name = "shmq-in-place",
    .make = make_many,
    .attach = attach,
    .send = reserve_commit,
    .receive = lease_ack,
    .detach = detach,
    .destroy = destroy};
