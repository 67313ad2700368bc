/* SPDX-License-Identifier: Apache-2.0
 *
 * A null call as a transport: the first channel is the request, the second the answer. Its sides send and receive in turn,
 * as every ping-pong does; the asker's send only says what is asked.
 */
#include <shmq/rpc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport.h"

enum { REQUEST, ANSWER };

/* One call at a time in a process. */
static shmq_client *client;
static shmq_service *service;
static shmq_incoming incoming;
static uint64_t asked;

static void must(int rc) {
  if (rc >= 0) return;
  fprintf(stderr, "bench: call: %s\n", shmq_strerror(rc));
  abort();
}

static void name_of(const struct channel *c, char name[48]) {
  snprintf(name, 48, "bench-call-%d", (int)(intptr_t)c->shared);
}

static int make(struct channel *c) {
  char name[48];
  if (c->shape.producers != 1 || c->shape.consumers != 1) return -1;
  c->shared = (void *)(intptr_t)getpid();
  if (c->number != REQUEST) return 0;
  name_of(c, name);
  (void)shmq_unlink(name);
  return shmq_service_create(name, &(shmq_service_options){.askers = 1});
}

static int attach(struct channel *c, bool producer) {
  char name[48];
  unsigned flags = c->shape.sleeping ? SHMQ_NOSPIN : SHMQ_SPIN;
  if (c->number != REQUEST) return 0;
  name_of(c, name);
  return producer ? shmq_client_open(&client, name, flags) : shmq_service_open(&service, name, flags);
}

static void send(struct channel *c, const void *data, size_t n) {
  uint64_t value[2] = {0};
  memcpy(value, data, n < sizeof *value ? n : sizeof *value);
  if (c->number == REQUEST)
    asked = value[0];
  else
    must(shmq_reply_value(&incoming, value, NULL, 0));
}

static void receive(struct channel *c, void *data, size_t n) {
  uint64_t value;
  if (c->number == REQUEST) {
    must(shmq_serve(service, &incoming, SHMQ_FOREVER));
    value = incoming.header.value[0];
  } else {
    shmq_result result;
    must(shmq_call(client, &(shmq_ask){.value = {asked, 0}}, &result, SHMQ_FOREVER));
    value = result.value[0];
  }
  memcpy(data, &value, n < sizeof value ? n : sizeof value);
}

static void detach(struct channel *c) {
  if (c->number != REQUEST) return;
  shmq_client_close(client);
  shmq_service_close(service);
  client = NULL;
  service = NULL;
}

static void destroy(struct channel *c) {
  char name[48];
  name_of(c, name);
  if (c->number == REQUEST) (void)shmq_unlink(name);
}

const struct transport transport_call = {.name = "call",
                                         .make = make,
                                         .attach = attach,
                                         .send = send,
                                         .receive = receive,
                                         .detach = detach,
                                         .destroy = destroy};
