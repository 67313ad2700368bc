/* SPDX-License-Identifier: Apache-2.0
 *
 * A histogram of times: 64 buckets an octave, so a percentile is exact to 1.6 %. Histograms add up, which
 * percentiles do not.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_SUB = 64, HISTOGRAM_BUCKETS = 36 * HISTOGRAM_SUB };

struct histogram {
  uint64_t samples;
  uint64_t most; /* ns, exact */
  uint32_t count[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t ns);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The time that `percent` of the samples do not exceed, in ns. */
double histogram_percentile(const struct histogram *h, double percent);

#endif
