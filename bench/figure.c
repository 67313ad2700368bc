/* SPDX-License-Identifier: Apache-2.0 */
#include "figure.h"

#include <stdlib.h>
#include <string.h>

struct pair {
  enum placement placement;
  double value, reference, ratio, fairness;
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

/* Keep the pairs of the placement that has the most. */
static int keep_most_frequent(struct pair *pairs, int n, enum placement *kept) {
  int count[PLACEMENTS] = {0}, best = 0, out = 0;
  for (int i = 0; i < n; i++) count[pairs[i].placement]++;
  for (int p = 1; p < PLACEMENTS; p++)
    if (count[p] > count[best]) best = p;
  for (int i = 0; i < n; i++)
    if ((int)pairs[i].placement == best) pairs[out++] = pairs[i];
  *kept = (enum placement)best;
  return out;
}

/* One good window of each job, of one placement. */
static bool measure_pair(const struct figure *f, struct pair *pair) {
  struct window value, reference = {0};
  if (!window_run(&f->job, &value)) return false;
  if (f->reference && !window_run(&f->reference_job, &reference)) return false;
  bool ok = value.ok && (!f->reference || (reference.ok && reference.placement == value.placement));
  *pair = (struct pair){.placement = value.placement,
                        .value = value.value,
                        .reference = reference.value,
                        .ratio = f->reference ? value.value / reference.value : 0,
                        .fairness = value.fairness};
  return ok;
}

void figure_measure(const struct figure *f, int wanted, struct outcome *out) {
  struct pair pairs[WINDOWS_MAX];
  int n = 0;
  *out = (struct outcome){0};
  if (wanted > WINDOWS_MAX) wanted = WINDOWS_MAX;
  /* The host may keep moving us: try three times as often as windows are wanted. */
  for (int tries = 0; n < wanted && tries < 3 * wanted; tries++)
    n += measure_pair(f, &pairs[n]);
  if (n == 0) return;
  n = keep_most_frequent(pairs, n, &out->placement);
  qsort(pairs, (size_t)n, sizeof *pairs, by_ratio);
  out->possible = true;
  out->windows = n;
  out->value = median(pairs, n, offsetof(struct pair, value)) * f->scale;
  out->reference = median(pairs, n, offsetof(struct pair, reference)) * f->scale;
  out->ratio = pairs[n / 2].ratio;
  out->ratio_min = pairs[0].ratio;
  out->ratio_max = pairs[n - 1].ratio;
  out->fairness = median(pairs, n, offsetof(struct pair, fairness));
  out->met = f->reach == 0 || (f->less_is_better ? out->ratio <= f->reach : out->ratio >= f->reach);
}
