/* SPDX-License-Identifier: Apache-2.0 */
#include "worker.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <shmq/shmq.h>

#include "base/command_run.h"
#include "base/open.h"
#include "base/report.h"
#include "base/stop.h"
#include "place.h"
#include "rest.h"

static const int64_t look_ns = 100000000; /* between two looks whether everything is done */
static const int64_t rest_ns = 10000000;  /* after a failure, doubled with each attempt up to */
static const int64_t longest_rest_ns = 1000000000;
enum { CANNOT_START = 126 << 8 }; /* as a shell's exit status, in waitpid's form */

struct work {
  const struct worker *worker;
  unsigned number;
  struct crew_tally *tally;
  shmq *queue;
  shmq *dead; /* NULL: none */
  struct rests rests;
};

static int64_t wall_clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* ---- what a failure leads to ---- */

/* Nothing else keeps a message that fails from coming round at once, for ever: the queue's limit
 * and delay are there for it, and without them at least the processor is spared. */
static int64_t rest_after(const struct worker *worker, uint32_t attempts) {
  if (worker->retry_delay_ns > 0 || attempts < 2) {
    return 0;
  }
  int64_t rest = attempts < 8 ? rest_ns << attempts : longest_rest_ns;
  return rest < longest_rest_ns ? rest : longest_rest_ns;
}

static int give_back(struct work *w, shmq_message *message, const shmq_cause *cause) {
  uint64_t most = w->worker->queue_attempts;
  bool dies = most > 0 && message->attempts >= most; /* the queue sends it to its dead letters */
  int64_t rest = dies ? 0 : rest_after(w->worker, message->attempts);
  if (rest > 0 && rest_begin(&w->rests, message, cause, shmq_after_ns(rest))) {
    return 0;
  }
  int rc = shmq_nack_with(w->queue, message, w->worker->retry_delay_ns, cause);
  if (rc == 0 && dies) {
    atomic_fetch_add(&w->tally->dead, 1);
  } else if (rc == 0 && rest > 0) {
    stop_sleep(rest);
  }
  return rc;
}

/* To the dead-letter queue; where that is full, back to where it came from. */
static int bury(struct work *w, shmq_message *message, const shmq_cause *cause) {
  int rc = shmq_forward(w->queue, message, w->dead, SHMQ_NOWAIT);
  if (rc == 0) {
    atomic_fetch_add(&w->tally->dead, 1);
  }
  return rc == -EAGAIN ? give_back(w, message, cause) : rc;
}

static int failed(struct work *w, shmq_message *message, pid_t pid, int status) {
  shmq_cause cause = {.pid = pid,
                      .status = status,
                      .reason = SHMQ_REASON_NACKED,
                      .attempts = message->attempts,
                      .when_ns = wall_clock_ns()};
  uint64_t most = w->worker->max_attempts;
  atomic_fetch_add(&w->tally->failed, 1);
  return most > 0 && message->attempts >= most ? bury(w, message, &cause)
                                               : give_back(w, message, &cause);
}

/* ---- one message ---- */

static int work_on(struct work *w, shmq_message *message) {
  struct command_run run = {.argv = w->worker->command, .running = &w->tally->running};
  pid_t pid = -1;
  int status = CANNOT_START;
  int rc = command_run_message(&run, message->data, message->size, &pid, &status);
  if (rc < 0) {
    complain("%s: %s: %s", w->worker->queue, w->worker->command[0],
             rc == -EINVAL  ? "a message with a NUL byte cannot be an argument; leave {} out"
             : rc == -E2BIG ? "a message is too long for an argument; leave {} out"
                            : strerror(-rc));
    status = CANNOT_START;
  }
  if (rc == 0 && status == 0) {
    rc = shmq_ack(w->queue, message);
    if (rc == 0) {
      atomic_fetch_add(&w->tally->done, 1);
    }
    return rc;
  }
  return failed(w, message, pid, status);
}

/* Empty, and not only for now: nobody holds a message that could come back. */
static bool all_done(struct work *w) {
  return w->worker->until_empty && shmq_join(w->queue, SHMQ_NOWAIT) == 0;
}

static int64_t next_look(const struct work *w) {
  int64_t look = w->worker->until_empty ? shmq_after_ns(look_ns) : SHMQ_FOREVER;
  int64_t due = rest_due(&w->rests);
  return due < look ? due : look;
}

static bool is_empty(int rc) { return rc == -EAGAIN || rc == -ETIMEDOUT || rc == -EINTR; }

static int take(struct work *w, shmq_message *message) {
  int64_t deadline = SHMQ_NOWAIT;
  for (;;) {
    int rc = rest_end(&w->rests, w->queue, shmq_now_ns());
    if (rc == 0) {
      rc = shmq_lease(w->queue, message, deadline);
    }
    bool rests = rc == -EPIPE && w->rests.count > 0; /* all that is left of a queue shut down */
    if ((!is_empty(rc) && !rests) || stop_requested() || all_done(w)) {
      return rc;
    }
    if (rests) {
      stop_sleep(rest_due(&w->rests) - shmq_now_ns());
    }
    deadline = next_look(w);
  }
}

static int work_off(struct work *w) {
  while (!stop_requested()) {
    shmq_message message;
    int rc = take(w, &message);
    if (rc < 0) {
      return is_empty(rc) || rc == -EPIPE ? STATUS_OK : fail(w->worker->queue, rc);
    }
    rc = work_on(w, &message);
    if (rc < 0) {
      return fail(w->worker->queue, rc);
    }
  }
  return STATUS_OK;
}

static int join(struct work *w) {
  const struct worker *worker = w->worker;
  shmq_segment *segment = shmq_segment_of(w->queue);
  int rc = shmq_join_segment(segment, "work", worker->command[0]);
  if (rc == 0 && worker->dead_letter != NULL) {
    rc = shmq_open_in(&w->dead, segment, worker->dead_letter, 0);
  }
  if (rc < 0) {
    return fail(worker->queue, rc);
  }
  return worker->places != NULL ? place_self(worker->places, w->number, segment) : STATUS_OK;
}

int worker_run(const void *context, unsigned number, struct crew_tally *tally) {
  const struct worker *worker = context;
  struct work w = {.worker = worker, .number = number, .tally = tally};
  int rc = shmq_open(&w.queue, worker->queue, SHMQ_NOSPIN);
  if (rc < 0) {
    return fail(worker->queue, rc);
  }
  int status = join(&w);
  if (status == STATUS_OK) {
    status = work_off(&w);
  }
  (void)rest_end(&w.rests, w.queue, SHMQ_FOREVER);
  shmq_close(w.dead);
  shmq_close(w.queue);
  return status;
}
