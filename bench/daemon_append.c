/* SPDX-License-Identifier: Apache-2.0
 *
 * Durable appends of 256 bytes by eight clients, each a process of its own, nothing pinned: an answer means that the
 * record is on disk. The clients sleep at once, as one does who waits for a disk.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "daemon.h"
#include "peer.h"
#include "sides.h"

enum { CLIENTS = 8, RECORD = 256 };

struct shared {
  struct gate gate;
  double rate[CLIENTS];
};

struct appenders {
  const struct bench_daemon *daemon;
  unsigned depth;
  double seconds;
  struct shared *shared;
};

static void check(const struct load *l, const shmq_result *result, uint64_t prepared) {
  (void)l, (void)prepared;
  if (result->status == 0) return;
  fprintf(stderr, "bench: append: %s\n", shmq_strerror(result->status));
  abort();
}

static void append(void *context, int number) {
  const struct appenders *a = context;
  char record[RECORD];
  struct iovec part = {record, sizeof record};
  struct load load = {
      .client = bench_connect(a->daemon, 32, SHMQ_NOSPIN), .depth = a->depth, .check = check};
  memset(record, 'a' + number, sizeof record);
  load.ask = (shmq_ask){.resource = (uint16_t)shmq_resource(load.client, "log"),
                        .op = SHMQ_LOG_APPEND,
                        .value = {SHMQ_LOG_ACK_DISK, 0},
                        .parts = &part,
                        .part_count = 1};
  (void)load_run(&load, 0.01);
  gate_pass(&a->shared->gate);
  a->shared->rate[number] = load_run(&load, a->seconds);
  shmq_client_close(load.client);
}

static bool append_window(void *what, double seconds, struct window *out) {
  struct appenders *a = what;
  a->seconds = seconds;
  a->shared = shared_memory(sizeof *a->shared);
  bool ok = a->shared && sides_run(&a->shared->gate, CLIENTS, false, append, a);
  out->value = 0;
  for (int i = 0; ok && i < CLIENTS; i++) out->value += a->shared->rate[i];
  shared_memory_free(a->shared, sizeof *a->shared);
  return ok;
}

static void measure(struct suite *s, const char *name, unsigned depth, const char *reference,
                    window_fn *run_reference, double reach) {
  struct bench_daemon d;
  if (!suite_wants(s, name)) return;
  if (bench_daemon_start(&d, s, -1) < 0) {
    suite_miss(s, name, "no daemon");
    return;
  }
  struct appenders appenders = {.daemon = &d, .depth = depth};
  struct writers writers = {.dir = d.dir, .processes = CLIENTS, .bytes = RECORD};
  suite_run(s, &(struct figure){.name = name,
                                .unit = "k/s",
                                .scale = 1e-3,
                                .run = append_window,
                                .what = &appenders,
                                .reference = reference,
                                .run_reference = run_reference,
                                .reference_what = &writers,
                                .reach = reach,
                                .anywhere = true,
                                .seconds = 2 * s->seconds});
  bench_daemon_stop(&d);
}

void figures_daemon_append(struct suite *s) {
  measure(s, "daemon: durable 256 B appends, 8 clients, 1 each in flight", 1, "8 x fdatasync",
          fdatasync_window, 2.5);
  measure(s, "daemon: durable 256 B appends, 8 clients, 16 each in flight", 16, "8 x fdatasync",
          fdatasync_window, 25);
  measure(s, "daemon: durable 256 B appends, 8 clients, 1 each, against SQLite", 1, "8 x SQLite",
          sqlite_window, 5);
}
