/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: what can be done with a dir.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "base/json.h"
#include "base/records.h"
#include "base/report.h"

static int dir_rest(struct asking *a, uint64_t handle, uint64_t offset) {
  int status;
  size_t got;
  do {
    status = ask_about(a, SHMQ_DIR_READ, NULL, handle, offset, a->room);
    got = status == STATUS_OK ? a->result.size : 0;
    offset += got;
    status = status == STATUS_OK ? ask_print(a->result.data, got, false) : status;
  } while (status == STATUS_OK && got == a->room);
  int closed = ask_about(a, SHMQ_DIR_CLOSE, NULL, handle, 0, 0);
  return status != STATUS_OK ? status : closed;
}

static int dir_get(struct asking *a, char **arguments) {
  int status = ask_about(a, SHMQ_DIR_GET, arguments[0], 0, 0, a->room);
  if (status != STATUS_OK) {
    return status;
  }
  uint64_t handle = a->result.value[1];
  uint64_t size = a->result.size;
  status = ask_print(a->result.data, a->result.size, false);
  return status == STATUS_OK && handle != 0 ? dir_rest(a, handle, size) : status;
}

static int put_contents(struct asking *a, const char *path, struct iovec contents) {
  struct iovec parts[2] = {{(void *)(uintptr_t)path, strlen(path)}, contents};
  shmq_ask what = {
      .op = SHMQ_DIR_PUT, .value = {strlen(path), 0644}, .parts = parts, .part_count = 2};
  return ask(a, &what);
}

static int dir_put(struct asking *a, char **arguments) {
  struct records records;
  struct iovec contents;
  int fd = ask_open_input();
  if (fd < 0) {
    return fail_system(ask_options.file, errno);
  }
  records_init(&records, fd, (struct bytes){NULL, 0}, a->room);
  int rc = records_next(&records, &contents, 1);
  int status = rc < 0 ? fail(a->name, rc) : put_contents(a, arguments[0], contents);
  records_free(&records);
  return status;
}

static int dir_stat(struct asking *a, char **arguments) {
  shmq_dir_stat stat;
  int status = ask_about(a, SHMQ_DIR_STAT, arguments[0], 0, 0, 0);
  if (status != STATUS_OK || a->result.size < sizeof stat) {
    return status != STATUS_OK ? status : STATUS_FAILED;
  }
  memcpy(&stat, a->result.data, sizeof stat);
  char mode[8];
  snprintf(mode, sizeof mode, "%06o", stat.mode);
  struct json json = {.out = stdout};
  if (ask_options.json) {
    json_open(&json, NULL, '{');
    json_number(&json, "size", stat.size);
    json_text(&json, "mode", mode);
    json_integer(&json, "mtime_ns", stat.mtime_ns);
    json_number(&json, "inode", stat.inode);
    json_number(&json, "links", stat.links);
    json_number(&json, "uid", stat.uid);
    json_number(&json, "gid", stat.gid);
    json_close(&json, '}');
    json_end(&json);
  } else {
    printf("size=%" PRIu64 " mode=%s mtime_ns=%" PRId64 " inode=%" PRIu64
           " links=%u uid=%u gid=%u\n",
           stat.size, mode, stat.mtime_ns, stat.inode, stat.links, stat.uid, stat.gid);
  }
  return STATUS_OK;
}

/* Entries are a type and a name each, closed by a NUL. A directory is shown with a slash. */
static int print_entries(struct json *json, const char *data, size_t size) {
  int status = STATUS_OK;
  for (size_t at = 0; at + 1 < size && status == STATUS_OK;) {
    const char *name = data + at + 1;
    size_t length = strnlen(name, size - at - 1);
    if (ask_options.json) {
      char type[2] = {data[at], '\0'};
      json_open(json, NULL, '{');
      json_text(json, "type", type);
      json_bytes(json, "name", name, length);
      json_close(json, '}');
    } else {
      status = ask_print(name, length, data[at] != 'd');
      if (status == STATUS_OK && data[at] == 'd') {
        status = ask_print("/", 1, true);
      }
    }
    at += length + 2;
  }
  return status;
}

static int dir_list(struct asking *a, char **arguments) {
  struct json json = {.out = stdout};
  uint64_t cursor = 0;
  int status;
  if (ask_options.json) {
    json_open(&json, NULL, '[');
  }
  do {
    status =
        ask_about(a, SHMQ_DIR_LIST, arguments[0] != NULL ? arguments[0] : "", cursor, 0, a->room);
    if (status == STATUS_OK) {
      status = print_entries(&json, a->result.data, a->result.size);
      cursor = a->result.value[0];
    }
  } while (status == STATUS_OK && cursor != 0);
  if (ask_options.json) {
    json_close(&json, ']');
    json_end(&json);
  }
  return status;
}

static int dir_mkdir(struct asking *a, char **arguments) {
  return ask_about(a, SHMQ_DIR_MKDIR, arguments[0], 0, 0755, 0);
}

static int dir_unlink(struct asking *a, char **arguments) {
  return ask_about(a, SHMQ_DIR_UNLINK, arguments[0], 0, 0, 0);
}

static int dir_rmdir(struct asking *a, char **arguments) {
  return ask_about(a, SHMQ_DIR_UNLINK, arguments[0], 1, 0, 0);
}

static int dir_rename(struct asking *a, char **arguments) {
  struct iovec parts[2] = {{arguments[0], strlen(arguments[0]) + 1},
                           {arguments[1], strlen(arguments[1])}};
  shmq_ask what = {.op = SHMQ_DIR_RENAME, .parts = parts, .part_count = 2};
  return ask(a, &what);
}

const struct ask_operation ask_dir_operations[] = {
    {"get", 1, 1, dir_get},
    {"put", 1, 1, dir_put},
    {"stat", 1, 1, dir_stat},
    {"list", 0, 1, dir_list},
    {"mkdir", 1, 1, dir_mkdir},
    {"rename", 2, 2, dir_rename},
    {"unlink", 1, 1, dir_unlink},
    {"rmdir", 1, 1, dir_rmdir},
    {0},
};
