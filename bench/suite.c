/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <shmq/version.h>

/* ---- JSON ---- */

/* `before`: what stands between this and the last one. */
static void json_text(FILE *out, const char *before, const char *key, const char *text) {
  fprintf(out, "%s\"%s\": \"", before, key);
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') fputc('\\', out);
    if ((unsigned char)*text >= ' ') fputc(*text, out);
  }
  fputs("\"", out);
}

/* What cannot be written as a number is no number. */
static void json_number(FILE *out, const char *key, double number) {
  if (isfinite(number))
    fprintf(out, ", \"%s\": %.5g", key, number);
  else
    fprintf(out, ", \"%s\": null", key);
}

static void cpu_name(char name[256]) {
  char line[512];
  FILE *info = fopen("/proc/cpuinfo", "re");
  strcpy(name, "unknown");
  while (info && fgets(line, sizeof line, info))
    if (sscanf(line, "model name : %255[^\n]", name) == 1) break;
  if (info) fclose(info);
}

static void json_environment(const struct suite *s) {
  struct utsname system;
  char cpu[256];
  double load[3] = {0};
  cpu_name(cpu);
  uname(&system);
  (void)!getloadavg(load, 3);
  json_text(s->json, "{\"environment\": {", "shmq", SHMQ_VERSION);
  json_text(s->json, ", ", "cpu", cpu);
  fprintf(s->json, ", \"cpus\": %d", placement_count());
  json_text(s->json, ", ", "kernel", system.release);
  json_text(s->json, ", ", "compiler", __VERSION__);
  fprintf(s->json, ", \"time\": %ld, \"load\": %.2f, \"quick\": %s},\n \"figures\": [",
          (long)time(NULL), load[0], s->quick ? "true" : "false");
}

static const double percents[] = {1,  5,  10, 20, 30,   40,   50,   60,    70,    80,
                                  90, 95, 98, 99, 99.5, 99.8, 99.9, 99.95, 99.99, 100};

static void json_percentiles(FILE *out, const char *key, const struct histogram *h, double scale) {
  if (!h) return;
  fprintf(out, ",\n   \"%s\": [", key);
  for (size_t i = 0; i < sizeof percents / sizeof *percents; i++)
    fprintf(out, "%s[%g, %.5g]", i ? ", " : "", percents[i],
            histogram_percentile(h, percents[i]) * scale);
  fprintf(out, "], \"%s_samples\": %lu", key, (unsigned long)h->samples);
}

/* ---- one figure ---- */

static bool is_met(const struct figure *f, const struct outcome *o) {
  double reached = f->reference ? o->ratio : o->value;
  return f->less_is_better ? reached <= f->reach : reached >= f->reach;
}

static void write_figure(struct suite *s, const struct figure *f, const struct outcome *o) {
  FILE *out = s->json;
  json_text(out, s->count ? ",\n  {" : "\n  {", "name", f->name);
  json_number(out, "value", o->value);
  json_text(out, ", ", "unit", f->unit);
  if (f->reference) {
    json_text(out, ", ", "reference", f->reference);
    json_number(out, "reference_value", o->reference);
    json_number(out, "ratio", o->ratio);
    json_number(out, "ratio_min", o->ratio_min);
    json_number(out, "ratio_max", o->ratio_max);
  } else {
    fputs(", \"reference\": null, \"reference_value\": null, \"ratio\": null, \"ratio_min\": null, "
          "\"ratio_max\": null",
          out);
  }
  fprintf(out, ", \"placement\": \"%s\", \"windows\": %d", placement_name(o->placement),
          o->windows);
  json_number(out, "reach", f->record ? HUGE_VAL : f->reach);
  fprintf(out, ", \"met\": %s, \"better\": \"%s\"",
          f->record || o->windows == 0 ? "null"
          : is_met(f, o)               ? "true"
                                       : "false",
          f->less_is_better ? "less" : "more");
  json_percentiles(out, "percentiles", o->histogram, f->scale);
  json_percentiles(out, "reference_percentiles", o->reference_histogram, f->scale);
  fputc('}', out);
  fflush(out);
}

static void print_figure(FILE *out, const struct figure *f, const struct outcome *o) {
  fprintf(out, "%-56s %9.3g %-4s", f->name, o->value, f->unit);
  if (f->reference)
    fprintf(out, "  %-14s %9.3g  ratio %6.2f (%.2f to %.2f)", f->reference, o->reference, o->ratio,
            o->ratio_min, o->ratio_max);
  fprintf(out, "  %-4s %2d", placement_name(o->placement), o->windows);
  if (!f->record)
    fprintf(out, "  %s %g: %s", f->less_is_better ? "<=" : ">=", f->reach,
            o->windows == 0 ? "no good window"
            : is_met(f, o)  ? "met"
                            : "NOT MET");
  fputc('\n', out);
  fflush(out);
}

/* ---- the run ---- */

void suite_begin(struct suite *s) {
  if (s->json) json_environment(s);
}

void suite_end(struct suite *s) {
  if (s->json) fputs("\n]}\n", s->json);
}

bool suite_wants(struct suite *s, const char *name) {
  if (s->only && !strstr(name, s->only)) return false;
  if (s->list) printf("%s\n", name);
  return !s->list;
}

void suite_add(struct suite *s, const struct figure *f, const struct outcome *o) {
  if (s->text) print_figure(s->text, f, o);
  if (s->json) write_figure(s, f, o);
  s->count++;
}

void suite_miss(struct suite *s, const char *name, const char *why) {
  fprintf(s->text ? s->text : stderr, "%-56s %s\n", name, why);
}

void suite_run(struct suite *s, const struct figure *f) {
  struct outcome o;
  if (figure_measure(f, s->windows, &o))
    suite_add(s, f, &o);
  else
    suite_miss(s, f->name, "cannot be measured here");
  outcome_free(&o);
}

void suite_measure(struct suite *s, const struct figure *f) {
  if (suite_wants(s, f->name)) suite_run(s, f);
}
