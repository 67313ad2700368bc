/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq forward: move messages between queues of one segment; shmq requeue: dead letters back to
 * the queue they came from. Each message moves as one step: it is never in both queues and never
 * in none.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/open.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"
#include "command.h"

static struct {
  uint64_t number;
  bool until_empty;
  int64_t timeout_ns;
  const char *to;
} options = {.timeout_ns = -1};

#define MOST_FLAG                                                \
  NUMBER_FLAG("number", 'n', &options.number, "N", 1, INT64_MAX, \
              "move at most N messages (default: no limit)")

static const struct flag forward_flags[] = {
    MOST_FLAG,
    SET_FLAG("empty", 'e', &options.until_empty, "exit when the queue is empty"),
    TIMEOUT_FLAG(&options.timeout_ns),
    END_OF_FLAGS,
};

static const struct flag requeue_flags[] = {
    MOST_FLAG,
    TEXT_FLAG("to", 0, &options.to, "QUEUE",
              "put them into QUEUE (default: the queue that sends its dead letters here)"),
    TIMEOUT_FLAG(&options.timeout_ns),
    END_OF_FLAGS,
};

struct move {
  const char *from_name, *to_name;
  shmq *from, *to;
  int64_t deadline;
  uint64_t done;
};

static int take(const struct move *m, shmq_message *message) {
  int rc;
  if (options.until_empty) {
    return shmq_lease(m->from, message, SHMQ_NOWAIT);
  }
  do {
    rc = shmq_lease(m->from, message, m->deadline);
  } while (stop_try_again(rc));
  return rc;
}

/* Move a leased message, or give it back if that cannot be done. */
static int pass_on(const struct move *m, shmq_message *message) {
  int rc;
  do {
    rc = shmq_forward(m->from, message, m->to, m->deadline);
  } while (stop_try_again(rc));
  if (rc < 0) {
    shmq_nack(m->from, message);
  }
  return rc;
}

static bool is_wait(int rc) { return rc == -EAGAIN || rc == -ETIMEDOUT || rc == -EINTR; }

static int move_messages(struct move *m) {
  while (!stop_requested() && (options.number == 0 || m->done < options.number)) {
    shmq_message message;
    int rc = take(m, &message);
    if (rc < 0) {
      if (stop_requested() || (options.until_empty && (is_wait(rc) || rc == -EPIPE))) {
        return STATUS_OK;
      }
      if (is_wait(rc)) {
        complain("%s: the queue is empty", m->from_name);
        return STATUS_WOULD_BLOCK;
      }
      return fail(m->from_name, rc);
    }
    rc = pass_on(m, &message);
    if (is_wait(rc)) {
      complain("%s: the queue is full", m->to_name);
      return STATUS_WOULD_BLOCK;
    }
    if (rc < 0) {
      return fail(m->to_name, rc);
    }
    m->done++;
  }
  return STATUS_OK;
}

static int move_between(const char *from, const char *to, bool tell) {
  struct move m = {.from_name = from, .to_name = to};
  int status = open_queue(from, "forward", &m.from);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_open_in(&m.to, shmq_segment_of(m.from), to, 0);
  if (rc < 0) {
    status = fail(to, rc);
  } else {
    stop_catch();
    m.deadline = stop_deadline(options.timeout_ns);
    status = move_messages(&m);
    shmq_close(m.to);
  }
  shmq_close(m.from);
  if (tell && status != STATUS_NOT_FOUND) {
    printf("%" PRIu64 " moved\n", m.done);
  }
  return status;
}

/* Which queue of its segment a name means; complains. Returns a status. */
static int number_of(const char *name, uint32_t *number) {
  shmq_view *view = NULL;
  int status = view_at(name, &view, number);
  if (status == STATUS_OK) {
    shmq_view_close(view);
  }
  return status;
}

