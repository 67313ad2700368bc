/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq-bench: the figures of docs/performance.md.
 *
 *   shmq-bench [--quick] [--only TEXT] [--windows N] [--json FILE] [--list]
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "exchange.h"
#include "life.h"

static const struct transport *const transports[] = {
    &transport_call, &transport_shmq, &transport_shmq_single, &transport_shmq_in_place, &transport_shmq_default,
    &transport_pipe, &transport_unix, &transport_mq, &transport_eventfd,
    &transport_line, &transport_flag, &transport_memcpy, &transport_futex,
#ifdef BENCH_CK
    &transport_ck_spsc, &transport_ck_mpmc,
#endif
#ifdef BENCH_DPDK
    &transport_rte_spsc, &transport_rte_mpmc,
#endif
#ifdef BENCH_CXX
    &transport_boost, &transport_moodycamel, &transport_readerwriter,
#endif
#ifdef BENCH_ZMQ
    &transport_zmq,
#endif
#ifdef BENCH_NNG
    &transport_nng,
#endif
};

const struct transport *transport_find(const char *name) {
  for (size_t i = 0; i < sizeof transports / sizeof *transports; i++)
    if (strcmp(transports[i]->name, name) == 0) return transports[i];
  return NULL;
}

/* ---- the list of figures ---- */

enum kind { LATENCY, SLEEP, STREAM, BATCH, MANY };

struct row {
  const char *name;
  enum kind kind;
  const char *transport;
  size_t bytes;
  const char *reference;
  size_t reference_bytes; /* 0: the same */
  double reach;           /* 0: for the record */
  unsigned sides;         /* MANY: of each kind */
};

