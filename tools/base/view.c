/* SPDX-License-Identifier: Apache-2.0 */
#include "base/view.h"

#include <errno.h>
#include <string.h>

#include "base/report.h"

const char *const full_policies[] = {"block", "fail", "drop-oldest", "drop-newest", NULL};

const char *reason_text(int32_t reason) {
  switch (reason) {
  case SHMQ_REASON_DIED: return "died";
  case SHMQ_REASON_NACKED: return "nacked";
  case SHMQ_REASON_EXPIRED: return "expired";
  default: return "none";
  }
}

int check_name(const char *name, bool queue_allowed, struct address *address) {
  const char *fault = parse_address(name, address);
  if (fault == NULL && !queue_allowed && address->queue != NULL) {
    fault = "has a slash; this command takes the name of a segment";
  }
  return fault != NULL ? usage("'%.60s%s' %s", name, strlen(name) > 60 ? "..." : "", fault)
                       : STATUS_OK;
}

static int find_queue(shmq_view *view, const char *name, uint32_t *index) {
  shmq_queue_info queue;
  for (uint32_t i = 0; shmq_view_queue(view, i, &queue) == 0; i++) {
    if (name == NULL || strcmp(queue.name, name) == 0) {
      *index = i;
      return 0;
    }
  }
  return -ENOENT;
}

int view_at(const char *name, shmq_view **view, uint32_t *queue) {
  struct address address;
  int status = check_name(name, true, &address);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_view_open(view, address.segment);
  if (rc == 0 && (rc = find_queue(*view, address.queue, queue)) != 0) {
    shmq_view_close(*view);
  }
  return rc == 0 ? STATUS_OK : fail(name, rc);
}

void queue_label(const char *segment, uint32_t index, const char *queue, char *text, size_t size) {
  snprintf(text, size, index == 0 ? "%s" : "%s/%s", segment, queue);
}

bool is_answer_queue(shmq_view *view, const shmq_queue_info *queue) {
  shmq_queue_info first;
  bool service = shmq_view_queue(view, 0, &first) == 0 && strncmp(first.name, "requests", 8) == 0;
  return service &&
         (strncmp(queue->name, "reply.", 6) == 0 || strncmp(queue->name, "cancel.", 7) == 0);
}

static void json_dead_letter(struct json *json, shmq_view *view, int32_t index) {
  shmq_queue_info queue;
  bool known = index >= 0 && shmq_view_queue(view, (uint32_t)index, &queue) == 0;
  json_text(json, "dead_letter", known ? queue.name : NULL);
}

void json_queue(struct json *json, shmq_view *view, const shmq_queue_info *queue) {
  json_text(json, "queue", queue->name);
  json_number(json, "depth", queue->depth);
  json_number(json, "capacity", queue->capacity);
  json_number(json, "message_size", queue->message_bytes);
  json_number(json, "puts", queue->puts);
  json_number(json, "gets", queue->gets);
  json_number(json, "redeliveries", queue->redeliveries);
  json_number(json, "leased", queue->leased);
  json_number(json, "reserved", queue->reserved);
  json_number(json, "returned", queue->returned);
  json_number(json, "delayed", queue->delayed);
  json_number(json, "aborted", queue->aborted);
  json_number(json, "dropped", queue->dropped);
  json_number(json, "expired", queue->expired);
  json_number(json, "dead_lettered", queue->dead_lettered);
  json_number(json, "damaged", queue->damaged);
  json_bool(json, "shut_down", queue->shut_down != 0);
  json_bool(json, "single_producer", (queue->flags & SHMQ_SINGLE_PRODUCER) != 0);
  json_bool(json, "single_consumer", (queue->flags & SHMQ_SINGLE_CONSUMER) != 0);
  json_bool(json, "timed", (queue->flags & SHMQ_TIMED) != 0);
  json_number(json, "producer", queue->producer);
  json_number(json, "consumer", queue->consumer);
  json_number(json, "priorities", queue->priorities);
  json_number(json, "max_attempts", queue->max_attempts);
  json_dead_letter(json, view, queue->dead_letter);
  json_integer(json, "ttl_ns", queue->ttl_ns);
  json_text(json, "when_full", queue->full_policy < 4 ? full_policies[queue->full_policy] : NULL);
}

static void json_uuid(struct json *json, const uint8_t uuid[16]) {
  char text[37];
  char *at = text;
  for (int i = 0; i < 16; i++) {
    at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
  }
  json_text(json, "uuid", text);
}

void json_segment(struct json *json, const shmq_segment_info *segment) {
  char mode[8];
  snprintf(mode, sizeof mode, "%04o", segment->mode & 07777);
  json_uuid(json, segment->uuid);
  json_number(json, "bytes", segment->bytes);
  json_number(json, "layout_version", segment->layout_version);
  json_text(json, "mode", mode);
  json_number(json, "uid", segment->uid);
  json_number(json, "gid", segment->gid);
  json_integer(json, "created_ns", segment->created_ns);
  json_number(json, "participants_max", segment->participants_max);
  json_number(json, "blocks", segment->blocks);
  json_number(json, "blocks_free", segment->blocks_free);
  json_number(json, "block_size", segment->block_bytes);
}

void json_participant(struct json *json, const shmq_participant_info *participant) {
  json_number(json, "index", participant->index);
  json_number(json, "generation", participant->generation);
  json_integer(json, "pid", participant->pid);
  json_text(json, "role", participant->role);
  json_text(json, "label", participant->label);
  json_integer(json, "cpu", participant->cpu);
  json_bool(json, "alive", participant->alive != 0);
  json_bool(json, "stopped", participant->stopped != 0);
  json_number(json, "puts", participant->puts);
  json_number(json, "gets", participant->gets);
  json_integer(json, "joined_ns", participant->joined_ns);
}

void json_cause(struct json *json, const char *key, const shmq_cause *cause) {
  if (cause->reason == SHMQ_REASON_NONE) {
    json_text(json, key, NULL);
    return;
  }
  json_open(json, key, '{');
  json_text(json, "reason", reason_text(cause->reason));
  json_integer(json, "pid", cause->pid);
  json_integer(json, "status", cause->status);
  json_number(json, "attempts", cause->attempts);
  json_integer(json, "when_ns", cause->when_ns);
  json_close(json, '}');
}
