/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "model_hooks.h"

#define STACK_BYTES (64 * 1024)
#define FDS_MAX 64
#define AREAS_MAX 32
#define UNSEEN_MAX 32

struct machine now;
const struct sched_case *the_case;
const char *failure;

static struct {
  void *memory;
  size_t bytes;
} areas[AREAS_MAX];
static int area_count;
static struct {
  const volatile void *memory;
  size_t bytes;
} unseen[UNSEEN_MAX];
static int unseen_count;
static signed char fd_owner[FDS_MAX];
static unsigned char *stacks[PROCS_MAX];
static ucontext_t scheduler;
static int current = -1;

void sched_own(void *memory, size_t bytes) {
  if (area_count == AREAS_MAX) abort();
  areas[area_count].memory = memory;
  areas[area_count++].bytes = bytes;
}
void sched_forget(void) {
  area_count = unseen_count = 0;
  memset(&now, 0, sizeof now);
}
void sched_unseen(const volatile void *memory, size_t bytes) {
  if (unseen_count == UNSEEN_MAX) abort();
  unseen[unseen_count].memory = memory;
  unseen[unseen_count++].bytes = bytes;
}
static bool is_unseen(const volatile void *word) {
  for (int i = 0; i < unseen_count; i++)
    if ((uintptr_t)word - (uintptr_t)unseen[i].memory < unseen[i].bytes) return true;
  return false;
}

void sched_fail(const char *why) {
  if (!failure) failure = why;
}
int sched_current(void) { return current; }
bool sched_dead(int proc) { return now.procs[proc].status == DEAD; }
bool sched_done(int proc) { return now.procs[proc].status == DONE; }
bool sched_disturbed(void) { return now.disturbed; }
int64_t sched_clock(void) { return now.clock; }

/* ---- coroutines ---- */

static void yield(void) { swapcontext(&now.procs[current].context, &scheduler); }

void model_step(const volatile void *word, int kind) {
  if (current < 0 || is_unseen(word)) return;
  now.procs[current].pending = kind;
  now.procs[current].word = word;
  yield();
}

static void entry(int proc) {
  the_case->program(proc);
  now.procs[proc].status = DONE;
  yield();
}

void machine_run(int proc) {
  current = proc;
  swapcontext(&scheduler, &now.procs[proc].context);
  current = -1;
}

/* Each process up to its first step. */
void machine_start(const struct sched_case *c, const struct sched_bounds *b) {
  the_case = c;
  failure = NULL;
  int locks[LOCKS_MAX]; /* were taken while the world was made */
  memcpy(locks, now.locks, sizeof locks);
  memset(&now, 0, sizeof now);
  memcpy(now.locks, locks, sizeof locks);
  now.clock = 1000000000;
  now.deaths = b->deaths;
  now.stops = b->stops;
  now.preemptions = b->preemptions;
  now.last = -1;
  for (int i = 0; i < the_case->procs; i++) {
    if (!stacks[i]) {
      stacks[i] = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (stacks[i] == MAP_FAILED) abort();
    }
    memset(stacks[i], 0, STACK_BYTES);
    getcontext(&now.procs[i].context);
    now.procs[i].context.uc_stack.ss_sp = stacks[i];
    now.procs[i].context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&now.procs[i].context, (void (*)(void))entry, 1, i);
    machine_run(i);
  }
}

/* The part of a stack that is in use. */
static unsigned char *stack_from(int proc) {
#ifdef __x86_64__
  uintptr_t sp = (uintptr_t)now.procs[proc].context.uc_mcontext.gregs[REG_RSP] - 128; /* and the red zone */
  unsigned char *at = (unsigned char *)(sp & ~(uintptr_t)15);
  if (at > stacks[proc] && at < stacks[proc] + STACK_BYTES) return at;
#endif
  return stacks[proc];
}
static bool lives(int proc) { return now.procs[proc].status < DEAD; }

long machine_offset(const volatile void *word) {
  uintptr_t offset = (uintptr_t)word - (uintptr_t)areas[0].memory;
  return offset < areas[0].bytes ? (long)offset : -1;
}

/* ---- futexes, locks ---- */

static void forget_sleeper(int proc) {
  for (int i = 0, kept = 0, n = now.asleep; i < n; i++) {
    if (now.sleepers[i] == proc)
      now.asleep--;
    else
      now.sleepers[kept++] = now.sleepers[i];
  }
  for (int i = now.asleep; i < PROCS_MAX; i++) now.sleepers[i] = 0;
}

void machine_rouse(int proc, int why) {
  forget_sleeper(proc);
  now.procs[proc].status = RUNNABLE;
  now.procs[proc].pending = MODEL_WOKEN;
  now.procs[proc].woken = why;
  now.procs[proc].deadline = 0;
}

