/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq shutdown and shmq reopen: stop and start accepting messages.
 */
#include <errno.h>

#include "base/open.h"
#include "base/report.h"
#include "base/stop.h"
#include "command.h"

static struct {
  bool wait;
  int64_t timeout_ns;
} options = {.timeout_ns = -1};

static const struct flag flags[] = {
    SET_FLAG("wait", 'w', &options.wait,
             "then wait until every message has been taken and acknowledged"),
    TIMEOUT_FLAG(&options.timeout_ns),
    END_OF_FLAGS,
};

static int wait_until_done(const char *name, shmq *queue) {
  int64_t deadline = stop_deadline(options.timeout_ns);
  int rc;
  stop_catch();
  do {
    rc = shmq_join(queue, deadline);
  } while (stop_try_again(rc));
  if (rc == -ETIMEDOUT || rc == -EAGAIN || rc == -EINTR) {
    complain("%s: shut down, and messages are left", name);
    return stop_requested() ? STATUS_FAILED : STATUS_WOULD_BLOCK;
  }
  return rc < 0 ? fail(name, rc) : STATUS_OK;
}

static int change(const char *name, int (*call)(shmq *), bool wait) {
  shmq *queue;
  int status = open_quietly(name, &queue);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = call(queue);
  if (rc < 0) {
    status = fail(name, rc);
  } else if (wait) {
    status = wait_until_done(name, queue);
  }
  shmq_close(queue);
  return status;
}

static int run_shutdown(int count, char **arguments) {
  (void)count;
  return change(arguments[0], shmq_shutdown, options.wait);
}

static int run_reopen(int count, char **arguments) {
  (void)count;
  return change(arguments[0], shmq_reopen, false);
}

const struct command shutdown_command = {
    .name = "shutdown",
    .arguments = "NAME",
    .summary = "Refuse new messages; what is in the queue can still be taken",
    .details =
        "Whoever puts is told that the queue is shut down (exit status 6), and so is whoever "
        "takes once it is empty. 'shmq reopen' undoes it.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run_shutdown,
};

const struct command reopen_command = {
    .name = "reopen",
    .arguments = "NAME",
    .summary = "Accept messages again after a shutdown",
    .least = 1,
    .most = 1,
    .run = run_reopen,
};
