/* SPDX-License-Identifier: Apache-2.0
 *
 * Windows in which messages are exchanged over a transport: a stream, or ping and pong.
 */
#ifndef BENCH_EXCHANGE_H
#define BENCH_EXCHANGE_H

#include "transport.h"
#include "window.h"

enum workload { WORKLOAD_STREAM, WORKLOAD_PING_PONG };

struct exchange {
  const struct transport *transport;
  struct shape shape;
  enum workload workload;
  int batch;  /* messages a call, 1: one */
  long count; /* messages of the next window; 0 at first: found by trial */
};

/* A window_fn on a struct exchange: messages a second, or ns a round trip. */
bool exchange_window(void *exchange, double seconds, struct window *out);

#endif
