/* SPDX-License-Identifier: Apache-2.0
 *
 * treehash DIR: arguments, the run, and the verdict.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmq/inspect.h>
#include <shmq/rpc.h>

#include "treehash.h"

enum {
  QUEUE_CELLS = 4096,
  CELL_BYTES = 192,
  LONG_NAMES = 256, /* blocks for names that no cell holds */
  KILLS_MAX = 1000,
  TICK_NS = 1000000
};

struct run {
  struct treehash *t;
  struct progress progress;
  pid_t workers[WORKERS_MAX];
  pid_t lister, daemon;
  bool listed;
  uint64_t kill_at[KILLS_MAX]; /* names done when the next worker dies, ascending, of 2^32 */
  unsigned killed;
  shmq_view *view;
  shmq_queue_info queue;
};

static volatile sig_atomic_t interrupted;
static void interrupt(int signal_number) {
  (void)signal_number;
  interrupted = 1;
}

/* ---- arguments ---- */

static void usage(FILE *to) {
  fputs(
      "usage: treehash [OPTION]... DIR\n"
      "Hash every file below DIR with worker processes, kill some of them meanwhile, and compare\n"
      "the result with sha256sum.\n\n"
      "  -w, --workers N   worker processes, each pinned to a core of its own (default: all cores)\n"
      "  -k, --kill N      workers killed at random moments and replaced (default 1)\n"
      "      --ack WHEN    when an appended result counts: memory, kernel (default) or disk\n"
      "      --daemon PATH the shmqd to start\n"
      "      --keep        keep the log and sha256sum's output, and say where\n"
      "  -q, --quiet       print the last line only\n",
      to);
}

static bool parse_number(const char *text, unsigned min, unsigned max, unsigned *value) {
  char *end;
  errno = 0;
  long n = strtol(text, &end, 10);
  if (errno || end == text || *end || n < (long)min || n > (long)max) {
    fprintf(stderr, "treehash: '%s' is not a number from %u to %u\n", text, min, max);
    return false;
  }
  *value = (unsigned)n;
  return true;
}

static bool parse_ack(const char *text, uint64_t *ack) {
  static const char *const names[] = {"memory", "kernel", "disk"};
  for (*ack = 0; *ack < 3; ++*ack)
    if (strcmp(text, names[*ack]) == 0) return true;
  fprintf(stderr, "treehash: --ack is memory, kernel or disk\n");
  return false;
}

static bool parse(int argc, char **argv, struct treehash *t, const char **program) {
  enum { ACK = 256, DAEMON, KEEP, HELP };
  static const struct option options[] = {
      {"workers", required_argument, NULL, 'w'}, {"kill", required_argument, NULL, 'k'},
      {"ack", required_argument, NULL, ACK},     {"daemon", required_argument, NULL, DAEMON},
      {"keep", no_argument, NULL, KEEP},         {"quiet", no_argument, NULL, 'q'},
      {"help", no_argument, NULL, HELP},         {NULL, 0, NULL, 0}};
  bool good = true;
  for (int o; (o = getopt_long(argc, argv, "w:k:q", options, NULL)) != -1;) {
    switch (o) {
    case 'w': good &= parse_number(optarg, 1, WORKERS_MAX, &t->workers); break;
    case 'k': good &= parse_number(optarg, 0, KILLS_MAX, &t->kills); break;
    case ACK: good &= parse_ack(optarg, &t->ack); break;
    case DAEMON: *program = optarg; break;
    case KEEP: t->keep = true; break;
    case 'q': t->quiet = true; break;
    case HELP: usage(stdout); exit(0);
    default: good = false;
    }
  }
  if (good && optind + 1 == argc) t->tree = argv[optind];
  if (!t->tree) usage(stderr);
  return t->tree;
}

static unsigned allowed_cores(void) {
  cpu_set_t set;
  int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
  return n < 1 ? 1 : n > WORKERS_MAX ? WORKERS_MAX : (unsigned)n;
}

/* Beside us in the build tree, or wherever PATH finds it. */
static const char *find_daemon(void) {
  static char path[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);
  char *slash = n > 0 ? (path[n] = 0, strrchr(path, '/')) : NULL;
  if (slash) {
    strcpy(slash, "/../daemon/shmqd");
    if (access(path, X_OK) == 0) return path;
  }
  return "shmqd";
}

