/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "scheduler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "model_hooks.h"

#define STACK_BYTES (64 * 1024)
#define LOCKS_MAX 16
#define FDS_MAX 64
#define AREAS_MAX 32
#define UNSEEN_MAX 32
#define DEPTH_MAX 20000
#define TIMEOUTS_MAX 5 /* the clock moves on so often while nobody can run; then it is over */

enum status { RUNNABLE, ASLEEP, STOPPED, DEAD, DONE };

struct proc {
  ucontext_t context;
  enum status status;
  int pending; /* what it will do next */
  const volatile void *word;
  int64_t deadline; /* asleep */
  int woken;        /* what the sleep returns */
};

/* Everything of the scheduler's own that belongs to the state. */
static struct {
  struct proc procs[PROCS_MAX];
  int sleepers[PROCS_MAX]; /* in the order of their arrival */
  int asleep;
  int64_t clock;
  int locks[LOCKS_MAX]; /* fd or 0 */
  int deaths, stops, preemptions, timeouts, last;
  bool disturbed;
} now;

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
static const struct sched_case *the_case;
static struct sched_result result;
static const char *failure; /* said by a program */

/* The way here, for the report of an error. */
enum { MOVE_RUN, MOVE_DIE, MOVE_STOP, MOVE_TIME };
struct move {
  signed char proc, what, pending;
  const volatile void *word;
};
static struct move path[DEPTH_MAX];
static unsigned depth;

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

static void run(int proc) {
  current = proc;
  swapcontext(&scheduler, &now.procs[proc].context);
  current = -1;
}

