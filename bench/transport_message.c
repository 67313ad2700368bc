/* SPDX-License-Identifier: Apache-2.0
 *
 * Messaging libraries over their local transport: ZeroMQ PUSH/PULL and nng PUSH/PULL, both on ipc://.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport.h"

static void url_of(const struct channel *c, const char *what, char url[64]) {
  snprintf(url, 64, "ipc:///tmp/bench-%s-%d-%d", what, (int)(intptr_t)c->shared, c->number);
}

static int make_pair(struct channel *c) {
  c->shared = (void *)(intptr_t)getpid();
  return c->shape.producers == 1 && c->shape.consumers == 1 ? 0 : -1;
}

static void must(bool ok) {
  if (!ok) abort();
}

#ifdef BENCH_ZMQ
#include <zmq.h>

struct zmq_side {
  void *context, *socket;
};
static int zmq_attach(struct channel *c, bool producer) {
  char url[64];
  int depth = (int)c->shape.depth;
  struct zmq_side *s = calloc(1, sizeof *s);
  url_of(c, "zmq", url);
  s->context = zmq_ctx_new();
  s->socket = zmq_socket(s->context, producer ? ZMQ_PUSH : ZMQ_PULL);
  zmq_setsockopt(s->socket, ZMQ_SNDHWM, &depth, sizeof depth);
  zmq_setsockopt(s->socket, ZMQ_RCVHWM, &depth, sizeof depth);
  c->handle = s;
  return producer ? zmq_bind(s->socket, url) : zmq_connect(s->socket, url);
}
static void zmq_put(struct channel *c, const void *data, size_t n) {
  must(zmq_send(((struct zmq_side *)c->handle)->socket, data, n, 0) == (int)n);
}
static void zmq_get(struct channel *c, void *data, size_t n) {
  must(zmq_recv(((struct zmq_side *)c->handle)->socket, data, n, 0) == (int)n);
}
static void zmq_detach(struct channel *c) {
  struct zmq_side *s = c->handle;
  zmq_close(s->socket);
  zmq_ctx_term(s->context);
  free(s);
}
static void zmq_destroy(struct channel *c) {
  char url[64];
  url_of(c, "zmq", url);
  unlink(url + strlen("ipc://"));
}
const struct transport transport_zmq = {.name = "zmq",
                                        .make = make_pair,
                                        .attach = zmq_attach,
                                        .send = zmq_put,
                                        .receive = zmq_get,
                                        .detach = zmq_detach,
                                        .destroy = zmq_destroy};
#endif

#ifdef BENCH_NNG
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>

static int nng_attach(struct channel *c, bool producer) {
  char url[64];
  nng_socket socket;
  url_of(c, "nng", url);
  int rc = producer ? nng_push0_open(&socket) : nng_pull0_open(&socket);
  if (rc == 0) rc = producer ? nng_listen(socket, url, NULL, 0)
                             : nng_dial(socket, url, NULL, NNG_FLAG_NONBLOCK);
  c->handle = (void *)(uintptr_t)socket.id;
  return rc == 0 ? 0 : -1;
}
static nng_socket nng_of(const struct channel *c) {
  return (nng_socket){.id = (uint32_t)(uintptr_t)c->handle};
}
static void nng_put(struct channel *c, const void *data, size_t n) {
  must(nng_send(nng_of(c), (void *)(uintptr_t)data, n, 0) == 0);
}
static void nng_get(struct channel *c, void *data, size_t n) {
  must(nng_recv(nng_of(c), data, &n, 0) == 0);
}
static void nng_detach(struct channel *c) {
  usleep(20000); /* nng drops what it has not sent yet */
  nng_close(nng_of(c));
}
static void nng_destroy(struct channel *c) {
  char url[64];
  url_of(c, "nng", url);
  unlink(url + strlen("ipc://"));
}
const struct transport transport_nng = {.name = "nng",
                                        .make = make_pair,
                                        .attach = nng_attach,
                                        .send = nng_put,
                                        .receive = nng_get,
                                        .detach = nng_detach,
                                        .destroy = nng_destroy};
#endif
