/* SPDX-License-Identifier: Apache-2.0
 *
 * What the scheduler runs: small worlds of producers, consumers and stages on the real library, and
 * the ledger that judges each execution.
 */
#ifndef SHMQ_MODEL_CASES_H
#define SHMQ_MODEL_CASES_H

#include "scheduler.h"

struct model_case {
  const char *name;
  int producers, consumers;
  int puts, gets;   /* of each */
  unsigned flags;   /* SHMQ_SINGLE_* */
  int capacity;
  int batch;        /* messages a call, 0: one */
  enum { PLAIN, NACK, ABORT, STAGE, COPY, CLOSER, HOLD } kind;
  struct sched_bounds bounds; /* of the search in the test suite */
};

extern const struct model_case model_cases[];
extern const int model_case_count;

/* Build the world of a case; the result is for sched_search and sched_random. */
struct sched_case model_setup(const struct model_case *c);

#endif
