/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "sides.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_US = 2000, LOOKS_MOST = 60000 }; /* two minutes, for windows of a second at most */

void *shared_memory(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

void shared_memory_free(void *memory, size_t bytes) {
  if (memory) munmap(memory, bytes);
}

void gate_pass(struct gate *gate) {
  atomic_fetch_add(&gate->ready, 1);
  while (!atomic_load_explicit(&gate->open, memory_order_acquire)) sched_yield();
}

struct start {
  side_fn *run;
  void *context;
  int number;
};

static void *side_thread(void *argument) {
  struct start *s = argument;
  s->run(s->context, s->number);
  return NULL;
}

static void open_gate(struct gate *gate) {
  atomic_store_explicit(&gate->open, 1, memory_order_release);
}

static bool run_threads(struct gate *gate, int n, side_fn *run, void *context) {
  pthread_t thread[SIDES_MAX];
  struct start start[SIDES_MAX];
  for (int i = 0; i < n; i++) {
    start[i] = (struct start){run, context, i};
    if (pthread_create(&thread[i], NULL, side_thread, &start[i]) != 0) _exit(1);
  }
  while (atomic_load(&gate->ready) < n) usleep(200);
  open_gate(gate);
  for (int i = 0; i < n; i++) pthread_join(thread[i], NULL);
  return true;
}

/* Take the ends of sides that have ended. Returns false when one of them failed. */
static bool take_ends(pid_t *pid, int n, int *left, int options) {
  for (int i = 0; i < n; i++) {
    int status;
    if (pid[i] <= 0 || waitpid(pid[i], &status, options) != pid[i]) continue;
    pid[i] = 0;
    --*left;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return false;
  }
  return true;
}

static bool run_processes(struct gate *gate, int n, side_fn *run, void *context) {
  pid_t pid[SIDES_MAX] = {0}, parent = getpid();
  int left = n;
  bool ok = true;
  for (int i = 0; i < n; i++) {
    pid[i] = fork();
    if (pid[i] == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      run(context, i);
      _exit(0);
    }
    if (pid[i] < 0) ok = false;
  }
  while (ok && atomic_load(&gate->ready) < n) {
    usleep(200);
    ok = take_ends(pid, n, &left, WNOHANG) && left == n;
  }
  open_gate(gate);
  /* A side that died leaves the others waiting for it: a look now and then finds that, and disturbs nobody. So do
   * those whose message a library has lost. */
  for (int looks = 0; ok && left > 0; looks++) {
    ok = take_ends(pid, n, &left, WNOHANG) && looks < LOOKS_MOST;
    if (ok && left > 0) usleep(LOOK_US);
  }
  for (int i = 0; i < n; i++)
    if (pid[i] > 0) {
      kill(pid[i], SIGKILL);
      waitpid(pid[i], NULL, 0);
    }
  return ok;
}

bool sides_run(struct gate *gate, int n, bool threads, side_fn *run, void *context) {
  if (n > SIDES_MAX) return false;
  return (threads ? run_threads : run_processes)(gate, n, run, context);
}
