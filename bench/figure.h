/* SPDX-License-Identifier: Apache-2.0
 *
 * A figure: one thing measured against a reference in the same run, window by window in turn.
 */
#ifndef BENCH_FIGURE_H
#define BENCH_FIGURE_H

#include "window.h"

#define WINDOWS_MAX 64

/* What is compared: rates are better when larger, times when smaller. */
struct figure {
  const char *name;
  const char *unit; /* of the value as printed */
  double scale;     /* from messages a second, or ns, to the unit */
  struct job job;
  const char *reference; /* a transport's name; NULL: none */
  struct job reference_job;
  double reach;       /* the ratio that is asked for; 0: none */
  bool less_is_better;
};

struct outcome {
  bool possible;
  enum placement placement; /* the one with the most good pairs of windows */
  int windows;
  double value, reference; /* medians */
  double ratio, ratio_min, ratio_max;
  double fairness;
  bool met;
};

/* Measure a figure with `pairs` interleaved pairs of windows. Only pairs of equal placement count. */
void figure_measure(const struct figure *f, int pairs, struct outcome *out);

#endif
