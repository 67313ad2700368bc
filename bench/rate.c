/* SPDX-License-Identifier: Apache-2.0
 *
 * Latency at a fixed rate. Messages are due at times that are fixed beforehand, and a message carries the time at
 * which it was due: a sender that was held up is late with all that follow, and that counts.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "life.h"
#include "sides.h"
#include "transport.h"

enum { RATE = 20000, BYTES = 64 };

struct shared {
  struct gate gate;
  struct histogram histogram;
};

struct flow {
  const struct transport *transport;
  bool sleeping;
  struct channel channel;
  struct shared *shared;
  long messages;
};

static void send_all(const struct flow *f, struct channel *c) {
  unsigned char data[BYTES] = {0};
  double start = window_now() + 0.001;
  for (long i = 0; i < f->messages; i++) {
    double due = start + (double)i / RATE;
    while (window_now() < due) {}
    memcpy(data, &due, sizeof due);
    c->transport->send(c, data, sizeof data);
  }
}

static void receive_all(const struct flow *f, struct channel *c) {
  unsigned char data[BYTES];
  for (long i = 0; i < f->messages; i++) {
    double due;
    c->transport->receive(c, data, sizeof data);
    memcpy(&due, data, sizeof due);
    double late = window_now() - due;
    histogram_add(&f->shared->histogram, late > 0 ? (uint64_t)(late * 1e9) : 0);
  }
}

static void run_side(void *context, int number) {
  const struct flow *f = context;
  struct channel c = f->channel;
  placement_pin(placement_cpu(number));
  if (c.transport->attach && c.transport->attach(&c, number == 0) < 0) abort();
  gate_pass(&f->shared->gate);
  (number == 0 ? send_all : receive_all)(f, &c);
  if (c.transport->detach) c.transport->detach(&c);
}

/* ns at the 99th percentile. */
static bool rate_window(void *what, double seconds, struct window *out) {
  struct flow *f = what;
  f->messages = (long)(RATE * seconds);
  f->shared = shared_memory(sizeof *f->shared);
  f->channel = (struct channel){
      .transport = f->transport,
      .shape = {
          .bytes = BYTES, .depth = 4096, .producers = 1, .consumers = 1, .sleeping = f->sleeping}};
  if (!f->shared || f->transport->make(&f->channel) != 0) return false;
  bool ok = sides_run(&f->shared->gate, 2, false, run_side, f);
  if (f->transport->destroy) f->transport->destroy(&f->channel);
  out->histogram = malloc(sizeof *out->histogram);
  if (out->histogram) *out->histogram = f->shared->histogram;
  out->value = histogram_percentile(&f->shared->histogram, 99);
  shared_memory_free(f->shared, sizeof *f->shared);
  return ok && out->histogram;
}

static void measure(struct suite *s, const char *name, struct flow flow, struct flow reference) {
  suite_measure(s, &(struct figure){.name = name,
                                    .unit = "us",
                                    .scale = 1e-3,
                                    .run = rate_window,
                                    .what = &flow,
                                    .reference = reference.transport->name,
                                    .run_reference = rate_window,
                                    .reference_what = &reference,
                                    .reach = 1,
                                    .less_is_better = true,
                                    .seconds = 2 * s->seconds});
}

void figures_rate(struct suite *s) {
  struct flow pipe = {.transport = &transport_pipe, .sleeping = true},
              eventfd = {.transport = &transport_eventfd, .sleeping = true};
  measure(s, "p99 at 20,000 a second, spinning", (struct flow){.transport = &transport_shmq}, pipe);
  measure(s, "p99 at 20,000 a second, the default call",
          (struct flow){.transport = &transport_shmq_default}, pipe);
  measure(s, "p99 at 20,000 a second, sleeping",
          (struct flow){.transport = &transport_shmq, .sleeping = true}, pipe);
  measure(s, "p99 at 20,000 a second, sleeping, against eventfd",
          (struct flow){.transport = &transport_shmq, .sleeping = true}, eventfd);
}