/* ---- start ---- */

static int make_run_directory(struct treehash *t) {
  const char *base = getenv("XDG_RUNTIME_DIR");
  if (!base || access(base, W_OK)) base = getenv("TMPDIR");
  int n = snprintf(t->run, sizeof t->run, "%s/treehash.XXXXXX", base ? base : "/tmp");
  if (n >= 64 || !mkdtemp(t->run)) { /* a socket's path is short */
    snprintf(t->run, sizeof t->run, "/tmp/treehash.XXXXXX");
    if (!mkdtemp(t->run)) return -errno;
  }
  snprintf(t->socket, sizeof t->socket, "%s/control", t->run);
  return 0;
}

static int make_queue(struct treehash *t) {
  snprintf(t->queue, sizeof t->queue, "treehash.%d", (int)getpid());
  shmq_queue_options names = {
      .name = "names", .capacity = QUEUE_CELLS, .message_bytes = CELL_BYTES};
  shmq_options options = {.participants = 2 * t->workers + 8,
                          .blocks = LONG_NAMES,
                          .block_bytes = NAME_MAX_BYTES,
                          .queues = &names,
                          .queue_count = 1};
  int rc = shmq_create(t->queue, &options);
  uint64_t needed, available;
  if (rc == -ENOSPC && shmq_nospace_detail(&needed, &available))
    fprintf(stderr, "treehash: /dev/shm: %llu bytes needed, %llu free\n",
            (unsigned long long)needed, (unsigned long long)available);
  return rc;
}

static int lister(const struct treehash *t, unsigned index) {
  (void)index;
  return run_lister(t);
}

