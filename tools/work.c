/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq work: a pool on one queue. The parent starts the workers, replaces one that is killed,
 * shows how far they are, and passes on the request to stop. It never touches the queue itself, so
 * nothing that happens to a worker can hold it up. / */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/command_run.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"
#include "command.h"
#include "place.h"
#include "worker.h"

enum { WORKERS_MAX = SHMQ_PARTICIPANTS_MAX };

static struct {
  uint64_t workers, max_attempts;
  bool until_empty, quiet;
  int64_t retry_delay_ns;
  const char *places;
} options = {.workers = 1};

static const struct flag flags[] = {
    NUMBER_FLAG("workers", 'j', &options.workers, "N", 1, WORKERS_MAX,
                "number of workers (default 1)"),
    SET_FLAG("empty", 'e', &options.until_empty, "end when every message is done"),
    TEXT_FLAG("bind", 0, &options.places, "PLACES",
              "pin worker i to place i, as 'shmq topo' names places: spread, core:all, ..."),
    NUMBER_FLAG(
        "max-attempts", 0, &options.max_attempts, "N", 1, SHMQ_ATTEMPTS_MAX,
        "after N failures a message goes to the dead-letter queue (default: as the queue says)"),
    DURATION_FLAG("retry-delay", 0, &options.retry_delay_ns, "DUR", 0,
                  "deliver a message that failed again after DUR (the queue must be timed)"),
    SET_FLAG("quiet", 'q', &options.quiet, "no progress and no summary"),
    END_OF_FLAGS,
};

struct pool {
  struct worker common;
  struct worker_tally *tallies; /* shared with the workers, one each */
  pid_t pids[WORKERS_MAX];      /* 0: not running */
  int64_t started[WORKERS_MAX];
  unsigned running;
  uint64_t replaced;
  bool stopping;
  int status; /* the first worker's that was not 0 */
  int64_t begin_ns;
  sigset_t signals; /* blocked, and waited for */
};

/* ---- workers ---- */

/* In the child. The parent's death must not leave a pool that nobody can stop. */
static int be_worker(const struct pool *pool, unsigned number, pid_t parent) {
  struct worker worker = pool->common;
  worker.number = number;
  worker.tally = &pool->tallies[number];
  stop_catch();
  sigprocmask(SIG_UNBLOCK, &pool->signals, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  return getppid() == parent ? worker_run(&worker) : STATUS_FAILED;
}

static int start_worker(struct pool *pool, unsigned number) {
  pid_t parent = getpid();
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    int status = be_worker(pool, number, parent);
    fflush(stderr);
    _exit(status);
  }
  if (pid < 0) {
    return fail_system("fork", errno);
  }
  pool->pids[number] = pid;
  pool->started[number] = shmq_now_ns();
  pool->running++;
  return STATUS_OK;
}

static void tell_workers(const struct pool *pool, int signal_number) {
  for (unsigned i = 0; i < options.workers; i++) {
    if (pool->pids[i] > 0) {
      kill(pool->pids[i], signal_number);
    }
  }
}

static void stop(struct pool *pool) {
  pool->stopping = true;
  tell_workers(pool, SIGTERM);
}

/* A worker that was killed left its message to be delivered again. Its command has been killed
 * with it; the rest of that command's group follows. */
static void replace(struct pool *pool, unsigned number) {
  pid_t group = atomic_exchange(&pool->tallies[number].running, 0);
  if (group > 0) {
    kill(-group, SIGKILL);
  }
  pool->replaced++;
  if (shmq_now_ns() - pool->started[number] < INT64_C(100000000)) {
    stop_sleep(100000000); /* not a storm of forks, should it be our own fault */
  }
  int status = start_worker(pool, number);
  if (status != STATUS_OK) {
    pool->status = status;
    stop(pool);
  }
}

static void worker_ended(struct pool *pool, unsigned number, int status) {
  pool->pids[number] = 0;
  pool->running--;
  if (WIFSIGNALED(status)) {
    if (!pool->stopping) {
      replace(pool, number);
    }
  } else if (WEXITSTATUS(status) != STATUS_OK && pool->status == STATUS_OK) {
    pool->status = WEXITSTATUS(status);
    stop(pool);
  }
}

static void reap(struct pool *pool) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    for (unsigned i = 0; i < options.workers; i++) {
      if (pool->pids[i] == pid) {
        worker_ended(pool, i, status);
        break;
      }
    }
  }
}

/* ---- progress ---- */

struct sums {
  uint64_t done, failed, dead, busy;
};

static struct sums sum_up(const struct pool *pool) {
  struct sums sums = {0};
  for (unsigned i = 0; i < options.workers; i++) {
    sums.done += atomic_load(&pool->tallies[i].done);
    sums.failed += atomic_load(&pool->tallies[i].failed);
    sums.dead += atomic_load(&pool->tallies[i].dead);
    sums.busy += atomic_load(&pool->tallies[i].running) != 0;
  }
  return sums;
}

static double seconds_since(int64_t begin_ns) { return (double)(shmq_now_ns() - begin_ns) / 1e9; }

static void show_progress(const struct pool *pool) {
  struct sums sums = sum_up(pool);
  double seconds = seconds_since(pool->begin_ns);
  fprintf(stderr,
          "\r\033[K%" PRIu64 " done, %.0f/s, %" PRIu64 " busy of %u, %" PRIu64 " failed, %" PRIu64
          " dead%s",
          sums.done, seconds > 0 ? (double)sums.done / seconds : 0, sums.busy, pool->running,
          sums.failed, sums.dead, pool->stopping ? ", finishing" : "");
}

