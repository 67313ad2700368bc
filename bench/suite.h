/* SPDX-License-Identifier: Apache-2.0
 *
 * A run of figures: which are wanted, how long they are measured, and where they are printed and written as JSON.
 */
#ifndef BENCH_SUITE_H
#define BENCH_SUITE_H

#include <stdio.h>

#include "figure.h"

struct suite {
  const char *only; /* part of a name; NULL: all */
  bool list;        /* names only */
  bool quick;
  int windows;
  double seconds;    /* of a window between processes that exchange messages */
  const char *dir;   /* for files, on a real file system */
  const char *build; /* the build folder: the daemon is BUILD/daemon/shmqd */
  FILE *text, *json; /* NULL: not wanted */
  int count;         /* figures so far */
};

void suite_begin(struct suite *s);
void suite_end(struct suite *s);

/* Is it to be measured now? Prints the name when only a list is wanted. */
bool suite_wants(struct suite *s, const char *name);

/* Measure it; suite_measure: if it is wanted. */
void suite_run(struct suite *s, const struct figure *f);
void suite_measure(struct suite *s, const struct figure *f);

/* Take it in, measured elsewhere. */
void suite_add(struct suite *s, const struct figure *f, const struct outcome *o);

/* A wanted figure that could not be measured, and why. */
void suite_miss(struct suite *s, const char *name, const char *why);

#endif
