/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: the daemon's resources from the command line.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ask.h"
#include "base/output.h"
#include "base/report.h"
#include "base/rpc.h"
#include "base/stop.h"
#include "command.h"

static const char *const acks[] = {"memory", "kernel", "disk", NULL};

struct ask_options ask_options = {
    .delimiter = {"\n", 1}, .timeout_ns = -1, .ack = SHMQ_LOG_ACK_DISK};

static const struct flag flags[] = {
    TEXT_FLAG("socket", 'S', &ask_options.socket, "PATH",
              "the daemon's control socket (default: $SHMQD_SOCKET, or where shmqd puts it)"),
    TEXT_FLAG("file", 'f', &ask_options.file, "FILE", "put, append: read FILE, not standard input"),
    BYTES_FLAG("delimiter", 'D', &ask_options.delimiter, "DELIM",
               "between records and names, written and read (default \\n)"),
    CHOICE_FLAG("ack", 0, &ask_options.ack, "WHERE", acks,
                "append: answered when it is in memory, kernel or disk (default)"),
    TIMEOUT_FLAG(&ask_options.timeout_ns),
    JSON_FLAG(&ask_options.json),
    END_OF_FLAGS,
};

enum { BLOCKS = 4, BLOCK_BYTES = 1 << 18 };

/* ---- asking ---- */

int ask(struct asking *a, shmq_ask *what) {
  shmq_future_free(a->future);
  a->future = NULL;
  what->resource = a->resource;
  int rc = rpc_ask(a->client, what, stop_deadline(ask_options.timeout_ns), &a->future, &a->result);
  return rc < 0 ? rpc_fail(a->name, &a->result) : STATUS_OK;
}

int ask_about(struct asking *a, uint16_t op, const char *text, uint64_t first,
                     uint64_t second, size_t room) {
  struct iovec part = {(void *)(uintptr_t)text, text != NULL ? strlen(text) : 0};
  shmq_ask what = {.op = op,
                   .value = {first, second},
                   .parts = text != NULL ? &part : NULL,
                   .part_count = text != NULL,
                   .room = room};
  return ask(a, &what);
}

static int print_piece(struct asking *a, const struct ask_list *list, struct json *json) {
  const char *data = a->result.data;
  uint32_t bytes;
  for (size_t at = 0; at + list->entry_bytes <= a->result.size; at += (bytes + 7) & ~UINT32_C(7)) {
    const char *entry = data + at;
    memcpy(&bytes, entry + list->length_at, sizeof bytes);
    at += list->entry_bytes;
    if (bytes > a->result.size - at) {
      complain("%s: an answer that makes no sense", a->name);
      return STATUS_FAILED;
    }
    list->print(json, entry, data + at, bytes);
  }
  return STATUS_OK;
}

int ask_all(struct asking *a, const struct ask_list *list) {
  struct json json = {.out = stdout};
  uint64_t from = 0;
  int status;
  if (ask_options.json) {
    json_open(&json, NULL, '[');
  }
  do {
    status = ask_about(a, list->op, NULL, from, 0, a->room);
    from = a->result.value[0];
    status = status == STATUS_OK ? print_piece(a, list, &json) : status;
  } while (status == STATUS_OK && from != 0);
  if (ask_options.json) {
    json_close(&json, ']');
    json_end(&json);
  }
  return status;
}

int ask_print(const void *data, size_t size, bool delimit) {
  struct iovec iov[2] = {{(void *)(uintptr_t)data, size},
                         {(void *)(uintptr_t)ask_options.delimiter.data, ask_options.delimiter.size}};
  int error;
  output_write(iov, delimit ? 2 : 1, &error);
  if (error != 0) {
    complain("standard output: %s", strerror(error));
  }
  return error == 0 ? STATUS_OK : STATUS_FAILED;
}

