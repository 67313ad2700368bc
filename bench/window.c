/* SPDX-License-Identifier: Apache-2.0 */
#include "window.h"

#include <time.h>

double window_now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

bool window_probed(window_fn *run, void *what, double seconds, struct window *out) {
  double before = placement_probe();
  *out = (struct window){.ok = true, .placement = placement_of(before), .probe_ns = before};
  if (!run(what, seconds, out)) return false;
  out->ok = placement_same(before, placement_probe()) && out->ok;
  return true;
}

bool window_unprobed(window_fn *run, void *what, double seconds, struct window *out) {
  *out = (struct window){.ok = true, .placement = PLACEMENT_ANY};
  return run(what, seconds, out);
}
