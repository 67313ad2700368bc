/* SPDX-License-Identifier: Apache-2.0
 *
 * Kills every call of the library at every instruction and lets the survivors show what is left.
 *
 *   crash [--full] [--stride N] [--workers N] [--report FILE] [--markdown FILE]
 *         [--only CALL/STATE/MODE/KIND] [--at N] [--then M] [--list] [--verbose] [--first] [--cell BYTES]
 *
 * --only takes a shell pattern over the names that --list prints. --at and --then repeat one point,
 * which a FAULT line names. --first starts no case after one with a fault.
 * --cell: messages that fill cells of so many bytes. 57 to 64 have their payloads apart from the words (core/geometry.c); longer ones
 * have several lines; without it they are short.
 * Exit status: 0 nothing lost, duplicated, leaked or hung; 1 something was; 77 no ptrace.
 */
#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report.h"

enum { JOBS_MAX = 4096, WORKERS_MAX = 64 };

struct worker {
  volatile int32_t job; /* -1: none */
  struct place place;
  struct page pages[2];
};

struct shared {
  atomic_uint next;
  atomic_uint faulty; /* jobs with a fault */
  struct worker workers[WORKERS_MAX];
  struct tally tallies[JOBS_MAX];
};

static struct job jobs[JOBS_MAX];
static unsigned job_count;
static struct shared *shared;
static pid_t pids[WORKERS_MAX];
static bool verbose, first_only;
static struct plan plan = {.stride = 97, .only_n = -1, .only_m = -1};

/* ---- the matrix ---- */

static bool wanted(const struct job *j, const char *only) {
  char name[128];
  snprintf(name, sizeof name, "%s/%s/%s/%s", j->call->name, state_names[j->state],
           mode_names[j->mode], kind_names[j->kind]);
  return only == NULL || fnmatch(only, name, 0) == 0;
}

/* The short plan takes recovery in the two extreme modes only, and stops and recoveries without the
 * states in which every point needs other processes to fall asleep first. */
static bool applies(const struct job *j) {
  if ((j->call->states >> j->state & 1) == 0 || (j->call->modes >> j->mode & 1) == 0) return false;
  bool single_put = j->mode == MODE_SPMC || j->mode == MODE_SPSC;
  bool single_take = j->mode == MODE_MPSC || j->mode == MODE_SPSC;
  if (j->state == STATE_CONTENDED && j->kind != KIND_KILL) return false;
  if (j->kind == KIND_REJOIN && j->call->creates) return false;
  if (j->kind == KIND_STOP && j->call->drops) return false; /* beside a peer, what is the oldest? */
  bool asleep = j->state == STATE_ASLEEP || j->state == STATE_SLEEPS;
  if (j->kind == KIND_TWIN && (asleep || j->call->creates || j->call->drops)) return false;
  if (plan.full) return true;
  if (j->kind == KIND_STOP && asleep) return false;
  if (j->kind >= KIND_RECOVER && (asleep || (single_put != single_take))) return false;
  return j->kind < KIND_REJOIN || j->mode == MODE_MPMC;
}

static void lay_out(const char *only) {
  for (unsigned c = 0; c < call_count; c++)
    for (enum kind k = 0; k < KIND_COUNT; k++)
      for (enum state s = 0; s < STATE_COUNT; s++)
        for (enum mode m = 0; m < MODE_COUNT && job_count < JOBS_MAX; m++) {
          struct job j = {&calls[c], s, m, k};
          if (applies(&j) && wanted(&j, only)) jobs[job_count++] = j;
        }
}

/* ---- workers ---- */

static void pin(unsigned number) {
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  unsigned left = number % (unsigned)CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || left-- != 0) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

/* A worker, its victims and its sleepers share one CPU: a step is then a switch, not a wake-up. */
static _Noreturn void work(unsigned number) {
  struct worker *me = &shared->workers[number];
  char name[48];
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  pin(number);
  snprintf(name, sizeof name, "t-crash-%d-%u", (int)getppid(), number);
  for (;;) {
    unsigned i = atomic_fetch_add(&shared->next, 1);
    if (i >= job_count || (first_only && atomic_load(&shared->faulty) > 0)) break;
    me->job = (int32_t)i;
    int64_t begun = shmq_now_ns();
    campaign(&jobs[i], &plan, name, me->pages, &me->place, &shared->tallies[i]);
    if (report_faults(&shared->tallies[i]) > 0) atomic_fetch_add(&shared->faulty, 1);
    shared->tallies[i].seconds = (double)(shmq_now_ns() - begun) * 1e-9;
    if (verbose)
      fprintf(stderr, "%s/%s/%s/%s: %u instructions, %lu points, %.1f s\n", jobs[i].call->name,
              state_names[jobs[i].state], mode_names[jobs[i].mode], kind_names[jobs[i].kind],
              shared->tallies[i].instructions, (unsigned long)shared->tallies[i].points,
              shared->tallies[i].seconds);
    me->job = -1;
  }
  _exit(0);
}

static void start(unsigned number) {
  shared->workers[number].job = -1;
  fflush(NULL);
  pids[number] = fork();
  if (pids[number] == 0) work(number);
  if (pids[number] < 0) {
    perror("crash: fork");
    exit(1);
  }
}

/* A worker that ended inside a job: the survivor it plays hung (SIGALRM) or crashed. */
static void post_mortem(unsigned number, int status) {
  const struct worker *w = &shared->workers[number];
  char name[64];
  if (w->job < 0) {
    fprintf(stderr, "crash: a worker ended between its jobs, wait status %#x\n", (unsigned)status);
    exit(1);
  }
  const struct job *j = &jobs[w->job];
  fprintf(stderr,
          "FAULT %s/%s/%s %s --at %u --then %u: the survivor ended with wait status %#x%s\n",
          j->call->name, state_names[j->state], mode_names[j->mode], kind_names[j->kind],
          w->place.n, w->place.m, (unsigned)status,
          WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? ": it hung" : "");
  shared->tallies[w->job].hung++;
  atomic_fetch_add(&shared->faulty, 1);
  snprintf(name, sizeof name, "t-crash-%d-%u", (int)getpid(), number);
  shmq_unlink(name);
}

