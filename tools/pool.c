/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq pool: scarce things that anyone may use, but one at a time. A token for each is parked in a
 * queue; who takes it holds a lease, which the kernel's lock ends with its holder.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "base/command_run.h"
#include "base/open.h"
#include "base/output.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/table.h"
#include "base/view.h"
#include "command.h"

static struct {
  uint64_t mode, capacity;
  int64_t timeout_ns;
  bool json;
} options = {.timeout_ns = -1, .capacity = 64};

static const struct flag flags[] = {
    NUMBER_FLAG("capacity", 'c', &options.capacity, "N", 2, SHMQ_CAPACITY_MAX,
                "park, new pool: most tokens it holds (default 64)"),
    MODE_FLAG("mode", 'm', &options.mode, "OCTAL", "park, new pool: permissions (default 0600)"),
    TIMEOUT_FLAG(&options.timeout_ns),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

static int put_tokens(const char *name, int count, char **tokens) {
  shmq *queue;
  int status = open_queue(name, "give", &queue);
  if (status != STATUS_OK) {
    return status;
  }
  int64_t deadline = options.timeout_ns < 0 ? SHMQ_NOWAIT : stop_deadline(options.timeout_ns);
  for (int i = 0; i < count && status == STATUS_OK; i++) {
    int rc = shmq_put(queue, tokens[i], strlen(tokens[i]), deadline);
    if (rc == -EAGAIN || rc == -ETIMEDOUT) {
      complain("%s: no room for '%s': the pool is full", name, tokens[i]);
      status = STATUS_WOULD_BLOCK;
    } else if (rc < 0) {
      status = fail(name, rc);
    }
  }
  shmq_close(queue);
  return status;
}

static int park(const char *name, int count, char **tokens) {
  struct address address;
  int status = check_name(name, false, &address);
  if (status != STATUS_OK) {
    return status;
  }
  if (count == 0) {
    return usage("park needs tokens");
  }
  shmq_queue_options queue = {.name = "tokens", .capacity = (uint32_t)options.capacity};
  shmq_options segment = {.mode = (uint32_t)options.mode, .queues = &queue, .queue_count = 1};
  int rc = shmq_create(name, &segment);
  return rc == 0 || rc == -EEXIST ? put_tokens(name, count, tokens) : fail(name, rc);
}

static int give(const char *name, int count, char **tokens) {
  return count > 0 ? put_tokens(name, count, tokens) : usage("give needs tokens");
}

/* ---- take ---- */

static int take_token(const char *name, shmq *queue, shmq_message *token) {
  int64_t deadline = stop_deadline(options.timeout_ns);
  int rc;
  do {
    rc = shmq_lease(queue, token, deadline);
  } while (stop_try_again(rc));
  if (rc == -EAGAIN || rc == -ETIMEDOUT || rc == -EINTR) {
    complain("%s: %s", name, stop_requested() ? "interrupted" : "no token is free");
    return stop_requested() ? STATUS_FAILED : STATUS_WOULD_BLOCK;
  }
  return rc < 0 ? fail(name, rc) : STATUS_OK;
}

/* For good: who takes a token without a command gives it back himself. */
static int print_token(const char *name, shmq *queue, shmq_message *token) {
  struct iovec line[2] = {{token->data, token->size}, {(void *)(uintptr_t) "\n", 1}};
  int error;
  output_write(line, 2, &error);
  if (error != 0) {
    complain("standard output: %s; the token was given back", strerror(error));
    shmq_nack(queue, token);
    return STATUS_FAILED;
  }
  int rc = shmq_ack(queue, token);
  return rc < 0 ? fail(name, rc) : STATUS_OK;
}

/* Run the command, give the token back, and end as the command did, as a shell would say it. */
static int use_token(const char *name, shmq *queue, shmq_message *token, char **command) {
  struct command_run run = {.argv = command, .foreground = true};
  pid_t pid;
  int status = 0;
  char *text = strndup(token->data, token->size);
  int rc = text == NULL || setenv("SHMQ_TOKEN", text, 1) != 0
               ? -ENOMEM
               : command_run_message(&run, token->data, token->size, &pid, &status);
  free(text);
  int back = shmq_nack(queue, token);
  if (rc < 0) {
    return fail_system(command[0], -rc);
  }
  if (back < 0) {
    return fail(name, back);
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int take(const char *name, int count, char **command) {
  int error = count > 0 ? command_run_check(command[0]) : 0;
  if (error != 0) {
    return fail_system(command[0], error);
  }
  shmq *queue;
  int status = open_quietly(name, &queue);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_join_segment(shmq_segment_of(queue), "take", count > 0 ? command[0] : "shmq");
  shmq_message token = {.data = NULL};
  stop_catch();
  status = rc < 0 ? fail(name, rc) : take_token(name, queue, &token);
  if (status == STATUS_OK) {
    status = count > 0 ? use_token(name, queue, &token, command) : print_token(name, queue, &token);
  }
  shmq_close(queue);
  return status;
}

/* ---- ls ---- */

static const struct column columns[] = {
    {.title = "TOKEN"},
    {.title = "STATE"},
    {.title = "PID", .right = true},
    {.title = "FOR", .right = true},
    {.title = "COMMAND"},
};
enum { TOKEN_MAX = 1024 };

static int64_t age_ns(const shmq_participant_info *who) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec - who->joined_ns;
}

static void show_row(struct table *table, const char *token, const shmq_participant_info *who) {
  char age[16];
  table_row(table);
  table_cell(table, "%s", token);
  table_cell(table, "%s", who == NULL ? "free" : who->alive ? "taken" : "holder dead");
  if (who != NULL) {
    table_cell(table, "%d", who->pid);
    table_cell(table, "%s", human_duration(age_ns(who), age));
    table_cell(table, "%s", who->label);
  }
}

static void show_json(struct json *json, const char *token, size_t size,
                      const shmq_participant_info *who) {
  json_open(json, NULL, '{');
  json_bytes(json, "token", token, size);
  json_bool(json, "free", who == NULL);
  if (who != NULL) {
    json_open(json, "holder", '{');
    json_participant(json, who);
    json_close(json, '}');
  }
  json_close(json, '}');
}

static void show_tokens(shmq_view *view, uint32_t index) {
  struct json json = {.out = stdout};
  struct table *table = table_new(columns, sizeof columns / sizeof *columns);
  char token[TOKEN_MAX + 1];
  shmq_cell_info cell;
  uint64_t cursor = 0;
  if (options.json) {
    json_open(&json, NULL, '[');
  }
  while (shmq_view_next(view, index, &cursor, &cell, token, TOKEN_MAX) == 1) {
    bool taken = cell.state == SHMQ_CELL_LEASED;
    if (!taken && cell.state != SHMQ_CELL_READY && cell.state != SHMQ_CELL_RETURNED) {
      continue;
    }
    size_t size = cell.size < TOKEN_MAX ? (size_t)cell.size : TOKEN_MAX;
    token[size] = '\0';
    shmq_participant_info who;
    bool known = taken && shmq_view_participant(view, cell.owner, &who) == 0;
    if (options.json) {
      show_json(&json, token, size, known ? &who : NULL);
    } else {
      show_row(table, token, known ? &who : NULL);
    }
  }
  if (options.json) {
    json_close(&json, ']');
    json_end(&json);
  }
  table_print(table);
}

static int list(const char *name, int count, char **arguments) {
  (void)arguments;
  if (count > 0) {
    return usage("ls takes a pool and nothing else");
  }
  shmq_view *view;
  uint32_t index;
  int status = view_at(name, &view, &index);
  if (status == STATUS_OK) {
    show_tokens(view, index);
    shmq_view_close(view);
  }
  return status;
}

/* ---- the command ---- */

static const struct {
  const char *name;
  int (*run)(const char *pool, int count, char **arguments);
} actions[] = {{"park", park}, {"take", take}, {"give", give}, {"ls", list}};

static int run(int count, char **arguments) {
  for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
    if (strcmp(arguments[0], actions[i].name) == 0) {
      return actions[i].run(arguments[1], count - 2, arguments + 2);
    }
  }
  return usage("'%s' is none of park, take, give, ls", arguments[0]);
}

const struct command pool_command = {
    .name = "pool",
    .arguments = "park|take|give|ls POOL [TOKEN...] [-- COMMAND [ARGUMENT | {}]...]",
    .summary = "Share scarce things: one token each, one holder at a time",
    .details =
        "park puts tokens into the pool, which it makes if there is none. take POOL -- COMMAND "
        "waits for a token, runs COMMAND with it (in the variable SHMQ_TOKEN, and in place of "
        "{}), gives it back and ends with COMMAND's exit status, 128 and the signal's number if "
        "it was killed. SIGTERM and SIGHUP are passed on to COMMAND. A holder that dies, however, gives its token back by "
        "dying.\n\n"
        "take without a command takes a token out of the pool and prints it; give puts one back. "
        "ls shows the tokens and who holds them, and for how long that process has been there.",
    .examples = "  shmq pool park gpus 0 1\n"
                "  shmq pool take gpus -- sh -c 'CUDA_VISIBLE_DEVICES=$SHMQ_TOKEN ./train'\n"
                "  shmq pool ls gpus",
    .flags = flags,
    .least = 2,
    .most = -1,
    .run = run,
};
