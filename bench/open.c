/* SPDX-License-Identifier: Apache-2.0
 *
 * What it costs to come and to go: opening an existing queue, creating one, recovering from a death.
 */
#define _GNU_SOURCE
#include <shmq/shmq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "life.h"

/* A queue of 1 MiB. */
static const shmq_queue_options queue = {.capacity = 16384, .message_bytes = 48};
static const shmq_options options = {.queues = &queue, .queue_count = 1};

struct named {
  char name[48];
};

static void name_it(struct named *n) {
  snprintf(n->name, sizeof n->name, "bench-open-%d", (int)getpid());
}

/* Medians, because a few are hit by an interrupt. */
static bool timed(bool (*once)(const struct named *, double *took), struct named *n, double seconds,
                  struct window *out) {
  struct histogram *h = calloc(1, sizeof *h);
  bool ok = h != NULL;
  for (double start = window_now(), took; ok && window_now() - start < seconds;) {
    ok = once(n, &took);
    if (ok) histogram_add(h, (uint64_t)(took * 1e9));
  }
  out->histogram = h;
  out->value = ok ? histogram_percentile(h, 50) : 0;
  return ok;
}

/* Opened and joined: a queue that can be used. */
static bool open_once(const struct named *n, double *took) {
  shmq *q;
  double start = window_now();
  bool ok = shmq_open(&q, n->name, 0) == 0;
  if (ok) ok = shmq_join_segment(shmq_segment_of(q), NULL, NULL) >= 0;
  *took = window_now() - start;
  if (ok) shmq_close(q);
  return ok;
}

static bool open_window(void *what, double seconds, struct window *out) {
  struct named *n = what;
  name_it(n);
  if (shmq_create(n->name, &options) < 0) return false;
  bool ok = timed(open_once, n, seconds, out);
  (void)shmq_unlink(n->name);
  return ok;
}

static bool create_once(const struct named *n, double *took) {
  double start = window_now();
  bool ok = shmq_create(n->name, &options) == 0;
  *took = window_now() - start;
  if (ok) (void)shmq_unlink(n->name);
  return ok;
}

static bool create_window(void *what, double seconds, struct window *out) {
  struct named *n = what;
  name_it(n);
  return timed(create_once, n, seconds, out);
}

void figures_open(struct suite *s) {
  struct named name;
  struct figure f = {.name = "open and join an existing queue of 1 MiB",
                     .unit = "us",
                     .scale = 1e-3,
                     .run = open_window,
                     .what = &name,
                     .reach = 60,
                     .less_is_better = true,
                     .anywhere = true,
                     .seconds = s->seconds};
  suite_measure(s, &f);
  f.name = "create a queue of 1 MiB";
  f.run = create_window;
  f.reach = 200;
  suite_measure(s, &f);
}

/* ---- recovery ---- */

static double number_of(const char *json, const char *object, const char *key) {
  const char *at = strstr(json, object);
  at = at ? strstr(at, key) : NULL;
  at = at ? strchr(at, ':') : NULL;
  return at ? strtod(at + 1, NULL) : 0;
}

static void add_recovery(struct suite *s, const char *name, const char *json, const char *object) {
  struct figure f = {.name = name, .unit = "ms", .record = true, .less_is_better = true};
  struct outcome o = {.placement = PLACEMENT_ANY,
                      .windows = (int)number_of(json, object, "\"n\""),
                      .value = number_of(json, object, "\"p50\"")};
  if (o.windows)
    suite_add(s, &f, &o);
  else
    suite_miss(s, name, "cannot be measured here");
}

/* The program prints JSON; each death is a window. */
void figures_recovery(struct suite *s) {
  static const char guarded[] = "recovery with a guard, 65,536 cells, median",
                    unguarded[] = "recovery by a sleeping taker, 65,536 cells, median";
  char command[600], json[1024];
  bool wanted = suite_wants(s, guarded);
  if (!suite_wants(s, unguarded) && !wanted) return;
  snprintf(command, sizeof command, "'%s/bench/shmq-recovery-time' --kills %d", s->build,
           s->quick ? 20 : 100);
  FILE *f = popen(command, "re");
  json[f ? fread(json, 1, sizeof json - 1, f) : 0] = 0;
  if (f) (void)pclose(f);
  add_recovery(s, guarded, json, "\"guarded_ms\"");
  add_recovery(s, unguarded, json, "\"unguarded_ms\"");
}
