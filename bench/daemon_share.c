/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop of the daemon itself: requests that do nothing, and what sessions do to each other.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon.h"

enum { DEPTH = 32, IDLE = 64, FLOOD = 256 };

static void null_load(struct load *l, const struct bench_daemon *d, unsigned depth,
                      unsigned flags) {
  *l = (struct load){.client = bench_connect(d, depth, flags),
                     .depth = depth,
                     .ask = {.op = SHMQ_DAEMON_NULL, .flags = SHMQ_ASK_IDEMPOTENT}};
}

static bool null_window(void *what, double seconds, struct window *out) {
  placement_pin(placement_cpu(0));
  (void)load_run(what, seconds / 20);
  out->value = load_run(what, seconds);
  placement_unpin();
  return true;
}

/* Start a daemon if the figure is wanted; says what is missing. */
static bool begin(struct suite *s, const char *name, struct bench_daemon *d, int cpu) {
  if (!suite_wants(s, name)) return false;
  if (bench_daemon_start(d, s, cpu) == 0) return true;
  suite_miss(s, name, "no daemon");
  return false;
}

static void figure_null(struct suite *s) {
  struct bench_daemon d;
  struct load load;
  struct figure f = {.name = "daemon: null request, depth 32",
                     .unit = "M/s",
                     .scale = 1e-6,
                     .run = null_window,
                     .what = &load,
                     .reach = 3,
                     .seconds = s->seconds};
  if (!begin(s, f.name, &d, placement_cpu(1))) return;
  null_load(&load, &d, DEPTH, SHMQ_SPIN);
  suite_run(s, &f);
  shmq_client_close(load.client);
  bench_daemon_stop(&d);
}

/* ---- idle sessions ---- */

struct beside_idle {
  struct load load;
  const struct bench_daemon *daemon;
};

static bool idle_window(void *what, double seconds, struct window *out) {
  struct beside_idle *b = what;
  shmq_client *idle[IDLE];
  for (int i = 0; i < IDLE; i++) {
    idle[i] = bench_connect(b->daemon, 4, 0);
    shmq_result result;
    (void)shmq_call(idle[i], &b->load.ask, &result, SHMQ_FOREVER); /* once awake, then asleep */
  }
  usleep(20000);
  bool ok = null_window(&b->load, seconds, out);
  for (int i = 0; i < IDLE; i++) shmq_client_close(idle[i]);
  usleep(20000); /* their ends are served before the next window */
  return ok;
}

static void figure_idle(struct suite *s) {
  struct bench_daemon d;
  struct beside_idle beside = {.daemon = &d};
  struct figure f = {.name = "daemon: a busy session beside 64 idle ones",
                     .unit = "M/s",
                     .scale = 1e-6,
                     .run = idle_window,
                     .what = &beside,
                     .reference = "alone",
                     .run_reference = null_window,
                     .reference_what = &beside.load,
                     .reach = 0.98,
                     .seconds = s->seconds};
  if (!begin(s, f.name, &d, placement_cpu(1))) return;
  null_load(&beside.load, &d, DEPTH, SHMQ_SPIN);
  suite_run(s, &f);
  shmq_client_close(beside.load.client);
  bench_daemon_stop(&d);
}

/* ---- a victim ---- */

/* One call after the other with the default wait; ns at the 99th percentile. The daemon has its CPU and the victim has
 * one, which it shares with the other client where there are only two: left to the kernel, the victim is on the daemon's
 * for seconds on end in every other run, and then the figure is the kernel's time slice. */
static bool victim_window(void *what, double seconds, struct window *out) {
  struct load *l = what;
  out->histogram = calloc(1, sizeof *out->histogram);
  if (!out->histogram) return false;
  bool ok = true;
  placement_pin(placement_cpu(0));
  double start = window_now();
  for (double now = start; ok && now - start < seconds;) {
    shmq_result result;
    ok = shmq_call(l->client, &l->ask, &result, SHMQ_FOREVER) == 0;
    double answered = window_now();
    histogram_add(out->histogram, (uint64_t)((answered - now) * 1e9));
    now = answered;
  }
  placement_unpin();
  out->value = histogram_percentile(out->histogram, 99);
  return ok;
}

struct flooded {
  struct load load;
  const struct bench_daemon *daemon;
};

static _Noreturn void flood(const struct bench_daemon *d) {
  struct load load;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  placement_pin(placement_cpu(2));
  null_load(&load, d, FLOOD, 0);
  for (;;) (void)load_run(&load, 1);
}

static bool flooded_window(void *what, double seconds, struct window *out) {
  struct flooded *f = what;
  pid_t pid = fork();
  if (pid == 0) flood(f->daemon);
  if (pid < 0) return false;
  usleep(50000);
  bool ok = victim_window(&f->load, seconds, out);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  usleep(20000);
  return ok;
}

static void figure_victim(struct suite *s) {
  struct bench_daemon d;
  struct flooded flooded = {.daemon = &d};
  struct figure f = {.name = "daemon: p99 of a null call beside a client with 256 in flight",
                     .unit = "us",
                     .scale = 1e-3,
                     .run = flooded_window,
                     .what = &flooded,
                     .reference = "alone",
                     .run_reference = victim_window,
                     .reference_what = &flooded.load,
                     .reach = 3,
                     .less_is_better = true,
                     .seconds = 2 * s->seconds};
  if (!begin(s, f.name, &d, placement_cpu(1))) return;
  null_load(&flooded.load, &d, 4, 0);
  suite_run(s, &f);
  shmq_client_close(flooded.load.client);
  bench_daemon_stop(&d);
}

void figures_daemon_share(struct suite *s) {
  figure_null(s);
  figure_idle(s);
  figure_victim(s);
}
