/* SPDX-License-Identifier: Apache-2.0
 *
 * Which process goes on next: every choice in turn, or one at random.
 */
#include "scheduler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "machine.h"
#include "model_hooks.h"

#define DEPTH_MAX 20000
#define TIMEOUTS_MAX 5 /* the clock moves on so often while nobody can run; then it is over */

/* The way here, for the report of an error. */
enum { MOVE_RUN, MOVE_DIE, MOVE_STOP, MOVE_TIME };
struct move {
  signed char proc, what, pending;
  const volatile void *word;
};
static struct move path[DEPTH_MAX];
static unsigned depth;
static struct sched_result result;

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
    case MOVE_DIE: now.deaths--; machine_kill(m.proc); break;
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
      machine_run(m.proc);
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
      if (now.procs[i].status == ASLEEP && now.procs[i].deadline <= first) machine_rouse(i, -ETIMEDOUT);
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
    long offset = machine_offset(path[i].word);
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
    if (seen_before(machine_hash())) break;
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
    unsigned char *snapshot = machine_save();
    for (int i = 0; i < n && !result.error && result.complete; i++) {
      if (i > 0) machine_restore(snapshot);
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
  result = (struct sched_result){.complete = true};
  depth = 0;
  free(seen);
  seen = NULL;
  seen_size = seen_count = 0;
  machine_start(c, b);
  unsigned char *first = machine_save();
  explore(b);
  machine_restore(first);
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
  result = (struct sched_result){.complete = true, .executions = 1};
  depth = 0;
  machine_start(c, b);
  unsigned char *first = machine_save();
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
  machine_restore(first);
  free(first);
  return result;
}
