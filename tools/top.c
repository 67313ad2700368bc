/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq top: what all queues do, refreshed. On a terminal the table replaces itself; otherwise
 * tables, or JSON lines, follow one another.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/report.h"
#include "base/stop.h"
#include "base/table.h"
#include "base/view.h"
#include "command.h"

static struct {
  int64_t interval_ns;
  uint64_t number;
  bool json;
} options = {.interval_ns = 1000000000};

static const struct flag flags[] = {
    DURATION_FLAG("interval", 'i', &options.interval_ns, "DUR", 10000000,
                  "time between two looks (default 1s)"),
    NUMBER_FLAG("number", 'n', &options.number, "N", 1, INT64_MAX,
                "end after N looks (default: no end)"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

static const struct column columns[] = {
    {.title = "NAME"},
    {.title = "DEPTH", .right = true},
    {.title = "FILL", .right = true},
    {.title = "LEASED", .right = true},
    {.title = "PUT/s", .right = true},
    {.title = "GET/s", .right = true},
    {.title = "AGAIN", .right = true},
    {.title = "DROPPED", .right = true},
    {.title = "DEAD", .right = true},
    {.title = "USERS", .right = true},
    {.title = "STATE"},
};

/* One queue at the last look. */
struct sample {
  uint8_t segment[16];
  uint32_t queue;
  uint64_t puts, gets;
  int64_t when_ns;
};

struct samples {
  struct sample *items;
  size_t count, room;
};

struct look {
  struct samples before, now;
  struct table *table;
  struct json json;
  const char *only; /* a segment, NULL: all */
};

static void remember(struct samples *samples, const struct sample *sample) {
  if (samples->count == samples->room) {
    size_t room = samples->room == 0 ? 64 : 2 * samples->room;
    struct sample *items = realloc(samples->items, room * sizeof *items);
    if (items == NULL) {
      return; /* its rates are missing next time, no more */
    }
    samples->items = items;
    samples->room = room;
  }
  samples->items[samples->count++] = *sample;
}

/* The same queue at the look before; NULL when it is new. */
static const struct sample *recall(const struct samples *samples, const struct sample *sample) {
  for (size_t i = 0; i < samples->count; i++) {
    const struct sample *other = &samples->items[i];
    if (other->queue == sample->queue && memcmp(other->segment, sample->segment, 16) == 0) {
      return other;
    }
  }
  return NULL;
}

struct rates {
  double puts, gets; /* messages a second; negative: not known yet */
};

static struct rates rates_of(struct look *look, const shmq_segment_info *segment, uint32_t index,
                             const shmq_queue_info *queue) {
  struct sample now = {
      .queue = index, .puts = queue->puts, .gets = queue->gets, .when_ns = shmq_now_ns()};
  memcpy(now.segment, segment->uuid, sizeof now.segment);
  const struct sample *before = recall(&look->before, &now);
  remember(&look->now, &now);
  if (before == NULL || now.when_ns <= before->when_ns) {
    return (struct rates){-1, -1};
  }
  double seconds = (double)(now.when_ns - before->when_ns) / 1e9;
  return (struct rates){(double)(now.puts - before->puts) / seconds,
                        (double)(now.gets - before->gets) / seconds};
}

static void rate_cell(struct table *table, double rate) {
  table_cell(table, rate < 0 ? "-" : "%.0f", rate);
}

static void show_row(struct table *table, const char *label, const shmq_segment_info *segment,
                     const shmq_queue_info *queue, struct rates rates) {
  uint64_t room = (uint64_t)queue->capacity * (queue->priorities > 0 ? queue->priorities : 1);
  table_row(table);
  table_cell(table, "%s", label);
  table_cell(table, "%" PRIu64, queue->depth);
  table_cell(table, "%.0f%%", room > 0 ? 100.0 * (double)queue->depth / (double)room : 0.0);
  table_cell(table, "%" PRIu64, queue->leased);
  rate_cell(table, rates.puts);
  rate_cell(table, rates.gets);
  table_cell(table, "%" PRIu64, queue->redeliveries);
  table_cell(table, "%" PRIu64, queue->dropped + queue->expired);
  table_cell(table, "%" PRIu64, queue->dead_lettered);
  table_cell(table, "%u", segment->participants);
  table_cell(table, "%s", queue->damaged > 0 ? "damaged" : queue->shut_down ? "shut down" : "ok");
}

static void show_json(struct json *json, const char *label, shmq_view *view,
                      const shmq_queue_info *queue, struct rates rates) {
  json_open(json, NULL, '{');
  json_text(json, "name", label);
  json_queue(json, view, queue);
  if (rates.puts >= 0) {
    json_integer(json, "puts_per_second", (int64_t)rates.puts);
    json_integer(json, "gets_per_second", (int64_t)rates.gets);
  }
  json_close(json, '}');
}

static int look_at(const char *name, void *context) {
  struct look *look = context;
  shmq_view *view;
  if ((look->only != NULL && strcmp(look->only, name) != 0) || shmq_view_open(&view, name) != 0) {
    return 0;
  }
  shmq_segment_info segment;
  shmq_queue_info queue;
  if (shmq_view_segment(view, &segment) == 0) {
    for (uint32_t i = 0; shmq_view_queue(view, i, &queue) == 0; i++) {
      if (is_answer_queue(view, &queue)) {
        continue;
      }
      char label[SHMQ_NAME_MAX + SHMQ_QUEUE_NAME_MAX + 2];
      queue_label(name, i, queue.name, label, sizeof label);
      struct rates rates = rates_of(look, &segment, i, &queue);
      if (options.json) {
        show_json(&look->json, label, view, &queue, rates);
      } else {
        show_row(look->table, label, &segment, &queue, rates);
      }
    }
  }
  shmq_view_close(view);
  return 0;
}

static void print_table(struct look *look, bool terminal) {
  if (terminal) {
    fputs("\033[H\033[J", stdout); /* ECMA-48: home, erase to the end */
  }
  table_print(look->table);
  if (!terminal) {
    putchar('\n');
  }
}

/* One look at everything. Returns a status. */
static int refresh(struct look *look, bool terminal) {
  struct samples old = look->before;
  look->before = look->now;
  look->now = (struct samples){.items = old.items, .room = old.room};
  look->table = table_new(columns, sizeof columns / sizeof *columns);
  look->json = (struct json){.out = stdout};
  if (options.json) {
    json_open(&look->json, NULL, '[');
  }
  int rc = shmq_list(look_at, look);
  if (options.json) {
    json_close(&look->json, ']');
    json_end(&look->json);
    table_free(look->table);
  } else {
    print_table(look, terminal);
  }
  if (rc < 0) {
    return fail("/dev/shm", rc);
  }
  return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILED;
}

static int run(int count, char **arguments) {
  struct look look = {.only = NULL};
  struct address address;
  if (count == 1) {
    shmq_view *view = NULL;
    uint32_t index;
    int status = check_name(arguments[0], false, &address);
    if (status == STATUS_OK) {
      status = view_at(arguments[0], &view, &index);
    }
    if (status != STATUS_OK) {
      return status;
    }
    shmq_view_close(view);
    look.only = address.segment;
  }
  bool terminal = !options.json && isatty(STDOUT_FILENO);
  stop_catch();
  int status = refresh(&look, terminal);
  for (uint64_t i = 1; status == STATUS_OK && (options.number == 0 || i < options.number); i++) {
    stop_sleep(options.interval_ns);
    if (stop_requested()) {
      break;
    }
    status = refresh(&look, terminal);
  }
  free(look.before.items);
  free(look.now.items);
  return status;
}

const struct command top_command = {
    .name = "top",
    .arguments = "[SEGMENT]",
    .summary = "Watch what queues do",
    .details = "Depth, rates of puts and gets since the last look, redeliveries (AGAIN), messages "
               "dropped or expired, dead letters. Only looks, as 'shmq info' does. SIGINT ends it.",
    .flags = flags,
    .most = 1,
    .run = run,
};
