/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: what can be done with a log.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "base/json.h"
#include "base/parse.h"
#include "base/records.h"
#include "base/report.h"
#include "base/rpc.h"
#include "base/stop.h"

static int append_record(struct asking *a, struct iovec *record) {
  shmq_ask what = {
      .op = SHMQ_LOG_APPEND, .value = {ask_options.ack, 0}, .parts = record, .part_count = 1};
  int status = ask(a, &what);
  if (status == STATUS_OK) {
    printf("%" PRIu64 "\n", a->result.value[0]);
  }
  return status;
}

static int log_append(struct asking *a, char **arguments) {
  if (arguments[0] != NULL && strcmp(arguments[0], "-") != 0) {
    struct iovec record = {arguments[0], strlen(arguments[0])};
    return append_record(a, &record);
  }
  int fd = ask_open_input();
  if (fd < 0) {
    return fail_system(ask_options.file, errno);
  }
  struct records records;
  struct iovec record;
  int status = STATUS_OK;
  int rc = 0;
  records_init(&records, fd, ask_options.delimiter, a->room);
  while (status == STATUS_OK && (rc = records_next(&records, &record, 1)) > 0) {
    status = append_record(a, &record);
  }
  records_free(&records);
  return rc < 0 ? fail(a->name, rc) : status;
}

static int print_record(const shmq_log_entry *entry, const char *data) {
  struct json json = {.out = stdout};
  if (!ask_options.json) {
    return ask_print(data, entry->bytes, true);
  }
  json_open(&json, NULL, '{');
  json_number(&json, "number", entry->number);
  json_bytes(&json, "data", data, entry->bytes);
  json_close(&json, '}');
  json_end(&json);
  return fflush(stdout) == 0 ? STATUS_OK : STATUS_FAILED;
}

/* Entries stand one behind the other, padded to 8 bytes. *next is behind the last one. */
static int print_records(const struct asking *a, uint64_t *next) {
  const char *data = a->result.data;
  int status = STATUS_OK;
  shmq_log_entry entry;
  for (size_t at = 0; status == STATUS_OK && at + sizeof entry <= a->result.size;) {
    memcpy(&entry, data + at, sizeof entry);
    at += sizeof entry;
    if (entry.bytes > a->result.size - at) {
      complain("%s: an answer that makes no sense", a->name);
      return STATUS_FAILED;
    }
    status = print_record(&entry, data + at);
    *next = entry.number + 1;
    at += (entry.bytes + 7) & ~UINT32_C(7);
  }
  return status;
}

static int log_status(struct asking *a, char **arguments) {
  (void)arguments;
  int status = ask_about(a, SHMQ_LOG_STATUS, NULL, 0, 0, 0);
  if (status == STATUS_OK) {
    printf(ask_options.json ? "{\"first\":%" PRIu64 ",\"next\":%" PRIu64 "}\n"
                        : "first=%" PRIu64 " next=%" PRIu64 "\n",
           a->result.value[0], a->result.value[1]);
  }
  return status;
}

/* The number to begin with: stated, or that of the first record there is. */
static int begin_at(struct asking *a, const char *text, uint64_t *next) {
  if (text != NULL) {
    const char *fault = parse_number(text, 0, UINT64_MAX, next);
    return fault != NULL ? usage("record '%s' %s", text, fault) : STATUS_OK;
  }
  int status = ask_about(a, SHMQ_LOG_STATUS, NULL, 0, 0, 0);
  *next = a->result.value[0];
  return status;
}

static int log_records(struct asking *a, const char *from, uint16_t op) {
  uint64_t next;
  int status = begin_at(a, from, &next);
  while (status == STATUS_OK && !stop_requested()) {
    shmq_ask what = {.op = op,
                     .flags = SHMQ_ASK_IDEMPOTENT,
                     .value = {next, 0},
                     .room = a->room,
                     .resource = a->resource};
    shmq_future_free(a->future);
    a->future = NULL;
    int rc = rpc_ask(a->client, &what, stop_deadline(ask_options.timeout_ns), &a->future, &a->result);
    if (rc == -ENODATA || (rc < 0 && stop_requested())) {
      return STATUS_OK; /* behind the last record, or told to stop following */
    }
    status = rc < 0 ? rpc_fail(a->name, &a->result) : print_records(a, &next);
  }
  return status;
}

static int log_read(struct asking *a, char **arguments) {
  return log_records(a, arguments[0], SHMQ_LOG_READ);
}

static int log_follow(struct asking *a, char **arguments) {
  return log_records(a, arguments[0], SHMQ_LOG_FOLLOW);
}

static int log_trim(struct asking *a, char **arguments) {
  uint64_t below;
  const char *fault = parse_number(arguments[0], 0, UINT64_MAX, &below);
  return fault != NULL ? usage("record '%s' %s", arguments[0], fault)
                       : ask_about(a, SHMQ_LOG_TRIM, NULL, below, 0, 0);
}

const struct ask_operation ask_log_operations[] = {
    {"append", 0, 1, log_append},
    {"read", 0, 1, log_read},
    {"follow", 0, 1, log_follow},
    {"trim", 1, 1, log_trim},
    {"status", 0, 0, log_status},
    {0},
};
