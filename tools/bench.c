/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq bench: how fast the queues are on this machine, measured as the project's own figures are (bench/).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <shmq/pin.h>

#include "base/report.h"
#include "command.h"
#include "exchange.h"
#include "suite.h"

enum { CPUS_MAX = 1024 };

static struct {
  bool json, quick;
  const char *places;
  const char *only;
} options;

static const struct flag flags[] = {
    SET_FLAG("quick", 'q', &options.quick, "fewer and shorter windows: a few seconds in all"),
    TEXT_FLAG("only", 0, &options.only, "TEXT", "only figures whose name holds TEXT"),
    TEXT_FLAG("bind", 'b', &options.places, "PLACES",
              "run the sides on these places, one CPU each (default: all CPUs in turn)"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

/* ---- figures ---- */

enum kind { TRIP, STREAM };

struct row {
  const char *name;
  enum kind kind;
  const struct transport *transport, *reference; /* reference NULL: none */
  unsigned bytes;
  unsigned sides; /* of each kind */
  int batch;
  bool sleeping;
};

static const struct row rows[] = {
    {"round trip 64 B, spinning", TRIP, &transport_shmq_single, &transport_flag, 64, 1, 1, false},
    {"round trip 64 B, the default call", TRIP, &transport_shmq_default, &transport_flag, 64, 1, 1,
     false},
    {"round trip 64 B, sleeping", TRIP, &transport_shmq, &transport_futex, 64, 1, 1, true},
    {"one to one 8 B", STREAM, &transport_shmq_single, NULL, 8, 1, 1, false},
    {"one to one 64 B", STREAM, &transport_shmq_single, NULL, 64, 1, 1, false},
    {"one to one 64 B, batches of 32", STREAM, &transport_shmq_single, NULL, 64, 1, 32, false},
    {"one to one 1 KiB", STREAM, &transport_shmq_single, &transport_memcpy, 1024, 1, 1, false},
    {"4 x 4, 64 B, sleeping", STREAM, &transport_shmq, NULL, 64, 4, 1, true},
};

static struct exchange exchange_of(const struct row *row, const struct transport *transport) {
  return (struct exchange){.transport = transport,
                           .shape = {.bytes = row->bytes,
                                     .depth = row->kind == TRIP ? 64 : 4096,
                                     .producers = row->sides,
                                     .consumers = row->sides,
                                     .sleeping = row->sleeping},
                           .workload = row->kind == TRIP ? WORKLOAD_PING_PONG : WORKLOAD_STREAM,
                           .batch = row->batch};
}

static void measure(struct suite *suite, const struct row *row) {
  struct exchange value = exchange_of(row, row->transport),
                  reference = exchange_of(row, row->reference);
  suite_measure(suite, &(struct figure){.name = row->name,
                                        .unit = row->kind == TRIP ? "ns" : "M/s",
                                        .scale = row->kind == TRIP ? 1 : 1e-6,
                                        .run = exchange_window,
                                        .what = &value,
                                        .reference = row->reference ? row->reference->name : NULL,
                                        .run_reference = exchange_window,
                                        .reference_what = &reference,
                                        .record = true,
                                        .less_is_better = row->kind == TRIP,
                                        .seconds = suite->seconds});
}

/* ---- places ---- */

static int one_cpu(const shmq_bound *place, int number) {
  if (place->cpu >= 0) return place->cpu;
  complain("--bind %s: place %d is not one CPU but %s; a side runs on one", options.places, number,
           place->list);
  return -1;
}

/* The CPU of each place. Returns a status. */
static int use_places(shmq_pin *pin) {
  static int cpus[CPUS_MAX];
  int count = shmq_pin_count(pin, options.places);
  for (int i = 0; i < count && i < CPUS_MAX; i++) {
    shmq_bound place;
    int rc = shmq_pin_place(pin, options.places, (unsigned)i, &place);
    if (rc < 0)
      count = rc;
    else if ((cpus[i] = one_cpu(&place, i)) < 0)
      return STATUS_USAGE;
  }
  if (count == 0) return usage("--bind %s names no place", options.places);
  if (count < 0) {
    complain("--bind %s: %s", options.places, shmq_pin_error(pin));
    return count == -EINVAL ? STATUS_USAGE : status_of(count);
  }
  placement_use(cpus, count < CPUS_MAX ? count : CPUS_MAX);
  return STATUS_OK;
}

static int bind(void) {
  shmq_pin *pin;
  if (options.places == NULL) return STATUS_OK;
  int rc = shmq_pin_open(&pin);
  if (rc < 0) {
    complain("the topology: %s", shmq_strerror(rc));
    return STATUS_FAILED;
  }
  int status = use_places(pin);
  shmq_pin_close(pin);
  return status;
}

/* ---- the command ---- */

static int run(int count, char **arguments) {
  (void)count, (void)arguments;
  int status = bind();
  if (status != STATUS_OK) return status;
  struct suite suite = {.only = options.only,
                        .quick = options.quick,
                        .windows = options.quick ? 3 : 9,
                        .seconds = options.quick ? 0.05 : 0.2,
                        .text = options.json ? NULL : stdout,
                        .json = options.json ? stdout : NULL};
  suite_begin(&suite);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) measure(&suite, &rows[i]);
  suite_end(&suite);
  if (suite.count > 0) return STATUS_OK;
  complain("nothing was measured");
  return STATUS_FAILED;
}

const struct command bench_command = {
    .name = "bench",
    .arguments = "",
    .summary = "Measure how fast queues are on this machine",
    .details =
        "Round trips (spinning, the default call, sleeping), messages a second from one process to "
        "another, in batches, and between four and four. Each figure is the median of short "
        "windows with a raw cache-line round trip before and after; windows during which that "
        "changed do not count. Beside some stand limits of the machine, measured in turn with "
        "them: flag (56 bytes and a flag in one cache line), futex (a bare wake-up) and memcpy "
        "(copying from core to core); the ratio is to those.\n"
        "\n"
        "adj, near and far say how long that raw round trip took: below 120 ns, below 300 ns, "
        "longer. mix and 0 windows: the machine was not still for long enough, and the figure says "
        "little. Sides run in turn on all CPUs that the program may use, or on PLACES (shmq topo "
        "explains them). Run it while nothing else runs.",
    .examples = "  shmq bench --quick\n"
                "  shmq bench --bind pair:l3\n"
                "  shmq bench --only 'round trip' --json",
    .flags = flags,
    .most = 0,
    .run = run,
};
