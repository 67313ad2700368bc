/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq work: a crew on one queue that runs a command on each message.
 */
#include <errno.h>
#include <string.h>

#include "base/command_run.h"
#include "base/report.h"
#include "base/view.h"
#include "command.h"
#include "crew.h"
#include "place.h"
#include "worker.h"

static struct {
  uint64_t workers, max_attempts;
  bool until_empty, quiet;
  int64_t retry_delay_ns;
  const char *places;
} options = {.workers = 1};

static const struct flag flags[] = {
    NUMBER_FLAG("workers", 'j', &options.workers, "N", 1, CREW_MAX,
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
  (void)count; /* argv ends with NULL, and so does the command */
  struct worker worker = {.queue = arguments[0],
                          .command = arguments + 1,
                          .max_attempts = options.max_attempts,
                          .retry_delay_ns = options.retry_delay_ns,
                          .until_empty = options.until_empty,
                          .places = options.places};
  int status = look_at_queue(arguments[0], &worker);
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
  struct crew_sums sums;
  status = crew_run((unsigned)options.workers, worker_run, &worker, options.quiet, &sums);
  return status == STATUS_OK && sums.dead > 0 ? STATUS_FAILED : status;
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
        "ever, between the others and at most once a second by each worker.\n\n"
        "On SIGINT or SIGTERM the commands that run are finished and no more are started; a "
        "second one kills them, and the exit status is 1. A worker that is killed is replaced; its command is killed with "
        "it and its message delivered again. With -e it ends when every message is done, also "
        "those that others hold. The exit status is 1 if messages went to the dead-letter queue.",
    .examples = "  ls *.log | shmq put logs - -D '\\n'\n"
                "  shmq work logs -j 4 -e -- gzip {}\n"
                "  shmq work mail -j 2 --bind spread -- sh -c 'read -r line; echo \"got $line\"'",
    .flags = flags,
    .least = 2,
    .most = -1,
    .run = run,
};
