/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ls: all segments and their queues.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/report.h"
#include "base/table.h"
#include "base/view.h"
#include "command.h"

static struct { bool json, names, all; } options;

static const struct flag flags[] = {
    JSON_FLAG(&options.json),
    SET_FLAG("names", 'n', &options.names, "print names of queues only, one a line"),
    SET_FLAG("all", 'a', &options.all, "also the queues through which services answer"),
    END_OF_FLAGS,
};

static const struct column columns[] = {
    {.title = "NAME"},
    {.title = "DEPTH", .right = true},
    {.title = "LEASED", .right = true},
    {.title = "CAPACITY", .right = true},
    {.title = "PUTS", .right = true},
    {.title = "GETS", .right = true},
    {.title = "USERS", .right = true},
    {.title = "SIZE", .right = true},
    {.title = "MODE"},
    {.title = "STATE"},
};

struct listing {
  struct table *table;
  struct json json;
};

/* Why a segment that stands there cannot be looked into. */
static const char *state_of(int error) {
  switch (error) {
  case -EACCES: return "no permission";
  case -ENOENT: return "unfinished";
  case -EPROTO: return "other version";
  default: return "damaged";
  }
}

static void list_unreadable(struct listing *listing, const char *name, int error) {
  if (options.names) {
    puts(name);
  } else if (options.json) {
    json_open(&listing->json, NULL, '{');
    json_text(&listing->json, "name", name);
    json_text(&listing->json, "state", state_of(error));
    json_close(&listing->json, '}');
  } else {
    table_row(listing->table);
    table_cell(listing->table, "%s", name);
    for (size_t i = 1; i + 1 < sizeof columns / sizeof *columns; i++) {
      table_cell(listing->table, "-");
    }
    table_cell(listing->table, "%s", state_of(error));
  }
}

static void list_queue(struct table *table, const char *name, uint32_t index,
                       const shmq_segment_info *segment, const shmq_queue_info *queue) {
  char label[SHMQ_NAME_MAX + SHMQ_QUEUE_NAME_MAX + 2];
  char size[16];
  queue_label(name, index, queue->name, label, sizeof label);
  table_row(table);
  table_cell(table, "%s", label);
  table_cell(table, "%llu", (unsigned long long)queue->depth);
  table_cell(table, "%llu", (unsigned long long)queue->leased);
  table_cell(table, "%u", queue->capacity);
  table_cell(table, "%llu", (unsigned long long)queue->puts);
  table_cell(table, "%llu", (unsigned long long)queue->gets);
  table_cell(table, "%u", segment->participants);
  table_cell(table, "%s", index == 0 ? human_bytes(segment->bytes, size) : "");
  table_cell(table, "%04o", segment->mode & 07777);
  table_cell(table, "%s", queue->damaged > 0 ? "damaged" : queue->shut_down ? "shut down" : "ok");
}

static void list_json(struct json *json, shmq_view *view, const char *name,
                      const shmq_segment_info *segment) {
  json_open(json, NULL, '{');
  json_text(json, "name", name);
  json_text(json, "state", "ok");
  json_number(json, "participants", segment->participants);
  json_segment(json, segment);
  json_open(json, "queues", '[');
  shmq_queue_info queue;
  for (uint32_t i = 0; shmq_view_queue(view, i, &queue) == 0; i++) {
    json_open(json, NULL, '{');
    json_queue(json, view, &queue);
    json_close(json, '}');
  }
  json_close(json, ']');
  json_close(json, '}');
}

static void list_queues(struct listing *listing, shmq_view *view, const char *name,
                        const shmq_segment_info *segment) {
  shmq_queue_info queue;
  for (uint32_t i = 0; shmq_view_queue(view, i, &queue) == 0; i++) {
    if (!options.all && is_answer_queue(view, &queue)) {
      continue;
    }
    if (options.names) {
      printf(i == 0 ? "%s\n" : "%s/%s\n", name, queue.name);
    } else {
      list_queue(listing->table, name, i, segment, &queue);
    }
  }
}

static int list_segment(const char *name, void *context) {
  struct listing *listing = context;
  shmq_view *view;
  int rc = shmq_view_open(&view, name);
  if (rc != 0) {
    list_unreadable(listing, name, rc);
    return 0;
  }
  shmq_segment_info segment;
  rc = shmq_view_segment(view, &segment);
  if (rc != 0) {
    list_unreadable(listing, name, rc);
  } else if (options.json) {
    list_json(&listing->json, view, name, &segment);
  } else {
    list_queues(listing, view, name, &segment);
  }
  shmq_view_close(view);
  return 0;
}

static int run(int count, char **arguments) {
  (void)count;
  (void)arguments;
  struct listing listing = {.json = {.out = stdout}};
  listing.table = table_new(columns, sizeof columns / sizeof *columns);
  if (options.json) {
    json_open(&listing.json, NULL, '[');
  }
  int rc = shmq_list(list_segment, &listing);
  if (options.json) {
    json_close(&listing.json, ']');
    json_end(&listing.json);
  }
  table_print(listing.table);
  return rc == 0 ? STATUS_OK : fail("/dev/shm", rc);
}

const struct command ls_command = {
    .name = "ls",
    .arguments = "",
    .summary = "List segments and their queues",
    .details =
        "One line a queue. A segment that cannot be looked into is listed with the reason: no "
        "permission, unfinished (its creator died or is still at work), other version, or damaged.",
    .flags = flags,
    .run = run,
};
