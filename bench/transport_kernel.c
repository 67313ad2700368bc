/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel offers: pipe, Unix socket, POSIX message queue, and a shared ring with eventfds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport.h"

static void must(bool ok) {
  if (ok) return;
  perror("bench");
  abort();
}

static void close_both(struct channel *c) {
  close(c->fds[0]);
  close(c->fds[1]);
}

/* ---- pipe: whole messages, up to PIPE_BUF of many writers ---- */

static int pipe_make(struct channel *c) {
  if (c->shape.bytes > 4096 && c->shape.producers > 1) return -1;
  if (pipe2(c->fds, O_CLOEXEC) < 0) return -1;
  (void)fcntl(c->fds[1], F_SETPIPE_SZ, 1 << 20);
  return 0;
}

static void pipe_send(struct channel *c, const void *data, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t w = write(c->fds[1], (const char *)data + done, n - done);
    must(w > 0);
    done += (size_t)w;
  }
}

static void pipe_receive(struct channel *c, void *data, size_t n) {
  for (size_t done = 0; done < n;) {
    ssize_t r = read(c->fds[0], (char *)data + done, n - done);
    must(r > 0);
    done += (size_t)r;
  }
}

const struct transport transport_pipe = {.name = "pipe",
                                         .make = pipe_make,
                                         .send = pipe_send,
                                         .receive = pipe_receive,
                                         .destroy = close_both};

/* ---- Unix socket, SOCK_SEQPACKET ---- */

static int unix_make(struct channel *c) {
  int bytes = 4 << 20;
  if (c->shape.bytes > 65536) return -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, c->fds) < 0) return -1;
  (void)setsockopt(c->fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return 0;
}
static void unix_send(struct channel *c, const void *data, size_t n) {
  must(send(c->fds[1], data, n, 0) == (ssize_t)n);
}
static void unix_receive(struct channel *c, void *data, size_t n) {
  must(recv(c->fds[0], data, n, 0) == (ssize_t)n);
}

const struct transport transport_unix = {.name = "unix",
                                         .make = unix_make,
                                         .send = unix_send,
                                         .receive = unix_receive,
                                         .destroy = close_both};

/* ---- POSIX message queue ---- */

static void mq_name(const struct channel *c, char name[48]) {
  snprintf(name, 48, "/bench-%d-%d", (int)(intptr_t)c->shared, c->number);
}

static int mq_make(struct channel *c) {
  char name[48];
  struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = (long)c->shape.bytes};
  if (c->shape.bytes > 8192) return -1;
  c->shared = (void *)(intptr_t)getpid();
  mq_name(c, name);
  (void)mq_unlink(name);
  mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
  if (q == (mqd_t)-1) return -1;
  (void)mq_close(q);
  return 0;
}
static int mq_attach(struct channel *c, bool producer) {
  char name[48];
  (void)producer;
  mq_name(c, name);
  mqd_t q = mq_open(name, O_RDWR);
  c->handle = (void *)(intptr_t)q;
  return q == (mqd_t)-1 ? -1 : 0;
}
static void mq_put(struct channel *c, const void *data, size_t n) {
  must(mq_send((mqd_t)(intptr_t)c->handle, data, n, 0) == 0);
}
static void mq_get(struct channel *c, void *data, size_t n) {
  must(mq_receive((mqd_t)(intptr_t)c->handle, data, n, NULL) == (ssize_t)n);
}
static void mq_destroy(struct channel *c) {
  char name[48];
  mq_name(c, name);
  (void)mq_unlink(name);
}

const struct transport transport_mq = {.name = "mq",
                                       .make = mq_make,
                                       .attach = mq_attach,
                                       .send = mq_put,
                                       .receive = mq_get,
                                       .destroy = mq_destroy};

/* ---- a one-to-one ring in shared memory with an eventfd each way ---- */

struct event_ring {
  _Atomic uint64_t tail;
  char pad0[120];
  _Atomic uint64_t head;
  char pad1[120];
  unsigned char cells[];
};

static int eventfd_make(struct channel *c) {
  if (c->shape.producers != 1 || c->shape.consumers != 1) return -1;
  c->shared_bytes = sizeof(struct event_ring) + c->shape.bytes * c->shape.depth;
  c->shared = mmap(NULL, c->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  c->fds[0] = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
  c->fds[1] = eventfd(c->shape.depth, EFD_CLOEXEC | EFD_SEMAPHORE);
  return c->shared == MAP_FAILED ? -1 : 0;
}
static void eventfd_send(struct channel *c, const void *data, size_t n) {
  struct event_ring *r = c->shared;
  uint64_t one = 1, room;
  must(read(c->fds[1], &room, sizeof room) == sizeof room);
  uint64_t at = atomic_load_explicit(&r->tail, memory_order_relaxed);
  memcpy(r->cells + at % c->shape.depth * n, data, n);
  atomic_store_explicit(&r->tail, at + 1, memory_order_release);
  must(write(c->fds[0], &one, sizeof one) == sizeof one);
}
static void eventfd_receive(struct channel *c, void *data, size_t n) {
  struct event_ring *r = c->shared;
  uint64_t one = 1, there;
  must(read(c->fds[0], &there, sizeof there) == sizeof there);
  uint64_t at = atomic_load_explicit(&r->head, memory_order_relaxed);
  memcpy(data, r->cells + at % c->shape.depth * n, n);
  atomic_store_explicit(&r->head, at + 1, memory_order_release);
  must(write(c->fds[1], &one, sizeof one) == sizeof one);
}
static void eventfd_destroy(struct channel *c) {
  munmap(c->shared, c->shared_bytes);
  close_both(c);
}

const struct transport transport_eventfd = {.name = "eventfd",
                                            .make = eventfd_make,
                                            .send = eventfd_send,
                                            .receive = eventfd_receive,
                                            .destroy = eventfd_destroy};