static void show_summary(const struct pool *pool, bool terminal) {
  struct sums sums = sum_up(pool);
  fprintf(stderr,
          "%sdone=%" PRIu64 " failed=%" PRIu64 " dead=%" PRIu64 " replaced=%" PRIu64
          " seconds=%.2f\n",
          terminal ? "\r\033[K" : "", sums.done, sums.failed, sums.dead, pool->replaced,
          seconds_since(pool->begin_ns));
}

/* ---- the parent ---- */

static void supervise(struct pool *pool, bool terminal) {
  const struct timespec second = {.tv_sec = terminal ? 0 : 3600,
                                  .tv_nsec = terminal ? 250000000 : 0};
  while (pool->running > 0) {
    int caught = sigtimedwait(&pool->signals, NULL, &second);
    if (caught > 0 && caught != SIGCHLD) {
      stop(pool);
    }
    reap(pool);
    if (terminal) {
      show_progress(pool);
    }
  }
}

static int run_pool(struct pool *pool) {
  bool terminal = !options.quiet && isatty(STDERR_FILENO);
  sigemptyset(&pool->signals);
  sigaddset(&pool->signals, SIGCHLD);
  sigaddset(&pool->signals, SIGINT);
  sigaddset(&pool->signals, SIGTERM);
  sigaddset(&pool->signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &pool->signals, NULL);
  pool->begin_ns = shmq_now_ns();
  for (unsigned i = 0; i < options.workers && pool->status == STATUS_OK; i++) {
    pool->status = start_worker(pool, i);
  }
  if (pool->status != STATUS_OK) {
    stop(pool);
  }
  supervise(pool, terminal);
  if (!options.quiet) {
    show_summary(pool, terminal);
  }
  return pool->status != STATUS_OK ? pool->status
         : sum_up(pool).dead > 0   ? STATUS_FAILED
                                   : STATUS_OK;
}

/* ---- before it starts ---- */

/* Where what failed too often goes: the queue's own dead-letter queue, or one called dead. */
static int find_dead_letters(const char *name, shmq_view *view, const shmq_queue_info *queue,
                             struct worker *worker) {
  static shmq_queue_info dead;
  if (queue->dead_letter >= 0 && shmq_view_queue(view, (uint32_t)queue->dead_letter, &dead) == 0) {
    worker->dead_letter = dead.name;
    return STATUS_OK;
  }
  for (uint32_t i = 0; shmq_view_queue(view, i, &dead) == 0; i++) {
    if (strcmp(dead.name, "dead") == 0 && strcmp(queue->name, "dead") != 0) {
      worker->dead_letter = dead.name;
      return STATUS_OK;
    }
  }
  return usage(
      "%s: --max-attempts needs a dead-letter queue: create the segment with --max-attempts "
      "or with --queue dead",
      name);
}

static int look_at_queue(const char *name, struct worker *worker) {
  shmq_view *view;
  uint32_t index;
  int status = view_at(name, &view, &index);
  if (status != STATUS_OK) {
    return status;
  }
  shmq_queue_info queue;
  int rc = shmq_view_queue(view, index, &queue);
  if (rc < 0) {
    status = fail(name, rc);
  } else if (options.retry_delay_ns > 0 && (queue.flags & SHMQ_TIMED) == 0) {
    status = usage("%s: --retry-delay needs a queue that was created with --timed", name);
  } else if ((queue.flags & SHMQ_SINGLE_CONSUMER) != 0 && options.workers > 1) {
    status = usage("%s: a queue with a single consumer takes one worker", name);
  } else if (options.max_attempts > 0) {
    status = find_dead_letters(name, view, &queue, worker);
  }
  worker->queue_attempts = queue.max_attempts;
  shmq_view_close(view);
  return status;
}

static int run(int count, char **arguments) {
  static struct pool pool;
  (void)count; /* argv ends with NULL, and so does the command */
  pool.common = (struct worker){.queue = arguments[0],
                                .command = arguments + 1,
                                .max_attempts = options.max_attempts,
                                .retry_delay_ns = options.retry_delay_ns,
                                .until_empty = options.until_empty,
                                .places = options.places};
  int status = look_at_queue(arguments[0], &pool.common);
  if (status == STATUS_OK && options.places != NULL) {
    status = place_check(options.places);
  }
  if (status != STATUS_OK) {
    return status;
  }
  int error = command_run_check(arguments[1]);
  if (error != 0) {
    return fail_system(arguments[1], error);
  }
  pool.tallies = mmap(NULL, options.workers * sizeof *pool.tallies, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return pool.tallies != MAP_FAILED ? run_pool(&pool) : fail_system("mmap", errno);
}

const struct command work_command = {
    .name = "work",
    .arguments = "NAME -- COMMAND [ARGUMENT | {}]...",
    .summary = "Run a command on each message, in a pool of workers",
    .details =
        "N workers lease messages from one queue. COMMAND gets the message on its standard input, "
        "or in place of {} in its arguments. Exit status 0 acknowledges the message; anything "
        "else gives it back, and after the queue's limit of attempts, or N with --max-attempts, "
        "it goes to the dead-letter queue with the cause. Without a limit it is tried for "
        "ever.\n\n"
        "On SIGINT or SIGTERM the commands that run are finished and no more are started; a "
        "second one kills them. A worker that is killed is replaced; its command is killed with "
        "it and its message delivered again. With -e it ends when every message is done, also "
        "those that others hold. The exit status is 1 if messages went to the dead-letter queue.",
    .examples = "  seq 1000 | shmq put jobs - -D '\\n'\n"
                "  shmq work jobs -j 4 -e -- gzip -k {}\n"
                "  shmq work mail -j 2 --bind spread -- sh -c 'read -r line; echo \"got $line\"'",
    .flags = flags,
    .least = 2,
    .most = -1,
    .run = run,
};
