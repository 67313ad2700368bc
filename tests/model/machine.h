/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine that the scheduler drives: coroutines on stacks of their own, their sleepers, locks and clock, and all of
 * that, with the memory they share, saved, restored and hashed. Which of them goes on is not decided here.
 */
#ifndef SHMQ_MODEL_MACHINE_H
#define SHMQ_MODEL_MACHINE_H

#include <ucontext.h>

#include "scheduler.h"

#define LOCKS_MAX 16

enum status { RUNNABLE, ASLEEP, STOPPED, DEAD, DONE };

struct proc {
  ucontext_t context;
  enum status status;
  int pending; /* what it will do next */
  const volatile void *word;
  int64_t deadline; /* asleep */
  int woken;        /* what the sleep returns */
};

/* Everything of its own that belongs to the state. */
struct machine {
  struct proc procs[PROCS_MAX];
  int sleepers[PROCS_MAX]; /* in the order of their arrival */
  int asleep;
  int64_t clock;
  int locks[LOCKS_MAX]; /* fd or 0 */
  int deaths, stops, preemptions, timeouts, last;
  bool disturbed;
};

extern struct machine now;
extern const struct sched_case *the_case;
extern const char *failure; /* said by a program, NULL: none */

/* A new world of this case, each process up to its first step. */
void machine_start(const struct sched_case *c, const struct sched_bounds *b);
/* Let a process do what it stands before. */
void machine_run(int proc);
void machine_kill(int proc);
/* Wake a sleeper; `why` is what its sleep returns. */
void machine_rouse(int proc, int why);

unsigned char *machine_save(void); /* to be freed */
void machine_restore(const unsigned char *snapshot);
uint64_t machine_hash(void);

/* Where in the shared mapping a word lies, -1: elsewhere. */
long machine_offset(const volatile void *word);

#endif
