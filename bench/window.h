/* SPDX-License-Identifier: Apache-2.0
 *
 * One short measurement with a raw probe before and after. Windows during which the placement changed or a
 * spinning side was kept off its CPU are marked, and the caller drops them.
 */
#ifndef BENCH_WINDOW_H
#define BENCH_WINDOW_H

#include "placement.h"
#include "transport.h"

double window_now(void); /* seconds */

enum workload { WORKLOAD_STREAM, WORKLOAD_PING_PONG };

struct job {
  const struct transport *transport;
  struct shape shape;
  enum workload workload;
  int batch;      /* messages a call, 1: one */
  double seconds; /* about how long */
};

struct window {
  bool ok;         /* placement the same before and after, no side kept off its CPU */
  enum placement placement;
  double value;    /* messages a second, or ns a round trip */
  double fairness; /* slowest to fastest producer or consumer, many-to-many only */
  long robbed_ns; /* that the sides stood ready without a CPU */
};

/* Run one window. False: the transport cannot do it. */
bool window_run(const struct job *job, struct window *out);

#endif