static const struct row rows[] = {
    {"round trip 64 B, spinning", LATENCY, "shmq-single", 64, "flag", 0, 1.35, 1},
    {"round trip 64 B, spinning, many-to-many queue", LATENCY, "shmq", 64, "flag", 0, 1.35, 1},
    {"round trip 64 B against ck spsc", LATENCY, "shmq-single", 64, "ck-spsc", 0, 1.0, 1},
    {"round trip 64 B against ck mpmc", LATENCY, "shmq", 64, "ck-mpmc", 0, 1.0, 1},
    {"round trip 64 B against rte spsc", LATENCY, "shmq-single", 64, "rte-spsc", 0, 1.0, 1},
    {"round trip 64 B against rte mpmc", LATENCY, "shmq", 64, "rte-mpmc", 0, 1.0, 1},
    {"round trip 64 B against boost", LATENCY, "shmq", 64, "boost", 0, 1.0, 1},
    {"round trip 64 B against readerwriterqueue (threads)", LATENCY, "shmq-single", 64, "readerwriter", 0, 1.0, 1},
    {"round trip 64 B against moodycamel (threads)", LATENCY, "shmq", 64, "moodycamel", 0, 1.0, 1},
    {"round trip 64 B, the default call", LATENCY, "shmq-default", 64, "shmq", 0, 1.2, 1},
    {"null call, spinning", LATENCY, "call", 64, "shmq", 0, 1.5, 1},
    {"null call, sleeping", SLEEP, "call", 64, "futex", 0, 1.2, 1},
    {"round trip 64 B, sleeping", SLEEP, "shmq", 64, "futex", 0, 1.10, 1},
    {"round trip 64 B, sleeping, against eventfd", SLEEP, "shmq", 64, "eventfd", 0, 1.0, 1},
    {"round trip 64 B, sleeping, against a pipe", SLEEP, "shmq", 64, "pipe", 0, 1.0, 1},
    {"round trip 64 B, sleeping, against a Unix socket", SLEEP, "shmq", 64, "unix", 0, 1.0, 1},
    {"round trip 64 B, sleeping, against mq", SLEEP, "shmq", 64, "mq", 0, 1.0, 1},
    {"round trip 64 B, sleeping, against zmq", SLEEP, "shmq", 64, "zmq", 0, 1.0, 1},
    {"round trip 64 B, sleeping, against nng", SLEEP, "shmq", 64, "nng", 0, 1.0, 1},
    {"one to one 8 B", STREAM, "shmq-single", 8, "ck-spsc", 0, 1.3, 1},
    {"one to one 8 B against rte", STREAM, "shmq-single", 8, "rte-spsc", 0, 0, 1},
    {"one to one 8 B, many-to-many queue against ck mpmc", STREAM, "shmq", 8, "ck-mpmc", 0, 0, 1},
    {"one to one 64 B", STREAM, "shmq-single", 64, "rte-spsc", 0, 1.0, 1},
    {"one to one 64 B, many-to-many queue against rte mpmc", STREAM, "shmq", 64, "rte-mpmc", 0, 0, 1},
    {"one to one 64 B against ck", STREAM, "shmq-single", 64, "ck-spsc", 0, 0, 1},
    {"one to one 64 B against boost", STREAM, "shmq", 64, "boost", 0, 1.0, 1},
    {"one to one 64 B against a pipe", STREAM, "shmq", 64, "pipe", 0, 1.0, 1},
    {"one to one 64 B against zmq", STREAM, "shmq", 64, "zmq", 0, 1.0, 1},
    {"one to one 64 B, batches of 32", BATCH, "shmq-single", 64, "rte-spsc", 0, 1.0, 1},
    {"one to one 64 B, batches of 32, against moodycamel", BATCH, "shmq-single", 64, "moodycamel", 0, 1.0, 1},
    {"one to one 64 B, batches of 32, many-to-many queue", BATCH, "shmq", 64, "rte-mpmc", 0, 0, 1},
    {"one to one 1 KiB, copied", STREAM, "shmq-single", 1024, "memcpy", 0, 0.8, 1},
    {"one to one 1 KiB against ck", STREAM, "shmq-single", 1024, "ck-spsc", 0, 0, 1},
    {"one to one 64 KiB, copied, in a block", STREAM, "shmq", 65536, "memcpy", 0, 0.8, 1},
    {"one to one 4 MiB in place, messages a second", STREAM, "shmq-in-place", 4194304, "shmq-in-place", 64, 0.83, 1},
    {"2 x 2, 64 B, sleeping", MANY, "shmq", 64, "boost", 0, 2.0, 2},
    {"4 x 4, 64 B, sleeping", MANY, "shmq", 64, "boost", 0, 2.0, 4},
    {"4 x 4, 64 B, sleeping, against moodycamel (threads)", MANY, "shmq", 64, "moodycamel", 0, 1.0, 4},
    {"4 x 4, 64 B, sleeping, against a pipe", MANY, "shmq", 64, "pipe", 0, 1.0, 4},
    {"4 x 4, 64 B, the default call, against boost", MANY, "shmq-default", 64, "boost", 0, 2.0, 4},
    {"8 x 8, 64 B, sleeping", MANY, "shmq", 64, "boost", 0, 1.0, 8},
};

/* The same for a figure and its reference: a short queue keeps its two sides in step, whatever it holds. */
static unsigned depth_for(const struct row *r) {
  if (r->bytes > 65536) return 16;
  return r->bytes > 1024 ? 64 : 4096; /* 4096 messages or 4 MiB */
}

static struct exchange exchange_of(const struct row *r, const char *transport, size_t bytes) {
  bool trip = r->kind == LATENCY || r->kind == SLEEP;
  return (struct exchange){.transport = transport_find(transport),
                           .shape = {.bytes = bytes,
                                     .depth = trip ? 64 : depth_for(r),
                                     .producers = r->sides,
                                     .consumers = r->sides,
                                     .sleeping = r->kind == SLEEP || r->kind == MANY},
                           .workload = trip ? WORKLOAD_PING_PONG : WORKLOAD_STREAM,
                           .batch = r->kind == BATCH ? 32 : 1};
}

static struct figure figure_of(const struct row *r, double seconds) {
  bool trip = r->kind == LATENCY || r->kind == SLEEP;
  return (struct figure){.name = r->name,
                         .unit = r->kind == SLEEP ? "us" : trip ? "ns" : "M/s",
                         .scale = r->kind == SLEEP ? 1e-3 : trip ? 1 : 1e-6,
                         .run = exchange_window,
                         .reference = r->reference,
                         .run_reference = exchange_window,
                         .reach = r->reach,
                         .record = r->reach == 0,
                         .less_is_better = trip,
                         .seconds = seconds};
}

