/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq wait: wait for a state of queues.
 */
#include <errno.h>
#include <stdio.h>

#include "base/open.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"
#include "command.h"

enum state { READABLE, WRITABLE, DRAINED, DONE };
static const char *const states[] = {"readable", "writable", "drained", "done", NULL};

static struct {
  uint64_t state;
  int64_t timeout_ns;
} options = {.timeout_ns = -1};

static const struct flag flags[] = {
    CHOICE_FLAG("for", 0, &options.state, "STATE", states,
                "readable (default), writable, drained or done"),
    TIMEOUT_FLAG(&options.timeout_ns),
    END_OF_FLAGS,
};

enum { QUEUES_MAX = 64 };
static const int64_t look_again_ns = 20000000;

static int finish(const char *name, int rc) {
  if (rc >= 0) {
    return STATUS_OK;
  }
  if (rc == -ETIMEDOUT || rc == -EAGAIN || rc == -EINTR) {
    complain("%s: not %s%s", name, states[options.state],
             stop_requested() ? ": interrupted" : " in time");
    return stop_requested() ? STATUS_FAILED : STATUS_WOULD_BLOCK;
  }
  return fail(name, rc);
}

/* A queue counts as readable for the library, too, when somebody left it and may have left a message
 * for redelivery behind: a taker would see. This command takes nothing, so it looks itself. */
static bool confirmed(const shmq_wait_item *item, const char *name) {
  if (options.state == WRITABLE || shmq_depth(item->queue) > 0) {
    return true;
  }
  shmq_view *view = NULL;
  shmq_queue_info queue = {.shut_down = 0};
  uint32_t index;
  if (view_at(name, &view, &index) == STATUS_OK) {
    shmq_view_queue(view, index, &queue);
    shmq_view_close(view);
  }
  return queue.shut_down != 0;
}

/* Print which are ready. Returns how many. */
static int print_ready(const shmq_wait_item *items, char **names, int count) {
  int ready = 0;
  for (int i = 0; i < count; i++) {
    if (items[i].ready != 0 && confirmed(&items[i], names[i])) {
      puts(names[i]);
      ready++;
    }
  }
  return ready;
}

/* Any of the queues is enough; the names of those that are ready are printed. */
static int wait_for_any(shmq **queues, char **names, int count, int64_t deadline) {
  shmq_wait_item items[QUEUES_MAX];
  for (int i = 0; i < count; i++) {
    items[i] = (shmq_wait_item){.queue = queues[i],
                                .want = options.state == READABLE ? SHMQ_READABLE : SHMQ_WRITABLE};
  }
  for (;;) {
    int rc;
    do {
      rc = shmq_wait(items, count, deadline);
    } while (stop_try_again(rc));
    if (rc < 0 || print_ready(items, names, count) > 0) {
      return finish(names[0], rc);
    }
    if (stop_requested() || (deadline != SHMQ_FOREVER && shmq_now_ns() >= deadline)) {
      return finish(names[0], -ETIMEDOUT);
    }
    stop_sleep(look_again_ns);
  }
}

/* All of the queues, one after the other: the last one's wait covers the others'. */
static int wait_for_all(shmq **queues, char **names, int count, int64_t deadline) {
  int status = STATUS_OK;
  for (int i = 0; i < count && status == STATUS_OK; i++) {
    int rc;
    do {
      rc = options.state == DRAINED ? shmq_drain(queues[i], deadline)
                                    : shmq_join(queues[i], deadline);
    } while (stop_try_again(rc));
    status = finish(names[i], rc);
  }
  return status;
}

static int run(int count, char **names) {
  if (count > QUEUES_MAX) {
    return usage("at most %d queues at once", QUEUES_MAX);
  }
  shmq *queues[QUEUES_MAX];
  int opened = 0;
  int status = STATUS_OK;
  while (opened < count && (status = open_quietly(names[opened], &queues[opened])) == STATUS_OK) {
    opened++;
  }
  if (status == STATUS_OK) {
    stop_catch();
    int64_t deadline = stop_deadline(options.timeout_ns);
    status =
        (options.state <= WRITABLE ? wait_for_any : wait_for_all)(queues, names, count, deadline);
  }
  while (opened > 0) {
    shmq_close(queues[--opened]);
  }
  return status;
}

const struct command wait_command = {
    .name = "wait",
    .arguments = "NAME...",
    .summary = "Wait until queues are readable, writable, drained or done",
    .details =
        "readable (a message could be taken) and writable (one could be put): until one of the "
        "queues is, and prints the names of those that are. drained (every message was taken) and "
        "done (taken and acknowledged): until all of them are.",
    .examples = "  shmq wait jobs --for done && shmq rm jobs",
    .flags = flags,
    .least = 1,
    .most = -1,
    .run = run,
};
