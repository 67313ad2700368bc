/* SPDX-License-Identifier: Apache-2.0
 *
 * A deterministic scheduler for processes that share one mapping. Each is a coroutine with a stack of its
 * own; model_step is where it may be left. All state (shared memory, private handles, stacks, locks,
 * sleepers, clock) can be saved, restored and hashed, so the tree of interleavings is searched depth first
 * and no state is searched twice.
 */
#ifndef SHMQ_MODEL_SCHED_H
#define SHMQ_MODEL_SCHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROCS_MAX 6

struct sched_case {
  const char *name;
  int procs;                  /* coroutines 0 .. procs-1 */
  void (*program)(int proc);
  /* Nobody can go on any more, and time has helped nobody: is all well? NULL, or what is not. Runs
   * outside of any coroutine and may spoil all state. */
  const char *(*verdict)(void);
  /* Nobody can go on and nobody stands still: may time pass? Changes nothing. */
  const char *(*quiet)(void);
};

struct sched_bounds {
  int deaths, stops; /* at most so many of each */
  int preemptions;   /* -1: no bound */
  unsigned long states; /* give up beyond */
};

struct sched_result {
  unsigned long states, executions, steps;
  unsigned deepest;
  bool complete;
  const char *error; /* NULL: none */
};

/* Memory that belongs to the state, besides stacks and the scheduler's own. */
void sched_own(void *memory, size_t bytes);
/* Words whose accesses nobody else can notice: no steps. */
void sched_unseen(const volatile void *memory, size_t bytes);
void sched_forget(void); /* all of it, for the next case */

/* Run all interleavings; or one at random from a seed. */
struct sched_result sched_search(const struct sched_case *c, const struct sched_bounds *b);
struct sched_result sched_random(const struct sched_case *c, const struct sched_bounds *b, uint64_t seed);

/* What the programs and verdicts may ask. */
void sched_fail(const char *why); /* a program found it */
int sched_current(void); /* -1 outside of coroutines */
bool sched_dead(int proc);
bool sched_done(int proc);
bool sched_disturbed(void); /* somebody died or was stopped */

/* For model_os.c: sleeping, clock and locks. */
int64_t sched_clock(void);
int sched_sleep(const volatile void *word, uint32_t value, int64_t deadline);
int sched_wake(const volatile void *word, int n);
int sched_lock(int fd, uint32_t byte); /* 0 or -EAGAIN */
void sched_unlock(int fd, uint32_t byte);
bool sched_locked(uint32_t byte);
void sched_fd(int fd, int proc); /* fd's locks go when proc dies */

#endif
