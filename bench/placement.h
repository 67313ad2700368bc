/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the host has put our CPUs just now. On a virtual machine the host moves them every few hundred
 * milliseconds, and a cache-line round trip changes five-fold with it; a figure without its placement is
 * worth nothing.
 */
#ifndef BENCH_PLACEMENT_H
#define BENCH_PLACEMENT_H

enum placement { PLACEMENT_ADJACENT, PLACEMENT_NEAR, PLACEMENT_FAR, PLACEMENTS };

const char *placement_name(enum placement p);
enum placement placement_of(double round_trip_ns);

/* Pin the calling thread. */
void placement_pin(int cpu);

/* The two CPUs that pairs are pinned to: the first two that this process may use. */
void placement_cpus(int cpus[2]);

/* A raw cache-line round trip between the two CPUs, in ns: the median of some short bursts. */
double placement_probe(void);

#endif
