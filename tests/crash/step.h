/* SPDX-License-Identifier: Apache-2.0
 *
 * Running a process to an exact instruction.
 *
 * A victim is a forked child under ptrace. It stops by itself (int3) right before the call under
 * test; that is state 0. State n is n instructions later. The first run is single-stepped and leaves
 * a path: the address of the next instruction at every state. Later runs reach state n through a
 * breakpoint at a near state whose address has not come up often before, and single steps for the
 * rest, so that a kill point costs about the same whether it lies early or late.
 */
#ifndef CRASH_STEP_H
#define CRASH_STEP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum stop {
  STOP_AT,     /* stands where it was sent */
  STOP_DONE,   /* the call has returned; the victim stands at its last marker */
  STOP_ASLEEP, /* sleeps in a system call, and nobody wakes it */
  STOP_GONE    /* ended by itself: a fault of the victim's */
};

struct victim {
  pid_t pid;
  int signal;                     /* STOP_GONE: what ended it */
  const volatile uint32_t *phase; /* shared with the victim, enum phase */
  bool may_sleep;                 /* look for sleep instead of only waiting for the next stop */
  unsigned slept;                 /* how often it did, during the last step or hop */
  void (*wake)(void *arg);        /* called when it sleeps; NULL: STOP_ASLEEP */
  void *arg;
};

enum phase { PHASE_PREPARING, PHASE_CALLING, PHASE_RETURNED };

enum mark {
  MARK_WRITE = 1,   /* the shared image is another than in the state before */
  MARK_SYSCALL = 2, /* the state before stood at a system call */
  MARK_SLEEP = 4    /* the instruction at this state put the victim to sleep */
};

struct path {
  uint32_t length; /* number of states; the last one is "returned" */
  uint32_t room;
  uint64_t *address; /* of the next instruction, per state */
  uint32_t *passes;  /* how many earlier states have the same address */
  uint64_t *image;   /* fingerprint of the shared memory, per state */
  uint8_t *mark;
};

/* Fork a victim that runs body(arg) up to its first marker. body calls victim_begin and victim_end
 * around the call under test. Returns 0, or -1 when it did not get there. */
int victim_start(struct victim *v, void (*body)(void *), void *arg);

/* The markers, called by the victim. `traced` is read at the end: a victim let go must not trap. */
#define victim_begin(page)                 \
  do {                                     \
    (page)->phase = PHASE_CALLING;         \
    __asm__ volatile("int3" ::: "memory"); \
  } while (0)
#define victim_end(page)                                       \
  do {                                                         \
    __asm__ volatile("" ::: "memory");                         \
    (page)->phase = PHASE_RETURNED;                            \
    if ((page)->traced) __asm__ volatile("int3" ::: "memory"); \
  } while (0)

/* One instruction. */
enum stop victim_step(struct victim *v);

/* From state 0 to state `to` of a path. STOP_DONE before `to` means that this run took another way;
 * the victim then stands behind its call. */
enum stop victim_hop(struct victim *v, const struct path *path, uint32_t to);

uint64_t victim_address(const struct victim *v);
void victim_kill(struct victim *v);
/* Let go of it, stopped by a true SIGSTOP. Returns 0 once it is stopped. */
int victim_stop(struct victim *v);
/* Continue a stopped one and wait for its end. Returns its wait status, or -1 after `ms`. */
int victim_continue(struct victim *v, int ms);

void path_reset(struct path *p);
/* Single-step from the present state, appending it and each later one, until the call returned.
 * `image` gives the fingerprint of the shared memory. Gives up after `limit` states. */
enum stop path_record(struct path *p, struct victim *v, uint64_t (*image)(void *), void *arg,
                      uint32_t limit);

#endif
