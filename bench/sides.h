/* SPDX-License-Identifier: Apache-2.0
 *
 * The sides of a window: processes, or threads where the design is an in-process one. They prepare, wait for
 * each other at a gate, and go.
 */
#ifndef BENCH_SIDES_H
#define BENCH_SIDES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum { SIDES_MAX = 32, LINES = 128 /* bytes: a line and the one that is fetched with it */ };

/* In shared memory. */
struct gate {
  _Alignas(LINES) _Atomic int ready;
  _Alignas(LINES) _Atomic int open;
};

/* A side is prepared, memory touched; returns when all are. */
void gate_pass(struct gate *gate);

typedef void side_fn(void *context, int number);

/* Run n sides, open the gate when all stand there, and wait for their end. False: one of them died or ended
 * with an error, and the others were ended. */
bool sides_run(struct gate *gate, int n, bool threads, side_fn *run, void *context);

/* Zeroed memory that forked sides share; NULL: none to be had. */
void *shared_memory(size_t bytes);
void shared_memory_free(void *memory, size_t bytes);

#endif
