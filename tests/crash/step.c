/* SPDX-License-Identifier: Apache-2.0 */
#include "step.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BREAKPOINT 0xcc

/* The state letter in /proc/PID/stat, which stands behind the name in parentheses. */
static char state_letter(pid_t pid) {
  char path[32], text[256];
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  FILE *f = fopen(path, "re");
  if (f == NULL) return 0;
  char *line = fgets(text, sizeof text, f);
  fclose(f);
  char *close = line == NULL ? NULL : strrchr(line, ')');
  return close == NULL ? 0 : close[2];
}

static bool asleep(pid_t pid) {
  for (int looks = 0; looks < 3; looks++) {
    if (state_letter(pid) != 'S') return false;
    sched_yield();
  }
  return true;
}

static enum stop sorted(struct victim *v, int status) {
  if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP)
    return *v->phase == PHASE_RETURNED ? STOP_DONE : STOP_AT;
  v->signal = WIFSTOPPED(status) ? WSTOPSIG(status) : WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  if (WIFSTOPPED(status)) victim_kill(v);
  v->pid = 0;
  return STOP_GONE;
}

/* Wait for the next stop. A victim that cannot sleep is simply waited for: the worker's alarm
 * bounds that. One that can is watched, and woken each time. */
static enum stop await(struct victim *v) {
  int status = 0;
  v->slept = 0;
  for (unsigned tries = 1;; tries++) {
    pid_t got = waitpid(v->pid, &status, __WALL | (v->may_sleep ? WNOHANG : 0));
    if (got == v->pid) return sorted(v, status);
    if (got < 0 && errno != EINTR) return STOP_GONE;
    sched_yield();
    if (got < 0 || tries % 16 != 0 || !asleep(v->pid)) continue;
    v->slept++;
    if (v->wake == NULL) return STOP_ASLEEP;
    v->wake(v->arg);
  }
}

int victim_start(struct victim *v, void (*body)(void *), void *arg) {
  v->pid = fork();
  if (v->pid < 0) return -1;
  if (v->pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    body(arg);
    _exit(0);
  }
  int status;
  if (waitpid(v->pid, &status, 0) != v->pid) return -1;
  if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP && *v->phase == PHASE_CALLING) return 0;
  fprintf(stderr, "crash: the victim did not reach its call: wait status %#x, phase %u\n",
          (unsigned)status, *v->phase);
  if (WIFSTOPPED(status)) victim_kill(v);
  return -1;
}

enum stop victim_step(struct victim *v) {
  if (ptrace(PTRACE_SINGLESTEP, v->pid, 0, 0) != 0) return STOP_GONE;
  return await(v);
}

uint64_t victim_address(const struct victim *v) {
  return (uint64_t)ptrace(PTRACE_PEEKUSER, v->pid, offsetof(struct user, regs.rip), 0);
}

static void stand_on(struct victim *v, uint64_t address) {
  ptrace(PTRACE_POKEUSER, v->pid, offsetof(struct user, regs.rip), address);
}

/* Run to the breakpoint at `address` for the (passes + 1)-th time, and stand on it as if it had
 * never been there. */
static enum stop run_to(struct victim *v, uint64_t address, uint32_t passes) {
  void *at = (void *)(uintptr_t)address;
  errno = 0;
  long text = ptrace(PTRACE_PEEKTEXT, v->pid, at, 0);
  if (errno != 0) return STOP_GONE;
  for (;;) {
    if (ptrace(PTRACE_POKETEXT, v->pid, at, (text & ~0xffL) | BREAKPOINT) != 0) return STOP_GONE;
    if (ptrace(PTRACE_CONT, v->pid, 0, 0) != 0) return STOP_GONE;
    enum stop stop = await(v);
    if (stop == STOP_ASLEEP || stop == STOP_GONE) return stop;
    ptrace(PTRACE_POKETEXT, v->pid, at, text);
    if (victim_address(v) != address + 1) return stop; /* its own last marker */
    stand_on(v, address);
    if (passes-- == 0 || stop != STOP_AT) return stop;
    if ((stop = victim_step(v)) != STOP_AT) return stop;
  }
}

