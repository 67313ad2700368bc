/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: what can be done with a kv.
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

static int print_version(const struct asking *a) {
  printf("%" PRIu64 "\n", a->result.value[0]);
  return STATUS_OK;
}

static int read_version(const char *text, uint64_t *version) {
  const char *fault = parse_number(text, 0, UINT64_MAX, version);
  return fault != NULL ? usage("version '%s' %s", text, fault) : STATUS_OK;
}

static int kv_get(struct asking *a, char **arguments) {
  int status = ask_about(a, SHMQ_KV_GET, arguments[0], 0, 0, a->room);
  return status == STATUS_OK ? ask_print(a->result.data, a->result.size, true) : status;
}

static int put_value(struct asking *a, uint16_t op, const char *key, uint64_t version,
                     struct iovec value) {
  struct iovec parts[2] = {{(void *)(uintptr_t)key, strlen(key)}, value};
  shmq_ask what = {
      .op = op, .value = {strlen(key), version}, .parts = parts, .part_count = 2};
  int status = ask(a, &what);
  return status == STATUS_OK ? print_version(a) : status;
}

static int put_input(struct asking *a, const char *key) {
  struct records records;
  struct iovec value;
  int fd = ask_open_input();
  if (fd < 0) {
    return fail_system(ask_options.file, errno);
  }
  records_init(&records, fd, (struct bytes){NULL, 0}, a->room);
  int rc = records_next(&records, &value, 1);
  int status = rc < 0 ? fail(a->name, rc) : put_value(a, SHMQ_KV_PUT, key, 0, value);
  records_free(&records);
  return status;
}

static int kv_put(struct asking *a, char **arguments) {
  char *value = arguments[1];
  if (value == NULL || strcmp(value, "-") == 0) {
    return put_input(a, arguments[0]);
  }
  return put_value(a, SHMQ_KV_PUT, arguments[0], 0, (struct iovec){value, strlen(value)});
}

static int kv_cas(struct asking *a, char **arguments) {
  uint64_t version;
  int status = read_version(arguments[1], &version);
  return status != STATUS_OK
             ? status
             : put_value(a, SHMQ_KV_CAS, arguments[0], version,
                         (struct iovec){arguments[2], strlen(arguments[2])});
}

static int kv_add(struct asking *a, char **arguments) {
  char *end = NULL;
  errno = 0;
  long long delta = arguments[1] != NULL ? strtoll(arguments[1], &end, 10) : 1;
  if (arguments[1] != NULL && (errno != 0 || end == arguments[1] || *end != '\0')) {
    return usage("'%s' is not a number", arguments[1]);
  }
  int status = ask_about(a, SHMQ_KV_ADD, arguments[0], (uint64_t)delta, 0, 0);
  if (status == STATUS_OK) {
    printf("%" PRId64 "\n", (int64_t)a->result.value[1]);
  }
  return status;
}

static int kv_delete(struct asking *a, char **arguments) {
  uint64_t version = 0;
  int status = arguments[1] != NULL ? read_version(arguments[1], &version) : STATUS_OK;
  return status != STATUS_OK ? status
                             : ask_about(a, SHMQ_KV_DELETE, arguments[0], 0, version, 0);
}

static int print_entry(struct json *json, const shmq_kv_entry *e, const char *key) {
  if (!ask_options.json) {
    int status = ask_print(key, e->key_bytes, false);
    return status != STATUS_OK || ask_print("\t", 1, false) != STATUS_OK
               ? STATUS_FAILED
               : ask_print(key + e->key_bytes, e->value_bytes, true);
  }
  json_open(json, NULL, '{');
  json_bytes(json, "key", key, e->key_bytes);
  json_bytes(json, "value", key + e->key_bytes, e->value_bytes);
  json_number(json, "version", e->version);
  json_close(json, '}');
  return STATUS_OK;
}

/* The last key of the answer is where the next request goes on. */
static int print_entries(const struct asking *a, struct json *json, char *last, size_t *last_bytes) {
  int status = STATUS_OK;
  shmq_kv_entry e;
  const char *data = a->result.data;
  for (size_t at = 0; status == STATUS_OK && at + sizeof e <= a->result.size;) {
    memcpy(&e, data + at, sizeof e);
    at += sizeof e;
    size_t bytes = (size_t)e.key_bytes + e.value_bytes;
    if (bytes > a->result.size - at || e.key_bytes > SHMQ_KV_KEY_MAX) {
      complain("%s: an answer that makes no sense", a->name);
      return STATUS_FAILED;
    }
    status = print_entry(json, &e, data + at);
    memcpy(last, data + at, e.key_bytes);
    *last_bytes = e.key_bytes;
    at += (bytes + 7) & ~(size_t)7;
  }
  return status;
}

static int kv_scan(struct asking *a, char **arguments) {
  const char *prefix = arguments[0] != NULL ? arguments[0] : "";
  char last[SHMQ_KV_KEY_MAX];
  size_t last_bytes = 0;
  struct json json = {.out = stdout};
  int status;
  bool more;
  if (ask_options.json) {
    json_open(&json, NULL, '[');
  }
  do {
    struct iovec parts[2] = {{(void *)(uintptr_t)prefix, strlen(prefix)}, {last, last_bytes}};
    shmq_ask what = {.op = SHMQ_KV_SCAN,
                     .flags = SHMQ_ASK_IDEMPOTENT,
                     .value = {strlen(prefix), 0},
                     .parts = parts,
                     .part_count = 2,
                     .room = a->room};
    status = ask(a, &what);
    more = status == STATUS_OK && a->result.value[0] != 0;
    status = status == STATUS_OK ? print_entries(a, &json, last, &last_bytes) : status;
  } while (status == STATUS_OK && more);
  if (ask_options.json) {
    json_close(&json, ']');
    json_end(&json);
  }
  return status;
}

static int kv_status(struct asking *a, char **arguments) {
  (void)arguments;
  int status = ask_about(a, SHMQ_KV_STATUS, NULL, 0, 0, 0);
  if (status == STATUS_OK) {
    printf(ask_options.json ? "{\"keys\":%" PRIu64 ",\"last\":%" PRIu64 "}\n"
                            : "keys=%" PRIu64 " last=%" PRIu64 "\n",
           a->result.value[0], a->result.value[1]);
  }
  return status;
}

const struct ask_operation ask_kv_operations[] = {
    {"get", 1, 1, kv_get},       {"put", 1, 2, kv_put},   {"cas", 3, 3, kv_cas},
    {"add", 1, 2, kv_add},       {"delete", 1, 2, kv_delete},
    {"scan", 0, 1, kv_scan},     {"status", 0, 0, kv_status},
    {0},
};
