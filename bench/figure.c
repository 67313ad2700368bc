/* SPDX-License-Identifier: Apache-2.0 */
#include "figure.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct pair {
  struct window value, reference;
  double ratio;
};

static int by_ratio(const void *a, const void *b) {
  double x = ((const struct pair *)a)->ratio, y = ((const struct pair *)b)->ratio;
  return (x > y) - (x < y);
}

static int by_double(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(const struct pair *pairs, int n, size_t field) {
  double values[WINDOWS_MAX];
  for (int i = 0; i < n; i++) memcpy(&values[i], (const char *)&pairs[i] + field, sizeof(double));
  qsort(values, (size_t)n, sizeof *values, by_double);
  return values[n / 2];
}

static void pair_free(struct pair *pair) {
  free(pair->value.histogram);
  free(pair->reference.histogram);
}

/* Keep the pairs of the placement that has the most. */
static int keep_most_frequent(struct pair *pairs, int n, enum placement *kept) {
  int count[PLACEMENTS] = {0}, best = 0, out = 0;
  for (int i = 0; i < n; i++) count[pairs[i].value.placement]++;
  for (int p = 1; p < PLACEMENTS; p++)
    if (count[p] > count[best]) best = p;
  for (int i = 0; i < n; i++)
    if ((int)pairs[i].value.placement == best)
      pairs[out++] = pairs[i];
    else
      pair_free(&pairs[i]);
  *kept = (enum placement)best;
  return out;
}

static bool measure_one(const struct figure *f, bool reference, struct pair *pair) {
  window_fn *run = reference ? f->run_reference : f->run;
  void *what = reference ? f->reference_what : f->what;
  struct window *window = reference ? &pair->reference : &pair->value;
  return (f->anywhere ? window_unprobed : window_probed)(run, what, f->seconds, window);
}

/* One window of each, in this order or the other. Returns 1: a good pair, 0: not a good one, -1: it cannot be
 * done. */
static int measure_pair(const struct figure *f, bool reference_first, struct pair *pair) {
  *pair = (struct pair){0};
  for (int i = 0; i < (f->reference ? 2 : 1); i++)
    if (!measure_one(f, f->reference && reference_first != (i == 1), pair)) return -1;
  if (!f->reference) return pair->value.ok;
  pair->ratio = pair->value.value / pair->reference.value;
  bool same = f->anywhere || placement_same(pair->value.probe_ns, pair->reference.probe_ns);
  return pair->value.ok && pair->reference.ok && same;
}

static struct histogram *merged(const struct pair *pairs, int n, size_t field) {
  struct histogram *sum = NULL;
  for (int i = 0; i < n; i++) {
    struct histogram *one;
    memcpy(&one, (const char *)&pairs[i] + field, sizeof one);
    if (!one) continue;
    if (!sum) sum = calloc(1, sizeof *sum);
    if (sum) histogram_merge(sum, one);
  }
  return sum;
}

static void sum_up(const struct figure *f, struct pair *pairs, int n, struct outcome *out) {
  qsort(pairs, (size_t)n, sizeof *pairs, by_ratio);
  out->windows = n;
  out->value = median(pairs, n, offsetof(struct pair, value.value)) * f->scale;
  out->reference = median(pairs, n, offsetof(struct pair, reference.value)) * f->scale;
  out->ratio = pairs[n / 2].ratio;
  out->ratio_min = pairs[0].ratio;
  out->ratio_max = pairs[n - 1].ratio;
  out->fairness = median(pairs, n, offsetof(struct pair, value.fairness));
  out->fairness_reference = median(pairs, n, offsetof(struct pair, reference.fairness));
  out->histogram = merged(pairs, n, offsetof(struct pair, value.histogram));
  out->reference_histogram = merged(pairs, n, offsetof(struct pair, reference.histogram));
}

/* The host may keep moving us: try twice as often as windows are wanted. Returns how many are good; the last one
 * that was not stands behind them, if *possible. */
static int measure_pairs(const struct figure *f, int wanted, struct pair *pairs, bool *possible) {
  int n = 0;
  *possible = true;
  for (int tries = 0; *possible && n < wanted && tries < 2 * wanted; tries++) {
    pair_free(&pairs[n]);
    int good = measure_pair(f, tries % 2 == 1, &pairs[n]);
    if (good > 0) n++;
    *possible = good >= 0;
  }
  return n;
}

bool figure_measure(const struct figure *f, int wanted, struct outcome *out) {
  struct pair pairs[WINDOWS_MAX + 1] = {0};
  bool possible;
  *out = (struct outcome){0};
  if (wanted > WINDOWS_MAX) wanted = WINDOWS_MAX;
  int n = measure_pairs(f, wanted, pairs, &possible);
  pair_free(&pairs[n ? n : WINDOWS_MAX]);
  if (n > 0) n = keep_most_frequent(pairs, n, &out->placement);
  if (n > 0) sum_up(f, pairs, n, out);
  if (n == 0 && possible) {
    sum_up(f, pairs, 1, out);
    out->placement = PLACEMENT_MIXED;
    out->windows = 0;
  }
  for (int i = 0; i < (n ? n : 1); i++) pair_free(&pairs[i]);
  return possible && out->value > 0;
}

void outcome_free(struct outcome *out) {
  free(out->histogram);
  free(out->reference_histogram);
}
