/* SPDX-License-Identifier: Apache-2.0
 *
 * A figure: one thing measured against a reference in the same run, window by window in turn; or alone, against
 * a limit that holds for itself.
 */
#ifndef BENCH_FIGURE_H
#define BENCH_FIGURE_H

#include "window.h"

#define WINDOWS_MAX 64

/* What is compared: rates are better when larger, times when smaller. */
struct figure {
  const char *name;
  const char *unit; /* of the value as printed */
  double scale;     /* from a window's value (a second, or ns) to the unit */
  window_fn *run;
  void *what;
  const char *reference; /* NULL: none */
  window_fn *run_reference;
  void *reference_what;
  double
      reach; /* asked of the ratio, or without a reference of the value; 0 with `record`: nothing */
  bool record; /* for the record: nothing is asked */
  bool less_is_better;
  bool anywhere;  /* nothing hangs on the placement: no probes */
  double seconds; /* of a window */
};

struct outcome {
  enum placement placement; /* the one with the most good pairs of windows */
  int windows; /* pairs that count; 0: none was good, and the rest is of one that was not */
  double value, reference; /* medians, in the unit */
  double ratio, ratio_min, ratio_max;
  double fairness, fairness_reference;
  struct histogram *histogram, *reference_histogram; /* of the windows that count; NULL: none */
};

/* Measure with `windows` interleaved pairs. Only pairs of equal placement count. False: it cannot be done.
 * outcome_free frees what the outcome refers to. */
bool figure_measure(const struct figure *f, int windows, struct outcome *out);
void outcome_free(struct outcome *out);

#endif