int sched_sleep(const volatile void *word, uint32_t value, int64_t deadline) {
  model_step(word, MODEL_FUTEX_WAIT);
  if (current < 0) return -EINTR; /* a verdict does not sleep */
  if (*(const volatile uint32_t *)word != value) return -EAGAIN;
  struct proc *p = &now.procs[current];
  p->status = ASLEEP;
  p->word = word;
  p->deadline = deadline;
  now.sleepers[now.asleep++] = current;
  yield();
  return p->woken;
}

int sched_wake(const volatile void *word, int n) {
  model_step(word, MODEL_FUTEX_WAKE);
  int woken = 0;
  for (int i = 0; i < now.asleep && woken < n;) {
    int proc = now.sleepers[i];
    if (now.procs[proc].word != word || now.procs[proc].status != ASLEEP) {
      i++;
      continue;
    }
    machine_rouse(proc, 0);
    woken++;
  }
  return woken;
}

void sched_fd(int fd, int proc) {
  if (fd < 0 || fd >= FDS_MAX) abort();
  fd_owner[fd] = (signed char)proc;
}
int sched_lock(int fd, uint32_t byte) {
  model_step(NULL, MODEL_LOCK);
  if (byte >= LOCKS_MAX) return 0;
  if (now.locks[byte] != 0 && now.locks[byte] != fd) return -EAGAIN;
  now.locks[byte] = fd;
  return 0;
}
void sched_unlock(int fd, uint32_t byte) {
  model_step(NULL, MODEL_UNLOCK);
  if (byte < LOCKS_MAX && now.locks[byte] == fd) now.locks[byte] = 0;
}
bool sched_locked(uint32_t byte) { return byte < LOCKS_MAX && now.locks[byte] != 0; }

void machine_kill(int proc) {
  forget_sleeper(proc);
  now.procs[proc].status = DEAD;
  now.disturbed = true;
  for (int i = 0; i < LOCKS_MAX; i++)
    if (now.locks[i] && fd_owner[now.locks[i]] == proc) now.locks[i] = 0;
}

/* ---- saving, restoring, hashing ---- */

static size_t state_bytes(void) {
  size_t bytes = sizeof now;
  for (int i = 0; i < area_count; i++) bytes += areas[i].bytes;
  for (int i = 0; i < the_case->procs; i++)
    if (lives(i)) bytes += (size_t)(stacks[i] + STACK_BYTES - stack_from(i));
  return bytes;
}

unsigned char *machine_save(void) {
  unsigned char *snapshot = malloc(state_bytes()), *at = snapshot;
  if (!snapshot) abort();
  at = mempcpy(at, &now, sizeof now);
  for (int i = 0; i < area_count; i++) at = mempcpy(at, areas[i].memory, areas[i].bytes);
  for (int i = 0; i < the_case->procs; i++)
    if (lives(i)) at = mempcpy(at, stack_from(i), (size_t)(stacks[i] + STACK_BYTES - stack_from(i)));
  return snapshot;
}

void machine_restore(const unsigned char *at) {
  memcpy(&now, at, sizeof now);
  at += sizeof now;
  for (int i = 0; i < area_count; i++) {
    memcpy(areas[i].memory, at, areas[i].bytes);
    at += areas[i].bytes;
  }
  for (int i = 0; i < the_case->procs; i++) {
    if (!lives(i)) continue;
    size_t n = (size_t)(stacks[i] + STACK_BYTES - stack_from(i));
    memcpy(stack_from(i), at, n);
    at += n;
  }
}

static uint64_t mix(uint64_t h, const void *memory, size_t bytes) {
  const unsigned char *at = memory;
  uint64_t w;
  for (; bytes >= 8; bytes -= 8, at += 8) {
    memcpy(&w, at, 8);
    h = (h ^ w) * UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 29;
  }
  for (; bytes > 0; bytes--, at++) h = (h ^ *at) * UINT64_C(0x100000001b3);
  return h;
}

uint64_t machine_hash(void) {
  uint64_t h = 0x243f6a8885a308d3;
  for (int i = 0; i < area_count; i++) h = mix(h, areas[i].memory, areas[i].bytes);
  for (int i = 0; i < the_case->procs; i++) {
    const struct proc *p = &now.procs[i];
    h = mix(h, &p->status, sizeof p->status);
    if (!lives(i)) continue;
    h = mix(h, &p->pending, sizeof p->pending);
    h = mix(h, &p->word, sizeof p->word);
    h = mix(h, &p->deadline, sizeof p->deadline);
    h = mix(h, &p->woken, sizeof p->woken);
#ifdef __x86_64__
    static const int saved[] = {REG_RBX, REG_RBP, REG_R12, REG_R13, REG_R14, REG_R15, REG_RSP, REG_RIP};
    for (unsigned r = 0; r < sizeof saved / sizeof *saved; r++)
      h = mix(h, &p->context.uc_mcontext.gregs[saved[r]], 8);
#endif
    unsigned char *from = stack_from(i) + 128;
    h = mix(h, from, (size_t)(stacks[i] + STACK_BYTES - from));
  }
  return mix(h, now.sleepers, sizeof now - offsetof(__typeof__(now), sleepers));
}
