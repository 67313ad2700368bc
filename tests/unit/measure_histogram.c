/* SPDX-License-Identifier: Apache-2.0
 *
 * The histogram that percentiles of bench/ come from: to 1.6 %, over all magnitudes, and merged as if it were one.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "histogram.h"

static struct histogram h, other;

static void forget(void) { h = other = (struct histogram){0}; }
TestSuite(measure_histogram, .init = forget);

static void expect(double percent, double ns) {
  double have = histogram_percentile(&h, percent);
  cr_assert(fabs(have - ns) <= ns * 0.016, "p%g is %g instead of %g", percent, have, ns);
}

Test(measure_histogram, a_percentile_is_within_a_bucket_at_every_magnitude)
{
  for (uint64_t ns = 1; ns < UINT64_C(1) << 35; ns = ns * 5 / 4 + 1) {
    forget();
    histogram_add(&h, ns);
    histogram_add(&h, ns * 2);
    expect(50, (double)ns);
    expect(100, (double)(ns * 2));
  }
}

Test(measure_histogram, percentiles_of_a_known_row)
{
  for (uint64_t ns = 1; ns <= 100000; ns++) histogram_add(&h, ns);
  cr_assert_eq(h.samples, 100000);
  expect(1, 1000);
  expect(50, 50000);
  expect(99, 99000);
  expect(99.9, 99900);
  cr_assert_eq(histogram_percentile(&h, 100), 100000);
}

Test(measure_histogram, no_percentile_exceeds_the_longest)
{
  histogram_add(&h, 1000001);
  cr_assert_leq(histogram_percentile(&h, 99), 1000001);
}

Test(measure_histogram, merging_is_adding)
{
  struct histogram all = {0};
  for (uint64_t ns = 1; ns <= 5000; ns++) {
    histogram_add(ns % 3 ? &h : &other, ns * 7);
    histogram_add(&all, ns * 7);
  }
  histogram_merge(&h, &other);
  for (double percent = 1; percent <= 100; percent += 0.5)
    cr_assert_eq(histogram_percentile(&h, percent), histogram_percentile(&all, percent));
}

Test(measure_histogram, what_is_too_long_counts_in_the_last_bucket)
{
  histogram_add(&h, UINT64_MAX);
  cr_assert_eq(h.samples, 1);
  cr_assert_eq(h.count[HISTOGRAM_BUCKETS - 1], 1);
}