/* The share of the slowest side to that of the fastest, producers or consumers, whichever is worse. */
static void add_fairness(struct suite *s, const struct row *r, const struct outcome *o) {
  char name[96];
  snprintf(name, sizeof name, "%s: slowest to fastest", r->name);
  struct figure f = {.name = name, .unit = "", .reach = 0.7, .record = r->sides > 4};
  struct outcome fair = {.placement = o->placement, .windows = o->windows, .value = o->fairness};
  suite_add(s, &f, &fair);
}

static void measure_row(struct suite *s, const struct row *r) {
  struct figure f = figure_of(r, s->seconds);
  struct exchange value = exchange_of(r, r->transport, r->bytes),
                  reference = exchange_of(r, r->reference, r->reference_bytes ? r->reference_bytes : r->bytes);
  struct outcome o;
  f.what = &value;
  f.reference_what = &reference;
  if (!suite_wants(s, r->name)) return;
  if (!value.transport || !reference.transport) {
    suite_miss(s, r->name, "peer not built in");
    return;
  }
  if (figure_measure(&f, s->windows, &o)) {
    suite_add(s, &f, &o);
    if (r->kind == MANY && strcmp(r->reference, "boost") == 0) add_fairness(s, r, &o);
  } else {
    suite_miss(s, r->name, "cannot be measured here");
  }
  outcome_free(&o);
}

/* ---- main ---- */

/* Where this program was built: what it starts lies beside it. */
static const char *build_directory(void) {
  static char path[512];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
  if (n < 0) return ".";
  path[n] = 0;
  for (int up = 0; up < 2; up++) { /* BUILD/bench/shmq-bench */
    char *slash = strrchr(path, '/');
    if (slash) *slash = 0;
  }
  return path;
}

static int run(struct suite *s, const char *json) {
  if (json && !(s->json = fopen(json, "we"))) {
    perror(json);
    return 1;
  }
  suite_begin(s);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) measure_row(s, &rows[i]);
  figures_rate(s);
  figures_open(s);
  figures_recovery(s);
  figures_idle(s);
  figures_daemon_read(s);
  figures_daemon_share(s);
  figures_daemon_append(s);
  suite_end(s);
  if (s->json && fclose(s->json)) {
    perror(json);
    return 1;
  }
  return 0;
}

static void usage(FILE *out) {
  fputs("usage: shmq-bench [--quick] [--only TEXT] [--windows N] [--dir DIR] [--json FILE] [--list]\n"
        "Figures against their references, interleaved windows of equal placement; run it alone.\n"
        "DIR is where files are made, on a real file system (default: $TMPDIR or /var/tmp).\n",
        out);
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"quick", no_argument, NULL, 'q'},         {"only", required_argument, NULL, 'o'},
      {"windows", required_argument, NULL, 'w'}, {"json", required_argument, NULL, 'j'},
      {"dir", required_argument, NULL, 'd'},     {"list", no_argument, NULL, 'l'},
      {"help", no_argument, NULL, 'h'},          {0}};
  const char *json = NULL, *temporary = getenv("TMPDIR");
  int windows = 0;
  struct suite s = {.text = stdout, .build = build_directory(), .dir = temporary && *temporary ? temporary : "/var/tmp"};
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (opt) {
      case 'q': s.quick = true; break;
      case 'o': s.only = optarg; break;
      case 'w': windows = atoi(optarg); break;
      case 'j': json = optarg; break;
      case 'd': s.dir = optarg; break;
      case 'l': s.list = true; break;
      case 'h': usage(stdout); return 0;
      default: usage(stderr); return 2;
    }
  if (optind < argc) {
    fprintf(stderr, "shmq-bench: what is '%s'?\n", argv[optind]);
    usage(stderr);
    return 2;
  }
  s.windows = windows > 0 ? windows : s.quick ? 5 : 11;
  s.seconds = s.quick ? 0.1 : 0.2;
  return run(&s, json);
}
