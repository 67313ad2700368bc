/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "daemon.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH = 512, DEPTH_MAX = 256 };

static _Noreturn void be_daemon(const struct bench_daemon *d, const char *build, int cpu,
                                int ready) {
  char program[PATH], tree[PATH], log[PATH], fd[16];
  snprintf(program, sizeof program, "%s/daemon/shmqd", build);
  snprintf(tree, sizeof tree, "dir:tree.path=%s/tree", d->dir);
  snprintf(log, sizeof log, "log:log.path=%s/log", d->dir);
  snprintf(fd, sizeof fd, "%d", ready);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (cpu >= 0) placement_pin(cpu);
  execl(program, "shmqd", "-q", "--config", "/dev/null", "--dir", d->dir, "--ready-fd", fd, "--set",
        tree, "--set", log, (char *)NULL);
  perror(program);
  _exit(127);
}

int bench_daemon_start(struct bench_daemon *d, const struct suite *s, int cpu) {
  char tree[PATH], byte;
  int ready[2];
  snprintf(d->dir, sizeof d->dir, "%s/shmq-bench.XXXXXX", s->dir);
  if (!mkdtemp(d->dir) || pipe(ready) < 0) {
    perror(d->dir);
    return -1;
  }
  snprintf(d->socket, sizeof d->socket, "%s/control", d->dir);
  snprintf(tree, sizeof tree, "%s/tree", d->dir);
  (void)mkdir(tree, 0700);
  d->pid = fork();
  if (d->pid == 0) {
    close(ready[0]);
    be_daemon(d, s->build, cpu, ready[1]);
  }
  close(ready[1]);
  bool up = read(ready[0], &byte, 1) == 1;
  close(ready[0]);
  if (up) return 0;
  fprintf(stderr, "bench: the daemon did not start\n");
  bench_daemon_stop(d);
  return -1;
}

void bench_daemon_stop(struct bench_daemon *d) {
  char command[PATH];
  kill(d->pid, SIGTERM);
  waitpid(d->pid, NULL, 0);
  snprintf(command, sizeof command, "rm -rf '%s'", d->dir);
  if (system(command) != 0) fprintf(stderr, "bench: %s is left over\n", d->dir);
}

static void must(const char *what, int rc) {
  if (rc >= 0) return;
  fprintf(stderr, "bench: %s: %s\n", what, shmq_strerror(rc));
  abort();
}

shmq_client *bench_connect(const struct bench_daemon *d, uint32_t credits, unsigned flags) {
  shmq_client *client;
  shmq_session_options options = {.credits = credits, .blocks = credits + 2, .block_bytes = 8192};
  must(d->socket, shmq_client_connect(&client, d->socket, &options, flags));
  return client;
}

/* ---- load ---- */

uint64_t load_random(uint64_t *state) {
  uint64_t x = *state ? *state : 88172645463325252u;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return *state = x;
}

/* A ring of futures: the oldest is awaited, then asked anew. */
double load_run(struct load *l, double seconds) {
  shmq_future *future[DEPTH_MAX];
  uint64_t prepared[DEPTH_MAX];
  unsigned depth = l->depth < DEPTH_MAX ? l->depth : DEPTH_MAX;
  long answered = 0;
  double start = window_now(), now = start;
  for (unsigned long i = 0; i < depth || now - start < seconds; i++) {
    unsigned at = (unsigned)(i % depth);
    if (i >= depth) {
      shmq_result result;
      must("await", shmq_await(future[at], &result, SHMQ_FOREVER));
      if (l->check) l->check(l, &result, prepared[at]);
      shmq_future_free(future[at]);
      answered++;
      if (answered % 16 == 0 || depth < 16) now = window_now();
    }
    if (l->prepare) l->prepare(l);
    prepared[at] = l->prepared;
    must("request", shmq_request(l->client, &l->ask, SHMQ_FOREVER, &future[at]));
  }
  double rate = (double)answered / (now - start);
  for (unsigned i = 0; i < depth; i++) {
    shmq_result result;
    must("await", shmq_await(future[i], &result, SHMQ_FOREVER));
    shmq_future_free(future[i]);
  }
  return rate;
}
