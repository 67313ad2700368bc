/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq get: take messages and write them to standard output. A message is acknowledged when it has
 * been written; what could not be written goes back and is delivered again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/open.h"
#include "base/output.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"
#include "command.h"

static struct {
  uint64_t number;
  bool until_empty, json;
  int64_t timeout_ns;
  struct bytes delimiter;
} options = {.number = UINT64_MAX, .timeout_ns = -1, .delimiter = {"\n", 1}};

static const struct flag flags[] = {
    NUMBER_FLAG("number", 'n', &options.number, "N", 0, INT64_MAX,
                "take N messages; 0: no end (default 1, with -e all)"),
    SET_FLAG("empty", 'e', &options.until_empty, "exit when the queue is empty"),
    TIMEOUT_FLAG(&options.timeout_ns),
    BYTES_FLAG("delimiter", 'D', &options.delimiter, "DELIM",
               "write DELIM behind each message (default \\n)"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

struct getting {
  const char *name;
  shmq *queue;
  uint64_t left; /* still to be taken */
};

/* ---- writing ---- */

/* Of `count` messages of these sizes, how many lie wholly within `written` bytes? */
static int wholly_within(const size_t *sizes, int count, size_t written) {
  int whole = 0;
  while (whole < count && sizes[whole] <= written) {
    written -= sizes[whole++];
  }
  return whole;
}

/* Returns how many messages were written whole. */
static int write_plain(const shmq_message *messages, int count, int *error) {
  struct iovec iov[2 * SHMQ_BATCH_MAX];
  size_t sizes[SHMQ_BATCH_MAX];
  const struct iovec delimiter = {(void *)(uintptr_t)options.delimiter.data,
                                  options.delimiter.size};
  struct iovec *at = iov;
  for (int i = 0; i < count; i++) {
    *at++ = (struct iovec){messages[i].data, messages[i].size};
    *at++ = delimiter;
    sizes[i] = messages[i].size + options.delimiter.size;
  }
  size_t written = output_write(iov, 2 * count, error);
  return *error == 0 ? count : wholly_within(sizes, count, written);
}

static void print_message(FILE *out, const shmq *queue, const shmq_message *message) {
  struct json json = {.out = out};
  json_open(&json, NULL, '{');
  json_number(&json, "position", message->position);
  json_number(&json, "attempts", message->attempts);
  json_number(&json, "size", message->size);
  shmq_cause cause;
  if (shmq_message_cause(queue, message, &cause) == 0) {
    json_cause(&json, "cause", &cause);
  }
  json_bytes(&json, "data", message->data, message->size);
  json_close(&json, '}');
  json_end(&json);
}

static int write_json(const shmq *queue, const shmq_message *messages, int count, int *error) {
  for (int i = 0; i < count; i++) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
      *error = errno;
      return i;
    }
    print_message(out, queue, &messages[i]);
    if (fclose(out) != 0) {
      *error = ENOMEM;
      free(text);
      return i;
    }
    struct iovec line = {text, size};
    output_write(&line, 1, error);
    free(text);
    if (*error != 0) {
      return i;
    }
  }
  return count;
}

/* Write, acknowledge what was written whole and give back the rest. */
static int deliver(struct getting *g, shmq_message *messages, int count) {
  int error = 0;
  int whole = options.json ? write_json(g->queue, messages, count, &error)
                           : write_plain(messages, count, &error);
  int rc = whole > 0 ? shmq_ack_batch(g->queue, messages, whole) : 0;
  for (int i = whole; i < count; i++) {
    shmq_nack(g->queue, &messages[i]);
  }
  g->left -= (uint64_t)whole;
  if (error != 0) {
    complain("standard output: %s; %d messages taken and not written were given back",
             error == EINTR ? "interrupted" : strerror(error), count - whole);
    return STATUS_FAILED;
  }
  return rc < 0 ? fail(g->name, rc) : STATUS_OK;
}

/* ---- taking ---- */

static int take(const struct getting *g, shmq_message *messages, int64_t deadline) {
  int most = g->left < SHMQ_BATCH_MAX ? (int)g->left : SHMQ_BATCH_MAX;
  int rc = shmq_lease_batch(g->queue, messages, most, SHMQ_NOWAIT);
  if (rc != -EAGAIN || deadline == SHMQ_NOWAIT) {
    return rc;
  }
  do {
    rc = shmq_lease_batch(g->queue, messages, most, deadline);
  } while (stop_try_again(rc));
  return rc;
}

/* Nothing was taken: is that the end that was asked for? */
static int ended(const struct getting *g, int rc) {
  if (stop_requested() && (rc == -ETIMEDOUT || rc == -EINTR)) {
    return g->left > INT64_MAX || options.until_empty ? STATUS_OK : STATUS_FAILED;
  }
  bool empty = rc == -EAGAIN || rc == -ETIMEDOUT;
  if (options.until_empty && (empty || rc == -EPIPE)) {
    return STATUS_OK;
  }
  if (empty) {
    complain("%s: the queue is empty", g->name);
    return STATUS_WOULD_BLOCK;
  }
  return fail(g->name, rc);
}

static int get_all(struct getting *g) {
  int64_t deadline = options.until_empty && options.timeout_ns < 0
                         ? SHMQ_NOWAIT
                         : stop_deadline(options.timeout_ns);
  shmq_message messages[SHMQ_BATCH_MAX];
  int status = STATUS_OK;
  while (g->left > 0 && status == STATUS_OK && !stop_requested()) {
    int count = take(g, messages, deadline);
    if (count < 0) {
      return ended(g, count);
    }
    status = deliver(g, messages, count);
  }
  bool stopped_early = status == STATUS_OK && g->left > 0;
  return stopped_early ? ended(g, -EINTR) : status;
}

static uint64_t how_many(void) {
  if (options.number == UINT64_MAX) {
    return options.until_empty ? UINT64_MAX : 1;
  }
  return options.number == 0 ? UINT64_MAX : options.number;
}

static int run(int count, char **arguments) {
  (void)count;
  struct getting g = {.name = arguments[0], .left = how_many()};
  int status = open_queue(g.name, "get", &g.queue);
  if (status != STATUS_OK) {
    return status;
  }
  stop_catch();
  status = get_all(&g);
  shmq_close(g.queue);
  return status;
}

const struct command get_command = {
    .name = "get",
    .arguments = "NAME",
    .summary = "Take messages out of a queue and print them",
    .details =
        "Waits for a message if there is none. A message is acknowledged when it has been written "
        "whole; if it cannot be written, or the process is killed before, it is delivered again. "
        "So nothing is lost, and a message may be printed twice when the process is killed in "
        "between.\n\n"
        "With -e it exits with 0 when the queue is empty (with --timeout: has been empty for what "
        "is left of it). On SIGINT or SIGTERM it finishes the message at hand.",
    .examples = "  shmq get jobs\n"
                "  shmq get jobs -e > all\n"
                "  shmq get jobs -n 0 | while read -r job; do echo \"$job\"; done\n"
                "  shmq get jobs -e -D '\\0' | xargs -0 -r ls -l",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run,
};
