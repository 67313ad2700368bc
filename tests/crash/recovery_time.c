/* SPDX-License-Identifier: Apache-2.0
 *
 * How long recovery takes, for a ring of 65,536 cells. Prints JSON; judges nothing.
 *
 *   recovery_time [--kills N] [--capacity CELLS]
 *
 *   guarded    from the moment the kernel reports a death until shmq_recover has settled
 *              everything the dead held, as a guard (shmqd, with a pidfd) does it
 *   unguarded  from the same moment until a taker whose way is blocked by the dead one's
 *              unpublished cell, and who was asleep already, has the message behind it
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmq/shmq.h>

enum { KILLS_MAX = 100000, MESSAGE = 48 };

static char name[32];
static shmq *queue;
static volatile uint32_t *ready;
static double samples[KILLS_MAX];

static void must(const char *what, int64_t rc) {
  if (rc >= 0) return;
  fprintf(stderr, "recovery_time: %s: %s\n", what, shmq_strerror((int)rc));
  shmq_unlink(name);
  exit(1);
}

static _Noreturn void victim(void) {
  char data[MESSAGE] = {0};
  shmq *q;
  shmq_message held[5];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  must("open", shmq_open(&q, name, 0));
  for (int i = 0; i < 8; i++) must("put", shmq_put(q, data, sizeof data, SHMQ_NOWAIT));
  for (int i = 0; i < 4; i++) must("lease", shmq_lease(q, &held[i], SHMQ_NOWAIT));
  must("reserve", shmq_reserve(q, sizeof data, &held[4], SHMQ_NOWAIT));
  *ready = 1;
  for (;;) pause();
}

/* Kill a victim that holds four leases and a reservation. Returns when the kernel reported it. */
static int64_t death(void) {
  *ready = 0;
  pid_t pid = fork();
  if (pid == 0) victim();
  if (pid < 0) must("fork", -1);
  struct timespec tick = {.tv_nsec = 100000};
  while (!*ready) nanosleep(&tick, NULL);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  return shmq_now_ns();
}

static void drain(void) {
  char data[MESSAGE];
  ssize_t rc;
  do rc = shmq_get(queue, data, sizeof data, SHMQ_NOWAIT);
  while (rc >= 0);
}

static double guarded(void) {
  int64_t died = death();
  int rc = shmq_recover(shmq_segment_of(queue));
  int64_t done = shmq_now_ns();
  must("recover", rc);
  drain();
  return (double)(done - died) * 1e-6;
}

/* The taker is this process's child: it drains what can be had and sleeps when the victim dies. */
static double unguarded(volatile int64_t *taken_ns) {
  *taken_ns = 0;
  *ready = 0;
  pid_t holder = fork();
  if (holder == 0) {
    shmq *q;
    shmq_message m;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must("open", shmq_open(&q, name, 0));
    must("reserve", shmq_reserve(q, MESSAGE, &m, SHMQ_NOWAIT));
    *ready = 1;
    for (;;) pause();
  }
  struct timespec tick = {.tv_nsec = 100000}, rest = {.tv_nsec = 20000000};
  while (!*ready) nanosleep(&tick, NULL);
  char data[MESSAGE] = {0};
  must("put",
       shmq_put(queue, data, sizeof data, SHMQ_NOWAIT)); /* stands behind the victim's cell */
  pid_t taker = fork();
  if (taker == 0) {
    shmq *q;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must("open", shmq_open(&q, name, 0));
    must("get", shmq_get(q, data, sizeof data, shmq_after_ns(INT64_C(10000000000))));
    *taken_ns = shmq_now_ns();
    shmq_close(q);
    _exit(0);
  }
  nanosleep(&rest, NULL);
  kill(holder, SIGKILL);
  waitpid(holder, NULL, 0);
  int64_t died = shmq_now_ns();
  waitpid(taker, NULL, 0);
  return (double)(*taken_ns - died) * 1e-6;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print(const char *what, int n, const char *end) {
  qsort(samples, (size_t)n, sizeof *samples, ascending);
  printf("\"%s_ms\": {\"n\": %d, \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}%s", what, n,
         samples[n / 2], samples[n * 99 / 100], samples[n - 1], end);
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"kills", required_argument, NULL, 'k'},
                                          {"capacity", required_argument, NULL, 'c'},
                                          {NULL, 0, NULL, 0}};
  shmq_queue_options q = {.capacity = 65536, .message_bytes = MESSAGE};
  shmq_options create = {.participants = 16, .queues = &q, .queue_count = 1};
  int kills = 500;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (c) {
    case 'k': kills = (int)strtol(optarg, NULL, 10); break;
    case 'c': q.capacity = (uint32_t)strtoul(optarg, NULL, 10); break;
    default: return 2;
    }
  if (kills < 1 || kills > KILLS_MAX) return 2;
  snprintf(name, sizeof name, "t-recovery-%d", (int)getpid());
  must("create", shmq_create(name, &create));
  must("open", shmq_open(&queue, name, 0));
  void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  ready = shared;

  printf("{\"capacity\": %u, ", shmq_capacity(queue));
  for (int i = 0; i < kills; i++) samples[i] = guarded();
  print("guarded", kills, ", ");
  int fewer = kills < 100 ? kills : 100;
  for (int i = 0; i < fewer; i++) samples[i] = unguarded((volatile int64_t *)shared + 1);
  print("unguarded", fewer, "}\n");
  shmq_close(queue);
  shmq_unlink(name);
  return 0;
}
