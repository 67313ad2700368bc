/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: the daemon's resources from the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/output.h"
#include "base/parse.h"
#include "base/records.h"
#include "base/report.h"
#include "base/rpc.h"
#include "base/stop.h"
#include "command.h"

static const char *const acks[] = {"memory", "kernel", "disk", NULL};

static struct {
  const char *socket, *file;
  struct bytes delimiter;
  int64_t timeout_ns;
  uint64_t ack;
  bool json;
} options = {.delimiter = {"\n", 1}, .timeout_ns = -1, .ack = SHMQ_LOG_ACK_DISK};

static const struct flag flags[] = {
    TEXT_FLAG("socket", 'S', &options.socket, "PATH",
              "the daemon's control socket (default: $SHMQD_SOCKET, or where shmqd puts it)"),
    TEXT_FLAG("file", 'f', &options.file, "FILE", "put, append: read FILE, not standard input"),
    BYTES_FLAG("delimiter", 'D', &options.delimiter, "DELIM",
               "between records and names, written and read (default \\n)"),
    CHOICE_FLAG("ack", 0, &options.ack, "WHERE", acks,
                "append: answered when it is in memory, kernel or disk (default)"),
    TIMEOUT_FLAG(&options.timeout_ns),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

struct asking {
  shmq_client *client;
  const char *name; /* of the resource */
  uint16_t resource;
  size_t room; /* longest payload of a request or an answer */
  shmq_future *future;
  shmq_result result;
};

enum { BLOCKS = 4, BLOCK_BYTES = 1 << 18 };

/* ---- asking ---- */

/* Ask; the answer is in a->result until the next ask. Complains. Returns a status. */
static int ask(struct asking *a, shmq_ask *what) {
  shmq_future_free(a->future);
  a->future = NULL;
  what->resource = a->resource;
  int rc = rpc_ask(a->client, what, stop_deadline(options.timeout_ns), &a->future, &a->result);
  return rc < 0 ? rpc_fail(a->name, &a->result) : STATUS_OK;
}

static int ask_about(struct asking *a, uint16_t op, const char *text, uint64_t first,
                     uint64_t second, size_t room) {
  struct iovec part = {(void *)(uintptr_t)text, text != NULL ? strlen(text) : 0};
  shmq_ask what = {.op = op,
                   .value = {first, second},
                   .parts = text != NULL ? &part : NULL,
                   .part_count = text != NULL,
                   .room = room};
  return ask(a, &what);
}

static int print_bytes(const void *data, size_t size, bool delimit) {
  struct iovec iov[2] = {{(void *)(uintptr_t)data, size},
                         {(void *)(uintptr_t)options.delimiter.data, options.delimiter.size}};
  int error;
  output_write(iov, delimit ? 2 : 1, &error);
  if (error != 0) {
    complain("standard output: %s", strerror(error));
  }
  return error == 0 ? STATUS_OK : STATUS_FAILED;
}

static int open_input(void) {
  return options.file != NULL ? open(options.file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
}

/* ---- dir ---- */

static int dir_rest(struct asking *a, uint64_t handle, uint64_t offset) {
  int status;
  size_t got;
  do {
    status = ask_about(a, SHMQ_DIR_READ, NULL, handle, offset, a->room);
    got = status == STATUS_OK ? a->result.size : 0;
    offset += got;
    status = status == STATUS_OK ? print_bytes(a->result.data, got, false) : status;
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
  status = print_bytes(a->result.data, a->result.size, false);
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
  int fd = open_input();
  if (fd < 0) {
    return fail_system(options.file, errno);
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
  if (options.json) {
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
    if (options.json) {
      char type[2] = {data[at], '\0'};
      json_open(json, NULL, '{');
      json_text(json, "type", type);
      json_bytes(json, "name", name, length);
      json_close(json, '}');
    } else {
      status = print_bytes(name, length, data[at] != 'd');
      if (status == STATUS_OK && data[at] == 'd') {
        status = print_bytes("/", 1, true);
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
  if (options.json) {
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
  if (options.json) {
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

/* ---- log ---- */

static int append_record(struct asking *a, struct iovec *record) {
  shmq_ask what = {
      .op = SHMQ_LOG_APPEND, .value = {options.ack, 0}, .parts = record, .part_count = 1};
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
  int fd = open_input();
  if (fd < 0) {
    return fail_system(options.file, errno);
  }
  struct records records;
  struct iovec record;
  int status = STATUS_OK;
  int rc = 0;
  records_init(&records, fd, options.delimiter, a->room);
  while (status == STATUS_OK && (rc = records_next(&records, &record, 1)) > 0) {
    status = append_record(a, &record);
  }
  records_free(&records);
  return rc < 0 ? fail(a->name, rc) : status;
}

static int print_record(const shmq_log_entry *entry, const char *data) {
  struct json json = {.out = stdout};
  if (!options.json) {
    return print_bytes(data, entry->bytes, true);
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
    printf(options.json ? "{\"first\":%" PRIu64 ",\"next\":%" PRIu64 "}\n"
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
    int rc = rpc_ask(a->client, &what, stop_deadline(options.timeout_ns), &a->future, &a->result);
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

/* ---- the daemon itself ---- */

static int daemon_children(struct asking *a, char **arguments) {
  (void)arguments;
  int status = ask_about(a, SHMQ_DAEMON_CHILDREN, NULL, 0, 0, a->room);
  return status == STATUS_OK ? print_bytes(a->result.data, a->result.size, false) : status;
}

static int daemon_status(struct asking *a, char **arguments) {
  (void)arguments;
  int status = ask_about(a, SHMQ_DAEMON_STATUS, NULL, 0, 0, 0);
  return status == STATUS_OK ? print_bytes(a->result.data, a->result.size, false) : status;
}

/* ---- the command ---- */

/* What can be asked: one list, from which the help is made too. */
static const struct operation {
  const char *kind, *name;
  int least, most;                                     /* arguments behind the name */
  int (*run)(struct asking *asking, char **arguments); /* absent ones are NULL */
} operations[] = {
    {"dir", "get", 1, 1, dir_get},       {"dir", "put", 1, 1, dir_put},
    {"dir", "stat", 1, 1, dir_stat},     {"dir", "list", 0, 1, dir_list},
    {"dir", "mkdir", 1, 1, dir_mkdir},   {"dir", "rename", 2, 2, dir_rename},
    {"dir", "unlink", 1, 1, dir_unlink}, {"dir", "rmdir", 1, 1, dir_rmdir},
    {"log", "append", 0, 1, log_append}, {"log", "read", 0, 1, log_read},
    {"log", "follow", 0, 1, log_follow}, {"log", "trim", 1, 1, log_trim},
    {"log", "status", 0, 0, log_status}, {"daemon", "status", 0, 0, daemon_status},
    {"daemon", "children", 0, 0, daemon_children},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

/* The resource of this name: its number, and its kind in `kind`. */
static int resolve(struct asking *a, char *kind, size_t size) {
  if (strcmp(a->name, "daemon") == 0) {
    snprintf(kind, size, "daemon");
    return STATUS_OK;
  }
  int status = ask_about(a, SHMQ_DAEMON_RESOLVE, a->name, 0, 0, 0);
  if (status == STATUS_OK) {
    snprintf(kind, size, "%.*s", (int)a->result.size, (const char *)a->result.data);
    a->resource = (uint16_t)a->result.value[0];
  }
  return status;
}

static int perform(struct asking *a, int count, char **arguments) {
  char kind[32];
  int status = resolve(a, kind, sizeof kind);
  if (status != STATUS_OK) {
    return status;
  }
  for (size_t i = 0; i < OPERATIONS; i++) {
    const struct operation *operation = &operations[i];
    if (strcmp(operation->kind, kind) != 0 || strcmp(operation->name, arguments[0]) != 0) {
      continue;
    }
    if (count - 1 < operation->least || count - 1 > operation->most) {
      return usage("%s %s takes %d to %d arguments", kind, operation->name, operation->least,
                   operation->most);
    }
    return operation->run(a, arguments + 1); /* argv ends with NULL, so what is absent is NULL */
  }
  return usage("%s: a %s has no operation '%s'", a->name, kind, arguments[0]);
}

/* What was granted may be less than what was wished. */
static size_t granted_room(shmq_client *client) {
  shmq *requests;
  if (shmq_open_in(&requests, shmq_client_segment(client), NULL, 0) < 0) {
    return 0;
  }
  uint64_t limit = shmq_message_limit(requests);
  shmq_close(requests);
  return limit > SHMQ_RPC_HEADER_BYTES ? (size_t)limit - SHMQ_RPC_HEADER_BYTES : 0;
}

static int fail_to_connect(int rc) {
  if (rc == -ENOENT || rc == -ECONNREFUSED) {
    const char *set = getenv("SHMQD_SOCKET");
    complain("no daemon listens at %s; start shmqd, or say where with --socket",
             options.socket != NULL ? options.socket
             : set != NULL          ? set
                                    : "its usual place");
    return STATUS_NOT_FOUND;
  }
  return fail("the daemon", rc);
}

static int run(int count, char **arguments) {
  struct asking a = {.name = arguments[0]};
  shmq_session_options session = {.blocks = BLOCKS, .block_bytes = BLOCK_BYTES};
  int rc = shmq_client_connect(&a.client, options.socket, &session, 0);
  if (rc < 0) {
    return fail_to_connect(rc);
  }
  stop_catch();
  a.room = granted_room(a.client);
  int status = perform(&a, count - 1, arguments + 1);
  shmq_future_free(a.future);
  shmq_client_close(a.client);
  return status;
}

const struct command ask_command = {
    .name = "ask",
    .arguments = "RESOURCE OPERATION [ARGUMENT]...",
    .summary = "Use a resource of the daemon shmqd",
    .details =
        "RESOURCE is the name in the daemon's configuration; daemon is the daemon itself. What "
        "can be asked of a dir: get PATH, put PATH, stat PATH, list [PATH], mkdir PATH, rename "
        "OLD NEW, unlink PATH, rmdir PATH. Of a log: append [RECORD | -], read [FROM], follow "
        "[FROM], trim BELOW, status. Of daemon: status, children "
        "(those of its supervisor, and what is known of the dead).\n\n"
        "put and append read standard input or --file; append cuts it into records at the "
        "delimiter and prints the number of each. put replaces the file as one step.",
    .examples = "  shmq ask tree get etc/hosts\n"
                "  echo hello | shmq ask audit append\n"
                "  shmq ask audit read 1 --json",
    .flags = flags,
    .least = 2,
    .most = -1,
    .run = run,
};
