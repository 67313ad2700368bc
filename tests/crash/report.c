/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <stdio.h>
#include <string.h>

uint64_t report_faults(const struct tally *t) {
  return t->lost + t->duplicated + t->leaked + t->hung + t->other;
}

void tally_add(struct tally *sum, const struct tally *t) {
  sum->points += t->points;
  sum->lost += t->lost;
  sum->duplicated += t->duplicated;
  sum->leaked += t->leaked;
  sum->hung += t->hung;
  sum->other += t->other;
  sum->seconds += t->seconds;
  if (t->worst_wait_ms > sum->worst_wait_ms) sum->worst_wait_ms = t->worst_wait_ms;
  if (t->instructions > sum->instructions) sum->instructions = t->instructions;
}

/* Faults of another kind (a wrong order, a wrong result) must not hide behind four zeros: a
 * survivor that gets one cannot do its work, which is what "hung" says. */
static void print_counts(FILE *f, const struct tally *t, bool stops) {
  fprintf(f,
          "\"kills\": %lu, \"lost\": %lu, \"duplicated\": %lu, \"leaked\": %lu, \"hung\": %lu, "
          "\"worst_wait_ms\": %.3f",
          stops ? 0UL : (unsigned long)t->points, (unsigned long)t->lost,
          (unsigned long)t->duplicated, (unsigned long)t->leaked,
          (unsigned long)(t->hung + t->other), t->worst_wait_ms);
}

int report_json(const char *path, const struct job *jobs, const struct tally *tallies, unsigned n) {
  struct tally total = {0};
  uint64_t stops = 0;
  for (unsigned i = 0; i < n; i++) {
    struct tally t = tallies[i];
    if (jobs[i].kind == KIND_STOP) {
      stops += t.points;
      t.points = 0;
    }
    tally_add(&total, &t);
  }
  FILE *f = fopen(path, "we");
  if (f == NULL) return -1;
  fprintf(f, "{\n  \"totals\": {");
  print_counts(f, &total, false);
  fprintf(f, "},\n  \"stops\": %lu,\n  \"cases\": [", (unsigned long)stops);
  for (unsigned i = 0; i < n; i++) {
    const struct job *j = &jobs[i];
    bool stop = j->kind == KIND_STOP;
    fprintf(f,
            "%s\n    {\"call\": \"%s\", \"state\": \"%s\", \"mode\": \"%s\", \"kind\": \"%s\", "
            "\"instructions\": %u, ",
            i ? "," : "", j->call->name, state_names[j->state], mode_names[j->mode],
            kind_names[j->kind], tallies[i].instructions);
    print_counts(f, &tallies[i], stop);
    if (stop) fprintf(f, ", \"stops\": %lu", (unsigned long)tallies[i].points);
    fprintf(f, "}");
  }
  fprintf(f, "\n  ]\n}\n");
  return fclose(f) == 0 ? 0 : -1;
}

static void print_row(FILE *f, const char *call, enum kind kind, const struct job *jobs,
                      const struct tally *tallies, unsigned n) {
  struct tally sum = {0};
  uint32_t shortest = UINT32_MAX;
  unsigned cases = 0;
  for (unsigned i = 0; i < n; i++) {
    if (strcmp(jobs[i].call->name, call) != 0 || jobs[i].kind != kind) continue;
    tally_add(&sum, &tallies[i]);
    if (tallies[i].instructions < shortest) shortest = tallies[i].instructions;
    cases++;
  }
  if (cases == 0) return;
  fprintf(f, "| %s | %s | %u | %u to %u | %lu | %lu | %lu | %lu | %lu | %.1f |\n", call,
          kind_names[kind], cases, shortest, sum.instructions, (unsigned long)sum.points,
          (unsigned long)sum.lost, (unsigned long)sum.duplicated, (unsigned long)sum.leaked,
          (unsigned long)(sum.hung + sum.other), sum.worst_wait_ms);
}

int report_markdown(const char *path, const struct job *jobs, const struct tally *tallies,
                    unsigned n) {
  FILE *f = fopen(path, "we");
  if (f == NULL) return -1;
  fprintf(f, "| call | kind | cases | instructions | points | lost | duplicated | leaked | hung | "
             "worst wait, ms |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n");
  for (unsigned i = 0; i < call_count; i++)
    for (enum kind k = 0; k < KIND_COUNT; k++) print_row(f, calls[i].name, k, jobs, tallies, n);
  return fclose(f) == 0 ? 0 : -1;
}
