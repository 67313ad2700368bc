/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq call: ask a service and print its answer; shmq cast: tell it something and go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/output.h"
#include "base/records.h"
#include "base/report.h"
#include "base/rpc.h"
#include "base/stop.h"
#include "command.h"

static struct {
  const char *file;
  struct bytes delimiter;
  int64_t timeout_ns;
  uint64_t op;
  bool idempotent, json;
} options = {.timeout_ns = -1};

#define INPUT_FLAG \
  TEXT_FLAG("file", 'f', &options.file, "FILE", "read FILE instead of standard input")
#define OP_FLAG                                         \
  NUMBER_FLAG("op", 0, &options.op, "N", 0, UINT16_MAX, \
              "what to do, for services that number it (default 0)")

static const struct flag call_flags[] = {
    INPUT_FLAG,
    TIMEOUT_FLAG(&options.timeout_ns),
    SET_FLAG("idempotent", 'i', &options.idempotent,
             "doing it twice does no harm: another server may repeat it if one dies"),
    OP_FLAG,
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

static const struct flag cast_flags[] = {
    INPUT_FLAG,
    BYTES_FLAG("delimiter", 'D', &options.delimiter, "DELIM",
               "cut the input into requests at DELIM, which is removed"),
    TIMEOUT_FLAG(&options.timeout_ns),
    OP_FLAG,
    END_OF_FLAGS,
};

/* ---- the request ---- */

/* Everything a request can be made of: a text, or parts of a stream. */
struct input {
  const char *text; /* NULL: records */
  struct records records;
  int fd; /* to be closed, -1: none */
};

static int open_input(struct input *input, const char *message, uint64_t limit) {
  bool literal = message != NULL && strcmp(message, "-") != 0;
  *input = (struct input){.text = literal ? message : NULL, .fd = -1};
  if (literal && (options.file != NULL || options.delimiter.size > 0)) {
    return usage("a message and -%c do not go together", options.file != NULL ? 'f' : 'D');
  }
  if (message != NULL && !literal && options.file != NULL) {
    return usage("- and -f do not go together");
  }
  if (options.file != NULL) {
    input->fd = open(options.file, O_RDONLY | O_CLOEXEC);
    if (input->fd < 0) {
      return fail_system(options.file, errno);
    }
  }
  records_init(&input->records, input->fd >= 0 ? input->fd : STDIN_FILENO, options.delimiter,
               limit);
  return STATUS_OK;
}

static void close_input(struct input *input) {
  records_free(&input->records);
  if (input->fd >= 0) {
    close(input->fd);
  }
}

/* The next request's payload. Returns 1, 0 at the end, or a negative errno. */
static int next_payload(struct input *input, struct iovec *part) {
  if (input->text == NULL) {
    return records_next(&input->records, part, 1);
  }
  if (input->records.stated) {
    return 0;
  }
  input->records.stated = true;
  *part = (struct iovec){(void *)(uintptr_t)input->text, strlen(input->text)};
  return 1;
}

/* The longest payload is for the service to say; this only keeps a stream without end out of
 * memory. */
static const uint64_t stream_limit = SHMQ_BLOCK_MAX;

static shmq_ask ask_for(struct iovec *part) {
  return (shmq_ask){.op = (uint16_t)options.op,
                    .flags = options.idempotent ? SHMQ_ASK_IDEMPOTENT : 0,
                    .parts = part,
                    .part_count = 1};
}

/* ---- call ---- */

static void print_json(const shmq_result *result) {
  struct json json = {.out = stdout};
  json_open(&json, NULL, '{');
  json_integer(&json, "status", result->status);
  json_text(&json, "class", shmq_class_name((enum shmq_class)result->error_class));
  json_text(&json, "executed", rpc_executed(result->executed));
  json_integer(&json, "code", result->code);
  json_text(&json, "domain", result->domain);
  json_text(&json, "text", result->text);
  json_number(&json, "value0", result->value[0]);
  json_number(&json, "value1", result->value[1]);
  json_bool(&json, "more", result->status == 0 && result->more != 0);
  json_bytes(&json, "data", result->data, result->size);
  json_close(&json, '}');
  json_end(&json);
}

static int print_result(const char *name, const shmq_result *result) {
  if (options.json) {
    print_json(result);
    return result->status < 0 ? rpc_fail(name, result) : STATUS_OK;
  }
  if (result->status < 0) {
    return rpc_fail(name, result);
  }
  struct iovec whole = {result->data, result->size};
  int error;
  output_write(&whole, 1, &error);
  if (error == 0) {
    return STATUS_OK;
  }
  complain("standard output: %s", strerror(error));
  return STATUS_FAILED;
}

static int call(const char *name, shmq_client *client, struct iovec *part) {
  shmq_ask ask = ask_for(part);
  shmq_future *future = NULL;
  shmq_result result;
  int64_t deadline = stop_deadline(options.timeout_ns);
  int status;
  do {
    rpc_ask(client, &ask, deadline, &future, &result);
    status = print_result(name, &result);
  } while (status == STATUS_OK && result.more);
  shmq_future_free(future);
  return status;
}

static int run_call(int count, char **arguments) {
  shmq_client *client;
  struct input input;
  int status = open_input(&input, count > 1 ? arguments[1] : NULL, stream_limit);
  if (status != STATUS_OK) {
    return status;
  }
  status = rpc_open(arguments[0], &client);
  if (status == STATUS_OK) {
    struct iovec part;
    stop_catch();
    int rc = next_payload(&input, &part);
    status = rc < 0 ? fail("the message", rc) : call(arguments[0], client, &part);
    shmq_client_close(client);
  }
  close_input(&input);
  return status;
}

/* ---- cast ---- */

static int cast_all(const char *name, shmq_client *client, struct input *input) {
  int64_t deadline = stop_deadline(options.timeout_ns);
  struct iovec part;
  uint64_t done = 0;
  int rc = 1; /* not at the end yet */
  while (!stop_requested() && (rc = next_payload(input, &part)) > 0) {
    shmq_ask ask = ask_for(&part);
    rc = shmq_cast(client, &ask, deadline);
    if (rc < 0) {
      break;
    }
    done++;
  }
  if (rc == 0) {
    return STATUS_OK;
  }
  int status = rc < 0 ? fail(name, rc) : STATUS_FAILED;
  if (input->text == NULL && options.delimiter.size > 0) {
    complain("%s: %" PRIu64 " requests were sent before that", name, done);
  }
  return status;
}

static int run_cast(int count, char **arguments) {
  shmq_client *client;
  struct input input;
  int status = open_input(&input, count > 1 ? arguments[1] : NULL, stream_limit);
  if (status != STATUS_OK) {
    return status;
  }
  status = rpc_open(arguments[0], &client);
  if (status == STATUS_OK) {
    stop_catch();
    status = cast_all(arguments[0], client, &input);
    shmq_client_close(client);
  }
  close_input(&input);
  return status;
}

const struct command call_command = {
    .name = "call",
    .arguments = "NAME [MESSAGE | -]",
    .summary = "Ask a service and print its answer",
    .details =
        "MESSAGE is the request; - (the default) takes it from standard input. The answer is "
        "written as it is. An error is told on standard error: what the server says of it, and "
        "whether the request may have been executed all the same. The timeout is the request's "
        "whole life: it travels with it, and a server does not begin what has expired. SIGINT "
        "cancels it.",
    .examples = "  shmq serve upper -- tr a-z A-Z &\n"
                "  shmq call upper hello",
    .flags = call_flags,
    .least = 1,
    .most = 2,
    .run = run_call,
};

const struct command cast_command = {
    .name = "cast",
    .arguments = "NAME [MESSAGE | -]",
    .summary = "Tell a service something and do not wait for an answer",
    .details = "As call, and nothing comes back. With -D each part of the input is a request.",
    .examples = "  shmq cast audit 'logged in'\n"
                "  tail -f log | shmq cast audit - -D '\\n'",
    .flags = cast_flags,
    .least = 1,
    .most = 2,
    .run = run_cast,
};