int ask_open_input(void) {
  return ask_options.file != NULL ? open(ask_options.file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
}

/* ---- the daemon itself ---- */

static int daemon_children(struct asking *a, char **arguments) {
  (void)arguments;
  int status = ask_about(a, SHMQ_DAEMON_CHILDREN, NULL, 0, 0, a->room);
  return status == STATUS_OK ? ask_print(a->result.data, a->result.size, false) : status;
}

static int daemon_status(struct asking *a, char **arguments) {
  (void)arguments;
  int status = ask_about(a, SHMQ_DAEMON_STATUS, NULL, 0, 0, 0);
  return status == STATUS_OK ? ask_print(a->result.data, a->result.size, false) : status;
}

/* ---- the command ---- */

static const struct ask_operation daemon_operations[] = {
    {"status", 0, 0, daemon_status},
    {"children", 0, 0, daemon_children},
    {0},
};

static const struct kind {
  const char *name;
  const struct ask_operation *operations;
} kinds[] = {{"dir", ask_dir_operations},         {"log", ask_log_operations},
             {"kv", ask_kv_operations},           {"pool", ask_pool_operations},
             {"timer", ask_timer_operations},     {"stream", ask_stream_operations},
             {"process", ask_process_operations}, {"daemon", daemon_operations}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static const struct ask_operation *find_operation(const char *kind, const char *name) {
  for (size_t i = 0; i < KINDS; i++) {
    if (strcmp(kinds[i].name, kind) != 0) {
      continue;
    }
    for (const struct ask_operation *o = kinds[i].operations; o->name != NULL; o++) {
      if (strcmp(o->name, name) == 0) {
        return o;
      }
    }
  }
  return NULL;
}

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
  const struct ask_operation *operation = find_operation(kind, arguments[0]);
  if (operation == NULL) {
    return usage("%s: a %s has no operation '%s'", a->name, kind, arguments[0]);
  }
  if (count - 1 < operation->least || (operation->most >= 0 && count - 1 > operation->most)) {
    return usage("%s %s takes %d to %d arguments", kind, operation->name, operation->least,
                 operation->most);
  }
  return operation->run(a, arguments + 1); /* argv ends with NULL, so what is absent is NULL */
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
             ask_options.socket != NULL ? ask_options.socket
             : set != NULL          ? set
                                    : "its usual place");
    return STATUS_NOT_FOUND;
  }
  if (rc == -EACCES) {
    complain("the daemon: permission denied; its owner decides with 'access' in [daemon]");
    return STATUS_PERMISSION;
  }
  return fail("the daemon", rc);
}

static int run(int count, char **arguments) {
  struct asking a = {.name = arguments[0]};
  shmq_session_options session = {.blocks = BLOCKS, .block_bytes = BLOCK_BYTES};
  int rc = shmq_client_connect(&a.client, ask_options.socket, &session, 0);
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
        "[FROM], trim BELOW, status. Of a kv: get KEY, put KEY [VALUE | -], cas KEY VERSION VALUE, "
        "add KEY [NUMBER], delete KEY [VERSION], scan [PREFIX], status. Of a pool: take -- COMMAND..., "
        "give TOKEN, list. Of a timer: wait DURATION, after DURATION QUEUE [MESSAGE], every DURATION "
        "QUEUE [MESSAGE], clear TIMER, list. Of a stream: line TEXT, command WORD..., status. Of a "
        "process: line TEXT, signal NUMBER [WHICH], status. Of daemon: status, children "
        "(those of its supervisor, and what is known of the dead).\n\n"
        "put and append read standard input or --file; append cuts it into records at the "
        "delimiter and prints the number of each. put replaces the file as one step. take runs the "
        "command with the token's text in $SHMQ_TOKEN and gives the token back when it ends.",
    .examples = "  shmq ask tree get etc/hosts\n"
                "  echo hello | shmq ask audit append\n"
                "  shmq ask audit read 1 --json\n"
                "  shmq ask ports take -- sh -c 'serve --port $SHMQ_TOKEN'",
    .flags = flags,
    .least = 2,
    .most = -1,
    .run = run,
};
