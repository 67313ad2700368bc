/* SPDX-License-Identifier: Apache-2.0 */
#include "crew.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/report.h"
#include "base/stop.h"

struct crew {
  unsigned workers;
  crew_work *work;
  const void *context;
  struct crew_tally *tallies; /* shared with the workers, one each */
  pid_t pids[CREW_MAX];       /* 0: not running */
  int64_t started[CREW_MAX];
  unsigned running;
  uint64_t replaced;
  bool stopping;
  int status; /* the first worker's that was not 0 */
  int64_t begin_ns;
  sigset_t signals; /* blocked, and waited for */
};

/* ---- workers ---- */

/* In the child. The parent's death must not leave a crew that nobody can stop. */
static int be_worker(const struct crew *crew, unsigned number, pid_t parent) {
  stop_catch();
  sigprocmask(SIG_UNBLOCK, &crew->signals, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  return getppid() == parent ? crew->work(crew->context, number, &crew->tallies[number])
                             : STATUS_FAILED;
}

static int start_worker(struct crew *crew, unsigned number) {
  pid_t parent = getpid();
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    int status = be_worker(crew, number, parent);
    fflush(stderr);
    _exit(status);
  }
  if (pid < 0) {
    return fail_system("fork", errno);
  }
  crew->pids[number] = pid;
  crew->started[number] = shmq_now_ns();
  crew->running++;
  return STATUS_OK;
}

static void tell_workers(const struct crew *crew, int signal_number) {
  for (unsigned i = 0; i < crew->workers; i++) {
    if (crew->pids[i] > 0) {
      kill(crew->pids[i], signal_number);
    }
  }
}

static void stop(struct crew *crew) {
  crew->stopping = true;
  tell_workers(crew, SIGTERM);
}

/* A worker that was killed left its message to be delivered again. Its command has been killed
 * with it; the rest of that command's group follows. */
static void end_command(struct crew *crew, unsigned number) {
  pid_t group = atomic_exchange(&crew->tallies[number].running, 0);
  if (group > 0) {
    kill(-group, SIGKILL);
  }
}

static void replace(struct crew *crew, unsigned number) {
  crew->replaced++;
  if (shmq_now_ns() - crew->started[number] < INT64_C(100000000)) {
    stop_sleep(100000000); /* not a storm of forks, should it be our own fault */
  }
  int status = start_worker(crew, number);
  if (status != STATUS_OK) {
    crew->status = status;
    stop(crew);
  }
}

static void worker_ended(struct crew *crew, unsigned number, int status) {
  crew->pids[number] = 0;
  crew->running--;
  if (WIFSIGNALED(status)) {
    end_command(crew, number);
    if (!crew->stopping) {
      replace(crew, number);
    } else if (crew->status == STATUS_OK) {
      crew->status = STATUS_FAILED; /* it was told twice */
    }
  } else if (WEXITSTATUS(status) != STATUS_OK && crew->status == STATUS_OK) {
    crew->status = WEXITSTATUS(status);
    stop(crew);
  }
}

static void reap(struct crew *crew) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    for (unsigned i = 0; i < crew->workers; i++) {
      if (crew->pids[i] == pid) {
        worker_ended(crew, i, status);
        break;
      }
    }
  }
}

/* ---- progress ---- */

static struct crew_sums sum_up(const struct crew *crew) {
  struct crew_sums sums = {0};
  for (unsigned i = 0; i < crew->workers; i++) {
    sums.done += atomic_load(&crew->tallies[i].done);
    sums.failed += atomic_load(&crew->tallies[i].failed);
    sums.dead += atomic_load(&crew->tallies[i].dead);
    sums.busy += atomic_load(&crew->tallies[i].running) != 0;
  }
  return sums;
}

static double seconds_since(int64_t begin_ns) { return (double)(shmq_now_ns() - begin_ns) / 1e9; }

static void show_progress(const struct crew *crew) {
  struct crew_sums sums = sum_up(crew);
  double seconds = seconds_since(crew->begin_ns);
  fprintf(stderr,
          "\r\033[K%" PRIu64 " done, %.0f/s, %" PRIu64 " busy of %u, %" PRIu64 " failed, %" PRIu64
          " dead%s",
          sums.done, seconds > 0 ? (double)sums.done / seconds : 0, sums.busy, crew->running,
          sums.failed, sums.dead, crew->stopping ? ", finishing" : "");
}

static void show_summary(const struct crew *crew, bool terminal) {
  struct crew_sums sums = sum_up(crew);
  fprintf(stderr,
          "%sdone=%" PRIu64 " failed=%" PRIu64 " dead=%" PRIu64 " replaced=%" PRIu64
          " seconds=%.2f\n",
          terminal ? "\r\033[K" : "", sums.done, sums.failed, sums.dead, crew->replaced,
          seconds_since(crew->begin_ns));
}

/* ---- the parent ---- */

static void supervise(struct crew *crew, bool terminal) {
  const struct timespec second = {.tv_sec = terminal ? 0 : 3600,
                                  .tv_nsec = terminal ? 250000000 : 0};
  while (crew->running > 0) {
    int caught = sigtimedwait(&crew->signals, NULL, &second);
    if (caught > 0 && caught != SIGCHLD) {
      stop(crew);
    }
    reap(crew);
    if (terminal) {
      show_progress(crew);
    }
  }
}

/* What is blocked comes even if it is ignored, and then for a reason, see stop_catch. */
static void block_signals(struct crew *crew) {
  static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
  sigemptyset(&crew->signals);
  sigaddset(&crew->signals, SIGCHLD);
  for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
    struct sigaction action;
    sigaction(stops[i], NULL, &action);
    if (action.sa_handler != SIG_IGN) {
      sigaddset(&crew->signals, stops[i]);
    }
  }
  sigprocmask(SIG_BLOCK, &crew->signals, NULL);
}

static void start_all(struct crew *crew) {
  for (unsigned i = 0; i < crew->workers && crew->status == STATUS_OK; i++) {
    crew->status = start_worker(crew, i);
  }
  if (crew->status != STATUS_OK) {
    stop(crew);
  }
}

int crew_run(unsigned workers, crew_work *work, const void *context, bool quiet,
             struct crew_sums *sums) {
  static struct crew crew;
  bool terminal = !quiet && isatty(STDERR_FILENO);
  crew = (struct crew){.workers = workers, .work = work, .context = context};
  crew.tallies = mmap(NULL, workers * sizeof *crew.tallies, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (crew.tallies == MAP_FAILED) {
    return fail_system("mmap", errno);
  }
  block_signals(&crew);
  crew.begin_ns = shmq_now_ns();
  start_all(&crew);
  supervise(&crew, terminal);
  if (!quiet) {
    show_summary(&crew, terminal);
  }
  if (sums != NULL) {
    *sums = sum_up(&crew);
  }
  return crew.status;
}