static void run_all(unsigned workers) {
  unsigned running = 0;
  for (; running < workers; running++) start(running);
  while (running > 0) {
    int status;
    pid_t pid = wait(&status);
    for (unsigned i = 0; i < workers; i++) {
      if (pids[i] != pid) continue;
      running--;
      if (status == 0) continue;
      post_mortem(i, status);
      start(i);
      running++;
    }
  }
}

/* ---- results ---- */

static int count_left(const char *name, void *ctx) {
  char prefix[32];
  int n = snprintf(prefix, sizeof prefix, "t-crash-%d-", (int)getpid());
  if (strncmp(name, prefix, (size_t)n) != 0) return 0;
  ++*(uint64_t *)ctx;
  fprintf(stderr, "FAULT: left in /dev/shm: %s\n", name);
  return 0;
}

/* A run that was killed itself leaves segments behind; their names tell whose they are. */
static int sweep(const char *name, void *ctx) {
  int pid;
  (void)ctx;
  if (sscanf(name, "t-crash-%d-", &pid) == 1 && kill(pid, 0) < 0 && errno == ESRCH)
    shmq_unlink(name);
  return 0;
}

static struct tally summarise(void) {
  struct tally total = {0}, kinds[KIND_COUNT] = {{0}};
  for (unsigned i = 0; i < job_count; i++) {
    struct tally *t = &shared->tallies[i];
    uint64_t faults = report_faults(t);
    if (faults > 0)
      printf("%s/%s/%s/%s: %lu faults at %lu points\n", jobs[i].call->name,
             state_names[jobs[i].state], mode_names[jobs[i].mode], kind_names[jobs[i].kind],
             (unsigned long)faults, (unsigned long)t->points);
    tally_add(&total, t);
    tally_add(&kinds[jobs[i].kind], t);
  }
  for (enum kind k = 0; k < KIND_COUNT; k++)
    printf("%s: %lu points, %.0f s of work, worst wait %.1f ms\n", kind_names[k],
           (unsigned long)kinds[k].points, kinds[k].seconds, kinds[k].worst_wait_ms);
  return total;
}

static bool can_trace(void) {
  int status = -1;
  pid_t pid = fork();
  if (pid == 0) _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 0 : 1);
  return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"full", no_argument, NULL, 'f'},           {"stride", required_argument, NULL, 's'},
      {"workers", required_argument, NULL, 'w'},  {"report", required_argument, NULL, 'r'},
      {"markdown", required_argument, NULL, 'm'}, {"only", required_argument, NULL, 'o'},
      {"at", required_argument, NULL, 'n'},       {"then", required_argument, NULL, 't'},
      {"list", no_argument, NULL, 'l'},           {"verbose", no_argument, NULL, 'v'},
      {"cell", required_argument, NULL, 'c'},
      {"first", no_argument, NULL, '1'},          {NULL, 0, NULL, 0}};
  const char *report = NULL, *markdown = NULL, *only = NULL;
  unsigned workers = 2 * (unsigned)sysconf(_SC_NPROCESSORS_ONLN); /* survivors also sleep */
  bool list = false;
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (c) {
    case 'f': plan.full = true; break;
    case 's': plan.stride = (uint32_t)strtoul(optarg, NULL, 10); break;
    case 'w': workers = (unsigned)strtoul(optarg, NULL, 10); break;
    case 'r': report = optarg; break;
    case 'm': markdown = optarg; break;
    case 'o': only = optarg; break;
    case 'n': plan.only_n = strtol(optarg, NULL, 10); break;
    case 't': plan.only_m = strtol(optarg, NULL, 10); break;
    case 'l': list = true; break;
    case 'v': verbose = true; break;
    case '1': first_only = true; break;
    case 'c': cell_bytes = small_bytes = (uint32_t)strtoul(optarg, NULL, 10); break;
    default: return 2;
    }
  if (small_bytes < 24 || small_bytes >= LARGE) return 2;
  if (plan.stride == 0 || workers == 0 || workers > WORKERS_MAX) return 2;
  lay_out(only);
  if (list) {
    for (unsigned i = 0; i < job_count; i++)
      printf("%s/%s/%s/%s\n", jobs[i].call->name, state_names[jobs[i].state],
             mode_names[jobs[i].mode], kind_names[jobs[i].kind]);
    return 0;
  }
  if (!can_trace()) {
    puts("crash: skipped: this machine does not let a process trace its child");
    return 77;
  }
  shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 1;
  shmq_list(sweep, NULL);
  run_all(workers);

  uint64_t left = 0;
  shmq_list(count_left, &left);
  struct tally total = summarise();
  if (job_count > 0) shared->tallies[0].leaked += left;
  total.leaked += left;
  printf("%u cases, %lu points, %lu lost, %lu duplicated, %lu leaked, %lu hung, %lu other faults, "
         "worst wait %.1f ms\n",
         job_count, (unsigned long)total.points, (unsigned long)total.lost,
         (unsigned long)total.duplicated, (unsigned long)total.leaked, (unsigned long)total.hung,
         (unsigned long)total.other, total.worst_wait_ms);
  if (report && report_json(report, jobs, shared->tallies, job_count) != 0) return 1;
  if (markdown && report_markdown(markdown, jobs, shared->tallies, job_count) != 0) return 1;
  return report_faults(&total) == 0 && job_count > 0 ? 0 : 1;
}