/* The state to run to: each pass of a breakpoint costs two stops, each step after it one. */
static uint32_t anchor_for(const struct path *path, uint32_t to) {
  uint32_t best = 0, cost = to;
  for (uint32_t n = to; n > 0 && to - n < cost; n--) {
    uint32_t c = 2 * path->passes[n] + 1 + (to - n);
    if (c < cost) {
      cost = c;
      best = n;
    }
  }
  return best;
}

enum stop victim_hop(struct victim *v, const struct path *path, uint32_t to) {
  uint32_t n = anchor_for(path, to);
  enum stop stop = n == 0 ? STOP_AT : run_to(v, path->address[n], path->passes[n]);
  for (; n < to && stop == STOP_AT; n++) stop = victim_step(v);
  return stop;
}

void victim_kill(struct victim *v) {
  if (v->pid <= 0) return;
  kill(v->pid, SIGKILL);
  while (waitpid(v->pid, NULL, __WALL) < 0 && errno == EINTR) continue;
  v->pid = 0;
}

int victim_stop(struct victim *v) {
  int status;
  if (ptrace(PTRACE_DETACH, v->pid, 0, SIGSTOP) != 0) return -1;
  if (waitpid(v->pid, &status, WUNTRACED) != v->pid) return -1;
  return WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP ? 0 : -1;
}

int victim_continue(struct victim *v, int ms) {
  struct timespec tick = {.tv_nsec = 50000}, now, end;
  int status;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += ms / 1000;
  end.tv_nsec += ms % 1000 * 1000000L;
  kill(v->pid, SIGCONT);
  do {
    if (waitpid(v->pid, &status, WNOHANG) == v->pid) {
      v->pid = 0;
      return status;
    }
    nanosleep(&tick, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((now.tv_sec - end.tv_sec) * 1000000000L + now.tv_nsec < end.tv_nsec);
  return -1;
}

void path_reset(struct path *p) { p->length = 0; }

static void path_add(struct path *p, uint64_t address, uint64_t image, uint8_t mark) {
  if (p->length == p->room) {
    p->room = p->room == 0 ? 4096 : 2 * p->room;
    p->address = realloc(p->address, p->room * sizeof *p->address);
    p->passes = realloc(p->passes, p->room * sizeof *p->passes);
    p->image = realloc(p->image, p->room * sizeof *p->image);
    p->mark = realloc(p->mark, p->room * sizeof *p->mark);
    if (!p->address || !p->passes || !p->image || !p->mark) abort();
  }
  uint32_t n = p->length++;
  p->address[n] = address;
  p->image[n] = image;
  p->mark[n] = mark;
}

/* Count earlier states with the same address, by a chained hash of the first of each address. */
static void path_index(struct path *p) {
  enum { BUCKETS = 4096 };
  static int32_t first[BUCKETS];
  memset(first, 0xff, sizeof first);
  int32_t *chain = malloc(p->length * sizeof *chain);
  uint32_t *seen = calloc(p->length, sizeof *seen);
  if (chain == NULL || seen == NULL) abort();
  for (uint32_t n = 0; n < p->length; n++) {
    int32_t *head = &first[(p->address[n] * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
    int32_t i = *head;
    while (i >= 0 && p->address[i] != p->address[n]) i = chain[i];
    if (i < 0) {
      i = (int32_t)n;
      chain[n] = *head;
      *head = i;
    }
    p->passes[n] = seen[i]++;
  }
  free(chain);
  free(seen);
}

static bool at_syscall(const struct victim *v, uint64_t address) {
  long text = ptrace(PTRACE_PEEKTEXT, v->pid, (void *)(uintptr_t)address, 0);
  return (text & 0xffff) == 0x050f; /* 0f 05: syscall */
}

enum stop path_record(struct path *p, struct victim *v, uint64_t (*image)(void *), void *arg,
                      uint32_t limit) {
  enum stop stop = STOP_AT;
  uint64_t was = image(arg);
  path_add(p, victim_address(v), was, 0);
  while (stop == STOP_AT && p->length < limit) {
    bool syscall = at_syscall(v, p->address[p->length - 1]);
    stop = victim_step(v);
    if (v->slept) p->mark[p->length - 1] |= MARK_SLEEP;
    if (stop != STOP_AT && stop != STOP_DONE) break;
    uint64_t is = image(arg);
    path_add(p, victim_address(v), is, (is != was ? MARK_WRITE : 0) | (syscall ? MARK_SYSCALL : 0));
    was = is;
  }
  path_index(p);
  return stop;
}
