/* SPDX-License-Identifier: Apache-2.0 */
#include "histogram.h"

/* Below 64 ns a bucket is one ns; above, the six bits behind the leading one choose the bucket. */
static unsigned bucket_of(uint64_t ns) {
  if (ns < HISTOGRAM_SUB) return (unsigned)ns;
  unsigned octave = 63u - (unsigned)__builtin_clzll(ns);
  unsigned shift = octave - 6;
  unsigned bucket = (shift + 1) * HISTOGRAM_SUB + (unsigned)((ns >> shift) & (HISTOGRAM_SUB - 1));
  return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The middle of a bucket. */
static double time_of(unsigned bucket) {
  if (bucket < HISTOGRAM_SUB) return bucket;
  unsigned shift = bucket / HISTOGRAM_SUB - 1;
  uint64_t low = (uint64_t)(HISTOGRAM_SUB + bucket % HISTOGRAM_SUB) << shift;
  return (double)low + (double)((UINT64_C(1) << shift) - 1) / 2;
}

void histogram_add(struct histogram *h, uint64_t ns) {
  h->samples++;
  h->count[bucket_of(ns)]++;
  if (ns > h->most) h->most = ns;
}

void histogram_merge(struct histogram *into, const struct histogram *from) {
  into->samples += from->samples;
  if (from->most > into->most) into->most = from->most;
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) into->count[i] += from->count[i];
}

double histogram_percentile(const struct histogram *h, double percent) {
  double wanted = percent / 100 * (double)h->samples;
  uint64_t below = 0;
  if (percent >= 100) return (double)h->most;
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
    below += h->count[i];
    if (h->count[i] && (double)below >= wanted)
      return time_of(i) < (double)h->most ? time_of(i) : (double)h->most;
  }
  return 0;
}
