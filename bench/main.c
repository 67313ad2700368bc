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
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "figure.h"

static const struct transport *const transports[] = {
    &transport_shmq, &transport_shmq_single, &transport_shmq_in_place, &transport_shmq_default,
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

static unsigned depth_for(size_t bytes) {
  if (bytes > 65536) return 8;
  return bytes > 1024 ? 64 : 4096; /* 4096 messages or 4 MiB */
}

static struct job job_of(const struct row *r, const char *transport, size_t bytes, double seconds) {
  bool trip = r->kind == LATENCY || r->kind == SLEEP;
  return (struct job){.transport = transport ? transport_find(transport) : NULL,
                      .shape = {.bytes = bytes,
                                .depth = trip ? 64 : depth_for(bytes),
                                .producers = r->sides,
                                .consumers = r->sides,
                                .sleeping = r->kind == SLEEP || r->kind == MANY},
                      .workload = trip ? WORKLOAD_PING_PONG : WORKLOAD_STREAM,
                      .batch = r->kind == BATCH ? 32 : 1,
                      .seconds = seconds};
}

static bool figure_of(const struct row *r, double seconds, struct figure *f) {
  bool trip = r->kind == LATENCY || r->kind == SLEEP;
  size_t other = r->reference_bytes ? r->reference_bytes : r->bytes;
  *f = (struct figure){.name = r->name,
                       .unit = r->kind == SLEEP ? "us" : trip ? "ns" : "M/s",
                       .scale = r->kind == SLEEP ? 1e-3 : trip ? 1 : 1e-6,
                       .job = job_of(r, r->transport, r->bytes, seconds),
                       .reference = r->reference,
                       .reference_job = job_of(r, r->reference, other, seconds),
                       .reach = r->reach,
                       .less_is_better = trip};
  return f->job.transport && f->reference_job.transport;
}

/* ---- printing ---- */

static void json_environment(FILE *out) {
  struct utsname name;
  char cpu[256] = "unknown", line[512];
  FILE *info = fopen("/proc/cpuinfo", "re");
  while (info && fgets(line, sizeof line, info))
    if (sscanf(line, "model name : %255[^\n]", cpu) == 1) break;
  if (info) fclose(info);
  uname(&name);
  fprintf(out, "{\"environment\": {\"cpu\": \"%s\", \"cpus\": %ld, \"kernel\": \"%s\", \"compiler\": \"%s\", "
               "\"time\": %ld},\n \"figures\": [",
          cpu, sysconf(_SC_NPROCESSORS_ONLN), name.release, __VERSION__, (long)time(NULL));
}

static void json_figure(FILE *out, const struct figure *f, const struct outcome *o, bool first) {
  fprintf(out,
          "%s\n  {\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", \"reference\": \"%s\", \"reference_value\": %.4g, "
          "\"ratio\": %.3f, \"ratio_min\": %.3f, \"ratio_max\": %.3f, \"placement\": \"%s\", "
          "\"windows\": %d, \"fairness\": %.2f, \"reach\": %s%.2f, \"met\": %s}",
          first ? "" : ",", f->name, o->value, f->unit, f->reference, o->reference, o->ratio,
          o->ratio_min, o->ratio_max, placement_name(o->placement), o->windows, o->fairness,
          f->less_is_better ? "" : "", f->reach, f->reach == 0 ? "null" : o->met ? "true" : "false");
}

static void print_figure(const struct figure *f, const struct outcome *o) {
  printf("%-56s %9.3g %-3s  %-13s %9.3g  ratio %6.2f (%.2f to %.2f)  %-4s %2d", f->name, o->value, f->unit,
         f->reference, o->reference, o->ratio, o->ratio_min, o->ratio_max, placement_name(o->placement),
         o->windows);
  if (f->job.shape.producers > 1) printf("  fairness %.2f", o->fairness);
  if (f->reach > 0) printf("  %s %.2f: %s", f->less_is_better ? "<=" : ">=", f->reach, o->met ? "met" : "NOT MET");
  putchar('\n');
  fflush(stdout);
}

/* ---- main ---- */

struct choice {
  const char *only, *json;
  int windows;
  double seconds;
  bool list;
};

static int run(const struct choice *c) {
  FILE *out = c->json ? fopen(c->json, "we") : NULL;
  bool first = true;
  int cpus[2];
  placement_cpus(cpus);
  if (c->json && !out) {
    perror(c->json);
    return 1;
  }
  if (out) json_environment(out);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct figure f;
    struct outcome o;
    if (c->only && !strstr(rows[i].name, c->only)) continue;
    if (c->list) {
      printf("%s\n", rows[i].name);
      continue;
    }
    if (!figure_of(&rows[i], c->seconds, &f)) {
      printf("%-56s peer not built in\n", rows[i].name);
      continue;
    }
    figure_measure(&f, c->windows, &o);
    if (!o.possible) {
      printf("%-56s no good pair of windows\n", f.name);
      continue;
    }
    print_figure(&f, &o);
    if (out) json_figure(out, &f, &o, first);
    first = false;
  }
  if (out) {
    fprintf(out, "\n]}\n");
    fclose(out);
  }
  return 0;
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"quick", no_argument, NULL, 'q'},
                                          {"only", required_argument, NULL, 'o'},
                                          {"windows", required_argument, NULL, 'w'},
                                          {"json", required_argument, NULL, 'j'},
                                          {"list", no_argument, NULL, 'l'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
  struct choice choice = {.windows = 15, .seconds = 0.2};
  for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (opt) {
      case 'q': choice.windows = 5, choice.seconds = 0.1; break;
      case 'o': choice.only = optarg; break;
      case 'w': choice.windows = atoi(optarg); break;
      case 'j': choice.json = optarg; break;
      case 'l': choice.list = true; break;
      default:
        fprintf(opt == 'h' ? stdout : stderr,
                "usage: shmq-bench [--quick] [--only TEXT] [--windows N] [--json FILE] [--list]\n"
                "Figures against their references, interleaved windows of equal placement; run it alone.\n");
        return opt == 'h' ? 0 : 2;
    }
  return run(&choice);
}
