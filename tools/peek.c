/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq peek: the messages in a queue, without taking them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/report.h"
#include "base/table.h"
#include "base/view.h"
#include "command.h"

static const char *const states[] = {"free",     "reserved",  "ready",  "leased",
                                     "returned", "tombstone", "damaged"};

static struct {
  uint64_t number, bytes;
  bool json;
} options = {.bytes = 64};

static const struct flag flags[] = {
    NUMBER_FLAG("number", 'n', &options.number, "N", 1, INT64_MAX, "show at most N (default: all)"),
    SIZE_FLAG("bytes", 'b', &options.bytes, "BYTES", 0, SHMQ_BLOCK_MAX,
              "show at most BYTES of each message (default 64)"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

static const struct column columns[] = {
    {.title = "POSITION", .right = true}, {.title = "STATE"},
    {.title = "OWNER", .right = true},    {.title = "ATTEMPTS", .right = true},
    {.title = "SIZE", .right = true},     {.title = "CAUSE"},
    {.title = "DATA", .cut = true},
};

static const char *state_text(enum shmq_cell_state state) {
  return (size_t)state < sizeof states / sizeof *states ? states[state] : "damaged";
}

static bool has_payload(const shmq_cell_info *cell) {
  return cell->state == SHMQ_CELL_READY || cell->state == SHMQ_CELL_LEASED ||
         cell->state == SHMQ_CELL_RETURNED;
}

static void describe_cause(const shmq_cause *cause, char *text, size_t size) {
  if (cause->reason == SHMQ_REASON_NONE) {
    snprintf(text, size, "-");
  } else if (cause->status == -1) {
    snprintf(text, size, "%s, pid %d", reason_text(cause->reason), cause->pid);
  } else if (WIFSIGNALED(cause->status)) {
    snprintf(text, size, "%s, pid %d, signal %d", reason_text(cause->reason), cause->pid,
             WTERMSIG(cause->status));
  } else {
    snprintf(text, size, "%s, pid %d, exit %d", reason_text(cause->reason), cause->pid,
             WEXITSTATUS(cause->status));
  }
}

static void show_row(struct table *table, const shmq_cell_info *cell, const char *data,
                     size_t size) {
  char cause[80];
  describe_cause(&cell->cause, cause, sizeof cause);
  table_row(table);
  table_cell(table, "%" PRIu64, cell->position);
  table_cell(table, "%s", state_text(cell->state));
  table_cell(table, cell->owner == 0 ? "-" : "%u", cell->owner);
  table_cell(table, "%u", cell->attempts);
  table_cell(table, "%" PRIu64, cell->size);
  table_cell(table, "%s", cause);
  table_cell(table, "%.*s%s", (int)size, data, size < cell->size && has_payload(cell) ? "..." : "");
}

static void show_json(struct json *json, const shmq_cell_info *cell, const char *data,
                      size_t size) {
  json_open(json, NULL, '{');
  json_number(json, "position", cell->position);
  json_text(json, "state", state_text(cell->state));
  json_number(json, "owner", cell->owner);
  json_number(json, "attempts", cell->attempts);
  json_number(json, "size", cell->size);
  json_bool(json, "in_block", cell->in_block != 0);
  json_integer(json, "not_before_ns", cell->not_before_ns);
  json_integer(json, "expires_ns", cell->expires_ns);
  json_cause(json, "cause", &cell->cause);
  if (has_payload(cell)) {
    json_bool(json, "complete", size == cell->size);
    json_bytes(json, "data", data, size);
  }
  json_close(json, '}');
}

static void show_all(shmq_view *view, uint32_t index, char *data) {
  struct json json = {.out = stdout};
  struct table *table = table_new(columns, sizeof columns / sizeof *columns);
  if (options.json) {
    json_open(&json, NULL, '[');
  }
  uint64_t cursor = 0;
  uint64_t shown = 0;
  shmq_cell_info cell;
  while ((options.number == 0 || shown < options.number) &&
         shmq_view_next(view, index, &cursor, &cell, data, options.bytes) == 1) {
    bool payload = has_payload(&cell);
    size_t size = !payload ? 0 : cell.size < options.bytes ? (size_t)cell.size : options.bytes;
    if (options.json) {
      show_json(&json, &cell, data, size);
    } else {
      show_row(table, &cell, data, size);
    }
    shown++;
  }
  if (options.json) {
    json_close(&json, ']');
    json_end(&json);
  }
  table_print(table);
}

static int run(int count, char **arguments) {
  (void)count;
  shmq_view *view;
  uint32_t index;
  int status = view_at(arguments[0], &view, &index);
  if (status != STATUS_OK) {
    return status;
  }
  char *data = malloc(options.bytes + 1);
  if (data == NULL) {
    status = fail(arguments[0], -ENOMEM);
  } else {
    show_all(view, index, data);
  }
  free(data);
  shmq_view_close(view);
  return status;
}

const struct command peek_command = {
    .name = "peek",
    .arguments = "NAME",
    .summary = "Show the messages in a queue without taking them",
    .details =
        "Every cell that is in use: its position, state (ready, leased, returned for redelivery, "
        "reserved by a producer, tombstone), the participant that holds it, deliveries so far, "
        "why the last one failed, and the beginning of the data. Only looks, as 'shmq info' does.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run,
};
