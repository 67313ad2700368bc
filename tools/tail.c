/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq tail: print messages as they are put, without taking them. It looks at the queue again and
 * again; a message that is put and taken between two looks is missed, and the count of those is
 * told at the end.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/output.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"
#include "command.h"

static struct {
  uint64_t number;
  bool until_end, json;
  int64_t interval_ns;
  struct bytes delimiter;
} options = {.number = 10, .interval_ns = 50000000, .delimiter = {"\n", 1}};

static const struct flag flags[] = {
    NUMBER_FLAG("number", 'n', &options.number, "N", 0, INT64_MAX,
                "begin with the last N messages that are in the queue (default 10)"),
    SET_FLAG("empty", 'e', &options.until_end, "print those and exit"),
    DURATION_FLAG("interval", 'i', &options.interval_ns, "DUR", 1000000,
                  "time between two looks (default 50ms)"),
    BYTES_FLAG("delimiter", 'D', &options.delimiter, "DELIM",
               "write DELIM behind each message (default \\n)"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

/* Positions are counted in each band on its own. */
struct tail {
  const char *name;
  shmq_view *view;
  uint32_t queue;
  uint32_t capacity, bands;
  uint64_t next[SHMQ_PRIORITIES_MAX]; /* the first position of the band not yet looked at */
  uint64_t first_puts;                /* messages put before the first look */
  uint64_t seen;                      /* messages found since then */
  char *data;
  size_t room;
};

/* Positions wrap after 2^48, so they are compared by their distance. */
static bool is_before(uint64_t position, uint64_t other) {
  uint64_t distance = (other - position) << 16;
  return distance != 0 && distance >> 63 == 0;
}

/* The cursor counts the cells that the walk has passed, band by band. */
static uint32_t band_at(const struct tail *t, uint64_t cursor) {
  uint64_t band = t->capacity > 0 ? (cursor - 1) / t->capacity : 0;
  return band < t->bands ? (uint32_t)band : t->bands - 1;
}

/* Published, and not given up by its producer or its taker. */
static bool is_message(const shmq_cell_info *cell) {
  return cell->state == SHMQ_CELL_READY || cell->state == SHMQ_CELL_LEASED ||
         cell->state == SHMQ_CELL_RETURNED;
}

/* ---- printing ---- */

static int print_plain(const struct tail *t, const shmq_cell_info *cell) {
  struct iovec iov[2] = {{t->data, cell->size < t->room ? (size_t)cell->size : t->room},
                         {(void *)(uintptr_t)options.delimiter.data, options.delimiter.size}};
  int error;
  output_write(iov, 2, &error);
  return error;
}

static int print_json(const struct tail *t, const shmq_cell_info *cell) {
  struct json json = {.out = stdout};
  json_open(&json, NULL, '{');
  json_number(&json, "position", cell->position);
  json_number(&json, "attempts", cell->attempts);
  json_number(&json, "size", cell->size);
  json_bytes(&json, "data", t->data, cell->size < t->room ? (size_t)cell->size : t->room);
  json_close(&json, '}');
  json_end(&json);
  return fflush(stdout) == 0 ? 0 : errno;
}

static int print(const struct tail *t, const shmq_cell_info *cell) {
  int error = options.json ? print_json(t, cell) : print_plain(t, cell);
  if (error == 0 || error == EINTR) {
    return STATUS_OK;
  }
  complain("standard output: %s", strerror(error));
  return STATUS_FAILED;
}

/* ---- looking ---- */

/* One walk over the queue, printing what was not seen before except for the first `skip` messages.
 * A message reserved and not yet published stops its band: it is printed when it is there, in its
 * turn. */
static int look(struct tail *t, uint64_t skip) {
  bool held_up[SHMQ_PRIORITIES_MAX] = {false};
  uint64_t cursor = 0;
  shmq_cell_info cell;
  int status = STATUS_OK;
  while (status == STATUS_OK && !stop_requested() &&
         shmq_view_next(t->view, t->queue, &cursor, &cell, t->data, t->room) == 1) {
    uint32_t band = band_at(t, cursor);
    if (held_up[band] || is_before(cell.position, t->next[band])) {
      continue;
    }
    if (cell.state == SHMQ_CELL_RESERVED) {
      held_up[band] = true;
      continue;
    }
    t->next[band] = (cell.position + 1) & ((UINT64_C(1) << 48) - 1);
    if (is_message(&cell)) {
      t->seen++;
      status = skip > 0 ? STATUS_OK : print(t, &cell);
      skip -= skip > 0;
    }
  }
  return status;
}

/* How many messages are there to begin with, and where does each band begin? */
static uint64_t count_messages(struct tail *t) {
  uint64_t cursor = 0;
  uint64_t count = 0;
  bool begun[SHMQ_PRIORITIES_MAX] = {false};
  shmq_cell_info cell;
  while (shmq_view_next(t->view, t->queue, &cursor, &cell, NULL, 0) == 1) {
    uint32_t band = band_at(t, cursor);
    if (!begun[band]) {
      t->next[band] = cell.position;
      begun[band] = true;
    }
    count += is_message(&cell);
  }
  return count;
}

static int follow(struct tail *t, uint64_t puts) {
  int status = STATUS_OK;
  while (status == STATUS_OK && !stop_requested()) {
    shmq_queue_info queue;
    stop_sleep(options.interval_ns);
    int rc = shmq_view_queue(t->view, t->queue, &queue);
    if (rc < 0) {
      return fail(t->name, rc);
    }
    if (queue.puts != puts) { /* the walk costs more than this look */
      puts = queue.puts;
      status = look(t, 0);
    }
  }
  return status;
}

static void tell_missed(const struct tail *t) {
  shmq_queue_info queue;
  if (shmq_view_queue(t->view, t->queue, &queue) == 0 && queue.puts > t->first_puts + t->seen) {
    complain("%s: %" PRIu64 " messages were put and taken between two looks", t->name,
             queue.puts - t->first_puts - t->seen);
  }
}

static int tail_queue(struct tail *t, const shmq_queue_info *queue) {
  uint64_t there = count_messages(t);
  t->first_puts = queue->puts - (there < queue->puts ? there : queue->puts);
  int status = look(t, there > options.number ? there - options.number : 0);
  if (status == STATUS_OK && !options.until_end) {
    status = follow(t, queue->puts);
    tell_missed(t);
  }
  return status;
}

static int prepare(struct tail *t, shmq_queue_info *queue) {
  shmq_segment_info segment = {.bytes = 0};
  int rc = shmq_view_segment(t->view, &segment);
  if (rc == 0) {
    rc = shmq_view_queue(t->view, t->queue, queue);
  }
  if (rc < 0) {
    return rc;
  }
  t->capacity = queue->capacity;
  t->bands = queue->priorities;
  t->room = queue->message_bytes;
  if (segment.blocks > 0 && segment.block_bytes > t->room) {
    t->room = segment.block_bytes;
  }
  t->data = calloc(1, t->room + 1);
  return t->data != NULL ? 0 : -ENOMEM;
}

static int run(int count, char **arguments) {
  (void)count;
  struct tail tail = {.name = arguments[0]};
  shmq_queue_info queue = {.name = ""};
  int status = view_at(arguments[0], &tail.view, &tail.queue);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = prepare(&tail, &queue);
  stop_catch();
  status = rc < 0 ? fail(arguments[0], rc) : tail_queue(&tail, &queue);
  free(tail.data);
  shmq_view_close(tail.view);
  return status;
}

const struct command tail_command = {
    .name = "tail",
    .arguments = "NAME",
    .summary = "Print messages as they are put, without taking them",
    .details =
        "Begins with the last messages that are in the queue and follows until SIGINT or SIGTERM. "
        "It only looks, every 50 ms unless told otherwise: messages that are put and taken "
        "between two looks are missed, and how many is told at the end.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run,
};
