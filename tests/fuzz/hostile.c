/* SPDX-License-Identifier: Apache-2.0
 *
 * The hostile peer. A victim makes every call on a live segment while other processes rewrite its words, at
 * random, or one of them as fast as they can. The victim may get errors; it may not crash, touch what
 * is not a message's, or stay in a call.
 *
 *   fuzz_hostile [--seconds N] [--seed S]      N: $SHMQ_FUZZ_SECONDS, or 60
 *
 * A round is a new segment, one scribbler, one hammer, an honest peer and a victim. The parent watches: the victim
 * says in its own memory when it entered a call. A failure prints the seed of its round.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "guard.h"
#include "world.h"

#define MS INT64_C(1000000)
#define ROUND_NS (1000 * MS)
#define PATIENCE_NS (3 * MS)
/* No call waits for longer than PATIENCE_NS and a bounded look. The rest is for a machine with far more to
 * do than this, under a sanitizer. */
#define STUCK_NS (20000 * MS)

/* Between the parent and the victim; nobody else knows it. */
struct report {
  _Atomic int64_t entered_ns;
  _Atomic int64_t worst_ns;
  _Atomic uint64_t calls;
  _Atomic(const char *) last;
};

enum role { SCRIBBLER, HAMMER, HONEST, VICTIM, ROLES };

/* A word now and then, so that the victim gets somewhere. */
static void scribble(const shmq_segment *segment, struct input *in) {
  for (;;) {
    world_scribble(segment, in);
    usleep(input_u8(in) * 4u);
  }
}

/* For a while, or, in every other round, one word to its end. */
static void hammer(const shmq_segment *segment, struct input *in, bool to_the_end) {
  if (to_the_end) world_hammer(segment, in, UINT64_MAX);
  for (;;) {
    world_hammer(segment, in, UINT64_C(1) << input_below(in, 24));
    usleep(input_u16(in) / 8u);
  }
}

static void call(int fd, struct input *in, struct report *report) {
  struct caller caller = {.patience_ns = PATIENCE_NS};
  (void)caller_open(&caller, fd);
  for (;;) {
    if (caller.segment) guard_poison(caller.segment);
    int64_t entered = shmq_now_ns();
    atomic_store(&report->entered_ns, entered);
    atomic_store(&report->last, caller_call(&caller, in));
    atomic_fetch_add(&report->calls, 1);
    int64_t took = shmq_now_ns() - entered;
    if (took > atomic_load(&report->worst_ns)) atomic_store(&report->worst_ns, took);
  }
}

static pid_t start(enum role role, int fd, const shmq_segment *segment, uint64_t seed,
                   struct report *report) {
  pid_t pid = fork();
  check(pid >= 0, "fork");
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that is ended from outside leaves nobody behind */
  struct input in = input_endless(seed * ROLES + role);
  switch (role) {
    case SCRIBBLER: scribble(segment, &in); break;
    case HAMMER: hammer(segment, &in, seed & 1); break;
    default: call(fd, &in, report); break;
  }
  _exit(0);
}

static void stop(pid_t pid) {
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
}

/* Watch the victim until the round is over. Returns whether it kept the promise. */
static bool watch(pid_t victim, const struct report *report) {
  int64_t end = shmq_after_ns(ROUND_NS);
  int status;
  for (;;) {
    if (waitpid(victim, &status, WNOHANG) == victim) {
      fprintf(stderr, "the victim ended with status %#x, after %s\n", (unsigned)status,
              atomic_load(&report->last));
      return false;
    }
    int64_t now = shmq_now_ns(), entered = atomic_load(&report->entered_ns);
    if (entered > 0 && now - entered > STUCK_NS) {
      fprintf(stderr, "the victim stays in a call, after %s\n", atomic_load(&report->last));
      kill(victim, SIGABRT); /* for its stack */
      stop(victim);
      return false;
    }
    if (now >= end && (entered == 0 || now - entered < 100 * MS)) break;
    usleep(10000);
  }
  stop(victim);
  return true;
}

static bool round_of(uint64_t seed, struct report *reports) {
  int fd = world_create((unsigned)seed);
  shmq_segment *segment; /* its mapping is the attackers'; attached while it can be */
  pid_t pids[ROLES];
  check(shmq_attach_fd(&segment, fd) == 0, "a new segment cannot be attached");
  reports[0] = reports[1] = (struct report){.last = "nothing"};
  for (enum role r = SCRIBBLER; r < ROLES; r++)
    pids[r] = start(r, fd, segment, seed, &reports[r == VICTIM]);
  bool good = watch(pids[VICTIM], &reports[1]);
  /* The honest peer is a victim as well. */
  int status;
  if (good && waitpid(pids[HONEST], &status, WNOHANG) == pids[HONEST]) {
    fprintf(stderr, "the honest peer ended with status %#x\n", (unsigned)status);
    good = false;
  } else if (good) {
    stop(pids[HONEST]);
  }
  stop(pids[SCRIBBLER]);
  stop(pids[HAMMER]);
  shmq_detach(segment);
  close(fd);
  return good;
}

int main(int argc, char **argv) {
  const char *given = getenv("SHMQ_FUZZ_SECONDS");
  uint64_t seed = 1, rounds = 0, calls = 0;
  int64_t worst_ns = 0;
  long seconds = given ? strtol(given, NULL, 10) : 60;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--seconds") == 0) seconds = strtol(argv[i + 1], NULL, 10);
    if (strcmp(argv[i], "--seed") == 0) seed = strtoull(argv[i + 1], NULL, 10);
  }
  struct report *reports = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  check(reports != MAP_FAILED, "mmap");
  int64_t end = shmq_after_ns(seconds * 1000 * MS);
  do {
    if (!round_of(seed + rounds, reports)) {
      fprintf(stderr, "round with --seed %llu\n", (unsigned long long)(seed + rounds));
      return 1;
    }
    calls += reports[0].calls + reports[1].calls;
    for (int i = 0; i < 2; i++)
      if (reports[i].worst_ns > worst_ns) worst_ns = reports[i].worst_ns;
    rounds++;
  } while (shmq_now_ns() < end);
  printf("rounds=%llu calls=%llu worst_call_ms=%lld\n", (unsigned long long)rounds,
         (unsigned long long)calls, (long long)(worst_ns / MS));
  return calls == 0;
}