static int by_value(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Moments spread at random over the first nine tenths of the work. */
static void choose_moments(struct run *run) {
  for (unsigned i = 0; i < run->t->kills; i++) {
    uint32_t random = 0;
    if (getrandom(&random, sizeof random, 0) < 0) random = (uint32_t)shmq_now_ns() * 2654435761u;
    run->kill_at[i] = (uint64_t)random * 9 / 10;
  }
  qsort(run->kill_at, run->t->kills, sizeof run->kill_at[0], by_value);
}

/* ---- the run ---- */

static void kill_worker(struct run *run, uint64_t done) {
  unsigned victim = (unsigned)((uint64_t)shmq_now_ns() / 1000 % run->t->workers);
  pid_t pid = run->workers[victim];
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  run->killed++;
  if (!run->t->quiet)
    progress_say(&run->progress, "worker %u (pid %d) killed after %llu files, and replaced", victim,
                 (int)pid, (unsigned long long)done);
  run->workers[victim] = start_child(run->t, run_worker, victim);
}

static void kill_when_due(struct run *run) {
  uint64_t done = run->queue.gets, total = run->queue.puts;
  if (run->killed >= run->t->kills || !total || !(run->listed || done)) return;
  if (done >= total * run->kill_at[run->killed] >> 32) kill_worker(run, done);
}

/* Has a child ended that should not have? */
static bool child_failed(struct run *run) {
  int status;
  if (!run->listed && waitpid(run->lister, &status, WNOHANG) == run->lister) {
    run->listed = true;
    if (status) return true;
  }
  for (unsigned i = 0; i < run->t->workers; i++)
    if (waitpid(run->workers[i], &status, WNOHANG) == run->workers[i]) {
      run->workers[i] = 0;
      fprintf(stderr, "treehash: worker %u ended, status %d\n", i, status);
      return true;
    }
  return waitpid(run->daemon, &status, WNOHANG) == run->daemon;
}

static int watch(struct run *run) {
  const struct timespec tick = {.tv_nsec = TICK_NS};
  for (;;) {
    if (interrupted) return -EINTR;
    if (child_failed(run)) return -ECHILD;
    int rc = shmq_view_queue(run->view, 0, &run->queue);
    if (rc) return rc;
    kill_when_due(run);
    progress_show(&run->progress, run->t, run->queue.gets, run->queue.puts, run->listed);
    if (run->listed && run->queue.depth == 0 && run->queue.leased == 0) return 0;
    nanosleep(&tick, NULL);
  }
}

static int start_all(struct run *run, const char *program) {
  struct treehash *t = run->t;
  run->daemon = start_daemon(t, program);
  if (run->daemon < 0) return -ECHILD;
  int rc = shmq_view_open(&run->view, t->queue);
  if (rc) return rc;
  progress_begin(&run->progress, t);
  run->lister = start_child(t, lister, 0);
  for (unsigned i = 0; i < t->workers; i++) run->workers[i] = start_child(t, run_worker, i);
  return 0;
}

static void stop_workers(struct run *run, int rc) {
  shmq *names;
  if (rc == 0 && shmq_open(&names, run->t->queue, 0) == 0) {
    shmq_shutdown(names);
    shmq_close(names);
  }
  for (unsigned i = 0; i < run->t->workers; i++) {
    if (run->workers[i] <= 0) continue;
    if (rc) kill(run->workers[i], SIGKILL);
    waitpid(run->workers[i], NULL, 0);
  }
  if (!run->listed && run->lister > 0) {
    kill(run->lister, SIGKILL);
    waitpid(run->lister, NULL, 0);
  }
}

static int print_verdict(const struct run *run, const struct verdict *v, double seconds) {
  if (!run->t->quiet) {
    printf("workers=%u unreadable=%llu\n", run->t->workers, (unsigned long long)v->unreadable);
    printf("treehash %.3f s, find | xargs -P2 -n16 sha256sum %.3f s, ratio %.2f\n", seconds,
           v->sha256sum_seconds, seconds / v->sha256sum_seconds);
  }
  printf(
      "files=%llu bytes=%llu seconds=%.3f killed=%u redelivered=%llu missing=%llu duplicate=%llu "
      "mismatched=%llu\n",
      (unsigned long long)v->files, (unsigned long long)v->bytes, seconds, run->killed,
      (unsigned long long)run->queue.redeliveries, (unsigned long long)v->missing,
      (unsigned long long)v->duplicate, (unsigned long long)v->mismatched);
  return v->missing || v->duplicate || v->mismatched ? 1 : 0;
}

static int hash_tree(struct run *run, const char *program) {
  struct verdict verdict;
  int rc = start_all(run, program);
  if (!rc) rc = watch(run);
  double seconds = (double)(shmq_now_ns() - run->progress.begun_ns) / 1e9;
  progress_end(&run->progress);
  stop_workers(run, rc);
  if (!rc) rc = compare(run->t, &verdict);
  if (stop_daemon(run->daemon) && !rc) rc = -ECHILD;
  shmq_view_close(run->view);
  return rc ? rc : print_verdict(run, &verdict, seconds);
}

static void remove_run_directory(const struct treehash *t) {
  char command[PATH_MAX];
  if (t->keep) {
    printf("kept in %s\n", t->run);
    return;
  }
  snprintf(command, sizeof command, "rm -rf '%s'", t->run);
  if (system(command)) fprintf(stderr, "treehash: %s was not removed\n", t->run);
}

int main(int argc, char **argv) {
  static struct treehash t = {.kills = 1, .ack = SHMQ_LOG_ACK_KERNEL};
  static struct run run = {.t = &t};
  static char tree[PATH_MAX];
  const char *program = find_daemon();
  t.workers = allowed_cores();
  if (!parse(argc, argv, &t, &program)) return 2;
  if (!realpath(t.tree, tree)) {
    fprintf(stderr, "treehash: %s: %s\n", t.tree, strerror(errno));
    return 3;
  }
  t.tree = tree;
  t.stats = mmap(NULL, WORKERS_MAX * sizeof *t.stats, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  struct sigaction action = {.sa_handler = interrupt};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);

  int rc = t.stats == MAP_FAILED ? -errno : make_run_directory(&t);
  if (!rc) rc = make_queue(&t);
  if (!rc) {
    choose_moments(&run);
    rc = hash_tree(&run, program);
    shmq_unlink(t.queue);
  }
  if (rc < 0) fprintf(stderr, "treehash: %s\n", shmq_strerror(rc));
  if (*t.run) remove_run_directory(&t);
  return rc < 0 ? 1 : rc;
}