/* TO may stand without its segment, which is FROM's. */
static int check_ends(const char *from, const char *to) {
  struct address source;
  struct address target;
  int status = check_name(from, true, &source);
  if (status == STATUS_OK) {
    status = check_name(to, true, &target);
  }
  if (status == STATUS_OK && strcmp(source.segment, target.segment) != 0) {
    status = usage("%s and %s are in different segments", from, to);
  }
  uint32_t first = 0;
  uint32_t second = 0;
  if (status == STATUS_OK) {
    status = number_of(from, &first);
  }
  if (status == STATUS_OK) {
    status = number_of(to, &second);
  }
  return status == STATUS_OK && first == second ? usage("%s and %s are one queue", from, to)
                                                : status;
}

static int run_forward(int count, char **arguments) {
  (void)count;
  char to[2 * SHMQ_NAME_MAX];
  const char *slash = strchr(arguments[1], '/');
  int size = slash != NULL ? snprintf(to, sizeof to, "%s", arguments[1])
                           : snprintf(to, sizeof to, "%.*s/%s", (int)strcspn(arguments[0], "/"),
                                      arguments[0], arguments[1]);
  if (size >= (int)sizeof to) {
    return usage("the names are too long");
  }
  int status = check_ends(arguments[0], to);
  return status == STATUS_OK ? move_between(arguments[0], strchr(to, '/') + 1, false) : status;
}

/* ---- requeue ---- */

/* The queue that sends its dead letters to queue `dead`; without one named (`dead` is the first
 * queue), the first queue that has a dead-letter queue at all. */
static int find_source(shmq_view *view, bool named, uint32_t *dead, shmq_queue_info *source) {
  for (uint32_t i = 0; shmq_view_queue(view, i, source) == 0; i++) {
    if (source->dead_letter >= 0 && (!named || (uint32_t)source->dead_letter == *dead)) {
      *dead = (uint32_t)source->dead_letter;
      return 0;
    }
  }
  return -ENOENT;
}

static int run_requeue(int count, char **arguments) {
  (void)count;
  shmq_view *view;
  uint32_t dead;
  int status = view_at(arguments[0], &view, &dead);
  if (status != STATUS_OK) {
    return status;
  }
  struct address address;
  parse_address(arguments[0], &address);
  shmq_queue_info source = {.name = ""};
  shmq_queue_info letters = {.name = ""};
  int rc = find_source(view, address.queue != NULL, &dead, &source);
  if (rc == 0) {
    rc = shmq_view_queue(view, dead, &letters);
  }
  shmq_view_close(view);
  if (rc < 0) {
    complain(
        "%s: no queue sends dead letters here; 'shmq create --max-attempts' makes one that does",
        arguments[0]);
    return STATUS_NOT_FOUND;
  }
  if (options.number == 0 || options.number > letters.depth) {
    options.number = letters.depth; /* what dies again meanwhile is for the next time */
  }
  if (letters.depth == 0) {
    puts("0 moved");
    return STATUS_OK;
  }
  char from[SHMQ_NAME_MAX + SHMQ_QUEUE_NAME_MAX + 2];
  queue_label(address.segment, dead, letters.name, from, sizeof from);
  options.until_empty = true;
  return move_between(from, options.to != NULL ? options.to : source.name, true);
}

const struct command forward_command = {
    .name = "forward",
    .arguments = "FROM TO",
    .summary = "Move messages to another queue of the same segment",
    .details =
        "FROM is SEGMENT or SEGMENT/QUEUE, TO a queue of the same segment. Each message moves as "
        "one step and without a copy of its block. Waits for more unless -e is given.",
    .examples = "  shmq forward img/raw img/again -e",
    .flags = forward_flags,
    .least = 2,
    .most = 2,
    .run = run_forward,
};

const struct command requeue_command = {
    .name = "requeue",
    .arguments = "NAME[/DEAD]",
    .summary = "Move dead letters back to the queue they came from",
    .details = "Moves what is there now and prints how many that were. Their attempts start anew.",
    .examples = "  shmq peek mail/dead\n  shmq requeue mail",
    .flags = requeue_flags,
    .least = 1,
    .most = 1,
    .run = run_requeue,
};