/* Each process up to its first step. */
static void start_all(const struct sched_bounds *b) {
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
    run(i);
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

static void rouse(int proc, int why) {
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
    rouse(proc, 0);
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

static void kill_proc(int proc) {
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

static unsigned char *save(void) {
  unsigned char *snapshot = malloc(state_bytes()), *at = snapshot;
  if (!snapshot) abort();
  at = mempcpy(at, &now, sizeof now);
  for (int i = 0; i < area_count; i++) at = mempcpy(at, areas[i].memory, areas[i].bytes);
  for (int i = 0; i < the_case->procs; i++)
    if (lives(i)) at = mempcpy(at, stack_from(i), (size_t)(stacks[i] + STACK_BYTES - stack_from(i)));
  return snapshot;
}

static void restore(const unsigned char *at) {
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

static uint64_t hash_state(void) {
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

/* The states that were searched: their hashes, open addressing. */
static uint64_t *seen;
static size_t seen_size, seen_count;

static bool seen_before(uint64_t h) {
  if (h == 0) h = 1;
  if (seen_count * 2 >= seen_size) {
    size_t old_size = seen_size;
    uint64_t *old = seen;
    seen_size = seen_size ? seen_size * 2 : 1 << 20;
    seen = calloc(seen_size, sizeof *seen);
    if (!seen) abort();
    for (size_t i = 0; i < old_size; i++) {
      if (!old[i]) continue;
      size_t at = old[i] & (seen_size - 1);
      while (seen[at]) at = (at + 1) & (seen_size - 1);
      seen[at] = old[i];
    }
    free(old);
  }
  size_t at = h & (seen_size - 1);
  for (; seen[at]; at = (at + 1) & (seen_size - 1))
    if (seen[at] == h) return true;
  seen[at] = h;
  seen_count++;
  return false;
}

/* ---- moves ---- */

static bool changes_something(int pending) {
  return pending != MODEL_LOAD && pending != MODEL_PAUSE && pending != MODEL_BARRIER;
}

/* Dying or stopping before a mere look is the same, to everybody else, as before the next change. */
static bool can_fall(int proc) {
  return now.procs[proc].status == RUNNABLE && changes_something(now.procs[proc].pending);
}

static void apply(struct move m) {
  struct proc *p = &now.procs[m.proc];
  switch (m.what) {
    case MOVE_DIE: now.deaths--; kill_proc(m.proc); break;
    case MOVE_STOP:
      now.stops--;
      now.disturbed = true;
      p->status = STOPPED;
      break;
    default:
      if (now.preemptions > 0 && now.last >= 0 && now.last != m.proc &&
          now.procs[now.last].status == RUNNABLE)
        now.preemptions--;
      now.last = now.preemptions >= 0 ? m.proc : -1;
      result.steps++;
      run(m.proc);
  }
}

static struct move move_of(int proc, int what) {
  return (struct move){.proc = (signed char)proc,
                       .what = (signed char)what,
                       .pending = (signed char)now.procs[proc].pending,
                       .word = now.procs[proc].word};
}

static int moves(struct move *out) {
  int n = 0, procs = the_case->procs;
  bool bound = now.preemptions == 0 && now.last >= 0 && now.procs[now.last].status == RUNNABLE;
  for (int i = 0; i < procs; i++) {
    if (now.procs[i].status == RUNNABLE && (!bound || i == now.last)) out[n++] = move_of(i, MOVE_RUN);
    if (now.deaths > 0 && can_fall(i)) out[n++] = move_of(i, MOVE_DIE);
    if (now.stops > 0 && can_fall(i)) out[n++] = move_of(i, MOVE_STOP);
  }
  return n;
}

/* Nobody can run. Let the clock go to the first deadline, if somebody died or stands still; then let who
 * stands still go on. False: it is over. */
static bool time_passes(void) {
  int64_t first = INT64_MAX;
  bool stands = false;
  for (int i = 0; i < the_case->procs; i++) stands |= now.procs[i].status == STOPPED;
  for (int i = 0; i < the_case->procs; i++)
    if (now.procs[i].status == ASLEEP && now.procs[i].deadline < first) first = now.procs[i].deadline;
  if (!stands) failure = the_case->quiet();
  if (now.disturbed && first != INT64_MAX && now.timeouts < TIMEOUTS_MAX) {
    now.timeouts++;
    now.clock = first;
    for (int i = 0; i < the_case->procs; i++)
      if (now.procs[i].status == ASLEEP && now.procs[i].deadline <= first) rouse(i, -ETIMEDOUT);
    return true;
  }
  for (int i = 0; i < the_case->procs; i++) {
    if (now.procs[i].status != STOPPED) continue;
    now.procs[i].status = RUNNABLE;
    now.timeouts = 0;
    return true;
  }
  return false;
}

static void print_path(void) {
  static const char *const kinds[MODEL_KINDS] = {"load",  "store",   "rmw",  "pause",  "sleep", "wake",
                                                 "woken", "barrier", "lock", "unlock", "call"};
  static const char *const what[] = {"", "DIES before ", "STOPS before ", ""};
  for (unsigned i = 0; i < depth; i++) {
    if (path[i].what == MOVE_TIME) {
      printf("  %4u     time passes\n", i);
      continue;
    }
    const unsigned char *base = areas[0].memory, *word = (const unsigned char *)path[i].word;
    long offset = word >= base && word < base + areas[0].bytes ? (long)(word - base) : -1;
    printf("  %4u  %d: %s%s", i, path[i].proc, what[(int)path[i].what], kinds[(int)path[i].pending]);
    if (offset >= 0) printf(" +%ld", offset);
    printf("\n");
  }
}

static void fail(const char *why) {
  result.error = why;
  print_path();
  printf("%s: %s\n", the_case->name, why);
}

/* NULL: all is well. */
static const char *judge(void) {
  bool died = false, left = false;
  for (int i = 0; i < the_case->procs; i++) {
    died |= now.procs[i].status == DEAD;
    left |= now.procs[i].status != DEAD && now.procs[i].status != DONE;
  }
  if (left && !died) return "a sleeper was left behind though nobody died";
  const char *why = the_case->verdict();
  return failure ? failure : why;
}

static bool push(struct move m) {
  if (depth + 1 >= DEPTH_MAX) {
    fail("endless");
    return false;
  }
  path[depth++] = m;
  if (depth > result.deepest) result.deepest = depth;
  return true;
}

static void explore(const struct sched_bounds *b) {
  struct move choices[3 * PROCS_MAX];
  unsigned here = depth;
  while (!result.error) {
    if (failure) return fail(failure);
    if (seen_before(hash_state())) break;
    if (++result.states >= b->states) result.complete = false;
    if (!result.complete) break;
    int n = moves(choices);
    if (n == 0) {
      if (time_passes()) {
        if (!push((struct move){.what = MOVE_TIME})) return;
        continue;
      }
      result.executions++;
      const char *why = judge();
      if (why) return fail(why);
      break;
    }
    if (n == 1) { /* no choice: no need to come back */
      if (!push(choices[0])) return;
      apply(choices[0]);
      continue;
    }
    unsigned char *snapshot = save();
    for (int i = 0; i < n && !result.error && result.complete; i++) {
      if (i > 0) restore(snapshot);
      if (!push(choices[i])) break;
      apply(choices[i]);
      explore(b);
      if (!result.error) depth--;
    }
    free(snapshot);
    break;
  }
  if (!result.error) depth = here;
}

struct sched_result sched_search(const struct sched_case *c, const struct sched_bounds *b) {
  the_case = c;
  result = (struct sched_result){.complete = true};
  depth = 0;
  free(seen);
  seen = NULL;
  seen_size = seen_count = 0;
  start_all(b);
  unsigned char *first = save();
  explore(b);
  restore(first);
  free(first);
  return result;
}

/* ---- at random ---- */

static uint64_t next_random(uint64_t *x) { /* xorshift64* */
  *x ^= *x >> 12;
  *x ^= *x << 25;
  *x ^= *x >> 27;
  return *x * UINT64_C(2685821657736338717);
}

/* Some moves of those there are: the next process at random, mostly the same again; or the one of the highest
 * rank, where ranks seldom change, so that somebody may be left standing for many laps of the others. */
static struct move pick(uint64_t *x, const struct move *choices, int n, bool ranked, uint64_t *ranks) {
  int falls = 0, best = -1;
  for (int i = 0; i < n; i++) {
    int proc = choices[i].proc;
    if (choices[i].what != MOVE_RUN) {
      falls++;
      continue;
    }
    bool same = depth > 0 && path[depth - 1].proc == proc;
    if (!ranked) ranks[proc] = same && next_random(x) % 4 ? UINT64_MAX : next_random(x) >> 1;
    if (best < 0 || ranks[proc] > ranks[(int)choices[best].proc]) best = i;
  }
  if (best < 0) return choices[next_random(x) % (uint64_t)n];
  if (ranked && next_random(x) % 16 == 0) ranks[next_random(x) % PROCS_MAX] = next_random(x);
  if (falls > 0 && next_random(x) % 48 == 0) {
    int at = (int)(next_random(x) % (uint64_t)n);
    while (choices[at].what == MOVE_RUN) at = (at + 1) % n;
    return choices[at];
  }
  return choices[best];
}

struct sched_result sched_random(const struct sched_case *c, const struct sched_bounds *b, uint64_t seed) {
  struct move choices[3 * PROCS_MAX];
  uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) | 1, ranks[PROCS_MAX];
  for (int i = 0; i < PROCS_MAX; i++) ranks[i] = next_random(&x);
  the_case = c;
  result = (struct sched_result){.complete = true, .executions = 1};
  depth = 0;
  start_all(b);
  unsigned char *first = save();
  while (!result.error) {
    if (failure) fail(failure);
    if (failure) break;
    int n = moves(choices);
    if (n == 0 && !time_passes()) break;
    if (!push(n == 0 ? (struct move){.what = MOVE_TIME} : pick(&x, choices, n, seed & 1, ranks))) break;
    if (n > 0) apply(path[depth - 1]);
  }
  if (!result.error) {
    const char *why = judge();
    if (why) fail(why);
  }
  restore(first);
  free(first);
  return result;
}
