/* SPDX-License-Identifier: Apache-2.0
 *
 * Cases of a plain test program. Criterion forks its cases from a process with threads, and a sanitizer's lock that
 * one of them holds at that moment is never released in the child: what forks itself is a plain program.
 */
#ifndef TEST_CASES_H
#define TEST_CASES_H

#include "support/check.h"

struct test_case {
  const char *name;
  void (*run)(void);
};
#define CASE(name) \
  { #name, name }

/* All of them, or the one that is named; before and after may be NULL. */
static inline int run_cases(const struct test_case *cases, size_t n, void (*before)(void),
                            void (*after)(void), int argc, char **argv) {
  for (size_t i = 0; i < n; i++) {
    if (argc > 1 && strcmp(argv[1], cases[i].name) != 0) continue;
    printf("%s\n", cases[i].name);
    fflush(stdout);
    if (before) before();
    cases[i].run();
    if (after) after();
  }
  return 0;
}
#define RUN_CASES(cases, before, after, argc, argv) \
  run_cases(cases, sizeof(cases) / sizeof *(cases), before, after, argc, argv)

#endif
