/* SPDX-License-Identifier: Apache-2.0
 *
 * One short measurement with a raw probe before and after. Windows during which the placement changed or a
 * spinning side was kept off its CPU are marked, and the caller drops them.
 */
#ifndef BENCH_WINDOW_H
#define BENCH_WINDOW_H

#include "histogram.h"
#include "placement.h"

double window_now(void); /* seconds */

struct window {
  bool ok; /* placement the same before and after, no side kept off its CPU */
  enum placement placement;
  double probe_ns;
  double value; /* messages a second, or ns */
  double
      fairness; /* of many to many: slowest to fastest producer or consumer, whichever is worse */
  struct histogram *histogram; /* of single times, from malloc; NULL: none was kept */
};

/* What is measured in a window of about so many seconds: fills in value and what else it knows, and leaves ok
 * alone unless the window is no good. False: it cannot be done at all. */
typedef bool window_fn(void *what, double seconds, struct window *out);

/* Run it between two probes; or without, where nothing hangs on the placement. */
bool window_probed(window_fn *run, void *what, double seconds, struct window *out);
bool window_unprobed(window_fn *run, void *what, double seconds, struct window *out);

#endif
