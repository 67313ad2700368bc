/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq info: everything about a queue and its segment.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "base/report.h"
#include "base/table.h"
#include "base/view.h"
#include "command.h"

static bool json_wanted;

static const struct flag flags[] = {
    JSON_FLAG(&json_wanted),
    END_OF_FLAGS,
};

/* ---- JSON ---- */

static void print_json(shmq_view *view, const char *segment_name, const shmq_segment_info *segment,
                       const shmq_queue_info *queue) {
  struct json json = {.out = stdout};
  json_open(&json, NULL, '{');
  json_text(&json, "name", segment_name);
  json_queue(&json, view, queue);
  json_open(&json, "participants", '[');
  for (uint32_t i = 1; i <= segment->participants_max; i++) {
    shmq_participant_info participant;
    if (shmq_view_participant(view, i, &participant) == 0) {
      json_open(&json, NULL, '{');
      json_participant(&json, &participant);
      json_close(&json, '}');
    }
  }
  json_close(&json, ']');
  json_open(&json, "segment", '{');
  json_segment(&json, segment);
  json_close(&json, '}');
  json_open(&json, "queues", '[');
  shmq_queue_info other;
  for (uint32_t i = 0; shmq_view_queue(view, i, &other) == 0; i++) {
    json_open(&json, NULL, '{');
    json_queue(&json, view, &other);
    json_close(&json, '}');
  }
  json_close(&json, ']');
  json_close(&json, '}');
  json_end(&json);
}

/* ---- text ---- */

static void print_number(const char *name, uint64_t number, bool always) {
  if (always || number > 0) {
    printf("  %-15s %" PRIu64 "\n", name, number);
  }
}

static void print_properties(shmq_view *view, const shmq_queue_info *queue) {
  char ttl[16];
  shmq_queue_info dead;
  printf("%s%s%s, when full: %s", queue->flags & SHMQ_SINGLE_PRODUCER ? ", single producer" : "",
         queue->flags & SHMQ_SINGLE_CONSUMER ? ", single consumer" : "",
         queue->flags & SHMQ_TIMED ? ", timed" : "",
         queue->full_policy < 4 ? full_policies[queue->full_policy] : "?");
  if (queue->priorities > 1) {
    printf(", %u priorities", queue->priorities);
  }
  if (queue->max_attempts > 0) {
    printf(", at most %u attempts", queue->max_attempts);
  }
  if (queue->dead_letter >= 0 && shmq_view_queue(view, (uint32_t)queue->dead_letter, &dead) == 0) {
    printf(", dead letters to %s", dead.name);
  }
  if (queue->ttl_ns > 0) {
    printf(", expiry after %s", human_duration(queue->ttl_ns, ttl));
  }
  printf("%s\n", queue->shut_down ? ", SHUT DOWN" : "");
}

static void print_queue(shmq_view *view, const shmq_queue_info *queue) {
  printf("Queue %s: %u messages of %u bytes", queue->name, queue->capacity, queue->message_bytes);
  print_properties(view, queue);
  print_number("depth", queue->depth, true);
  print_number("leased", queue->leased, true);
  print_number("reserved", queue->reserved, false);
  print_number("returned", queue->returned, false);
  print_number("delayed", queue->delayed, false);
  print_number("puts", queue->puts, true);
  print_number("gets", queue->gets, true);
  print_number("redeliveries", queue->redeliveries, true);
  print_number("aborted", queue->aborted, false);
  print_number("dropped", queue->dropped, false);
  print_number("expired", queue->expired, false);
  print_number("dead-lettered", queue->dead_lettered, false);
  print_number("damaged", queue->damaged, false);
}

static void print_segment(const char *name, const shmq_segment_info *segment) {
  char size[16];
  char block[16];
  char when[32] = "?";
  time_t seconds = (time_t)(segment->created_ns / 1000000000);
  struct tm local;
  if (localtime_r(&seconds, &local) != NULL) {
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
  }
  printf("Segment %s: %s, mode %04o, owner %u:%u, created %s, layout %u\n", name,
         human_bytes(segment->bytes, size), segment->mode & 07777, segment->uid, segment->gid, when,
         segment->layout_version);
  if (segment->blocks > 0) {
    printf("Blocks: %u of %s, %u free\n", segment->blocks, human_bytes(segment->block_bytes, block),
           segment->blocks_free);
  }
}

static const struct column columns[] = {
    {.title = "INDEX", .right = true},
    {.title = "PID", .right = true},
    {.title = "ROLE"},
    {.title = "CPU", .right = true},
    {.title = "PUTS", .right = true},
    {.title = "GETS", .right = true},
    {.title = "STATE"},
    {.title = "LABEL", .cut = true},
};

static void print_participants(shmq_view *view, const shmq_segment_info *segment) {
  struct table *table = table_new(columns, sizeof columns / sizeof *columns);
  for (uint32_t i = 1; i <= segment->participants_max; i++) {
    shmq_participant_info who;
    if (shmq_view_participant(view, i, &who) != 0) {
      continue;
    }
    table_row(table);
    table_cell(table, "%u", who.index);
    table_cell(table, "%d", who.pid);
    table_cell(table, "%s", who.role);
    table_cell(table, who.cpu < 0 ? "-" : "%d", who.cpu);
    table_cell(table, "%" PRIu64, who.puts);
    table_cell(table, "%" PRIu64, who.gets);
    table_cell(table, "%s", !who.alive ? "dead" : who.stopped ? "stopped" : "alive");
    table_cell(table, "%s", who.label);
  }
  printf("Participants: %u of at most %u\n", segment->participants, segment->participants_max);
  table_print(table);
}

static void print_text(shmq_view *view, const char *name, const shmq_segment_info *segment,
                       const shmq_queue_info *queue, bool all) {
  print_segment(name, segment);
  shmq_queue_info other;
  for (uint32_t i = 0; all && shmq_view_queue(view, i, &other) == 0; i++) {
    if (!is_answer_queue(view, &other)) {
      print_queue(view, &other);
    }
  }
  if (!all) {
    print_queue(view, queue);
  }
  print_participants(view, segment);
}

static int run(int count, char **arguments) {
  (void)count;
  shmq_view *view;
  uint32_t index;
  int status = view_at(arguments[0], &view, &index);
  if (status != STATUS_OK) {
    return status;
  }
  shmq_segment_info segment;
  shmq_queue_info queue;
  int rc = shmq_view_segment(view, &segment);
  if (rc == 0) {
    rc = shmq_view_queue(view, index, &queue);
  }
  struct address address;
  parse_address(arguments[0], &address);
  if (rc == 0 && json_wanted) {
    print_json(view, address.segment, &segment, &queue);
  } else if (rc == 0) {
    print_text(view, address.segment, &segment, &queue, address.queue == NULL);
  }
  shmq_view_close(view);
  return rc == 0 ? STATUS_OK : fail(arguments[0], rc);
}

const struct command info_command = {
    .name = "info",
    .arguments = "NAME",
    .summary = "Show the state of a queue, its segment and who uses it",
    .details =
        "Only looks: it takes no lock and works when everybody else is stopped or dead. In JSON "
        "the queue's own values stand at the top level, with participants, segment and queues "
        "(all of the segment) below.",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run,
};
