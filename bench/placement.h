/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the host has put our CPUs just now. On a virtual machine the host moves them every few hundred
 * milliseconds, and a cache-line round trip changes five-fold with it; a figure without its placement is
 * worth nothing.
 */
#ifndef BENCH_PLACEMENT_H
#define BENCH_PLACEMENT_H

#include <stdbool.h>

/* ANY: not probed, because nothing in the window hangs on it, or because there is only one CPU. MIXED: it changed
 * meanwhile. */
enum placement {
  PLACEMENT_ADJACENT,
  PLACEMENT_NEAR,
  PLACEMENT_FAR,
  PLACEMENT_ANY,
  PLACEMENT_MIXED,
  PLACEMENTS
};

const char *placement_name(enum placement p);
enum placement placement_of(double round_trip_ns);

/* The CPUs that sides are pinned to, one after the other. Unless it is called, all that this process may use.
 * To be called before anything is pinned. */
void placement_use(const int *cpus, int count);
int placement_count(void);

/* Side `number` is pinned here; from the first CPU again when there are more sides. */
int placement_cpu(int number);

/* Pin the calling thread; or let it run on all of them. */
void placement_pin(int cpu);
void placement_unpin(void);

/* A raw cache-line round trip between the first two CPUs, in ns: the median of some short bursts. 0: there
 * is only one CPU. */
double placement_probe(void);

/* Are two probes of the same place? Those of one class may still differ two-fold. */
bool placement_same(double probe, double other);

#endif
