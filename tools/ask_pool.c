/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: what can be done with a pool. A token is held for as long as the command runs, and comes back with this
 * process's end, whatever ends it.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "ask.h"
#include "base/command_run.h"
#include "base/parse.h"
#include "base/report.h"

static int run_command(char **argv) {
  pid_t pid;
  int status = 0;
  struct command_run run = {.argv = argv, .foreground = true};
  int rc = command_run_message(&run, NULL, 0, &pid, &status);
  if (rc < 0) {
    return fail(argv[0], rc);
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int pool_take(struct asking *a, char **arguments) {
  char text[1024];
  int status = ask_about(a, SHMQ_POOL_TAKE, NULL, ask_options.timeout_ns != 0, 0, 0);
  if (status != STATUS_OK) {
    return status;
  }
  snprintf(text, sizeof text, "%.*s", (int)a->result.size, (const char *)a->result.data);
  setenv("SHMQ_TOKEN", text, 1);
  return run_command(arguments);
}

static int pool_give(struct asking *a, char **arguments) {
  uint64_t token;
  const char *fault = parse_number(arguments[0], 1, UINT32_MAX, &token);
  return fault != NULL ? usage("token '%s' %s", arguments[0], fault)
                       : ask_about(a, SHMQ_POOL_GIVE, NULL, token, 1, 0);
}

static void print_token(struct json *json, const void *entry, const char *text, uint32_t bytes) {
  shmq_pool_entry copy, *e = &copy;
  memcpy(&copy, entry, sizeof copy);
  double held = e->since_ns ? (double)(shmq_now_ns() - e->since_ns) / 1e9 : 0;
  if (!ask_options.json) {
    printf("%" PRIu64 "\t%.*s", e->token, (int)bytes, text);
    if (e->since_ns) {
      printf("\tpid=%d uid=%u held=%.3fs", e->pid, e->uid, held);
    }
    printf("\n");
    return;
  }
  json_open(json, NULL, '{');
  json_number(json, "token", e->token);
  json_bytes(json, "text", text, bytes);
  json_bool(json, "held", e->since_ns != 0);
  json_integer(json, "pid", e->pid);
  json_number(json, "uid", e->uid);
  json_integer(json, "held_ns", (int64_t)(held * 1e9));
  json_close(json, '}');
}

static int pool_list(struct asking *a, char **arguments) {
  static const struct ask_list list = {.op = SHMQ_POOL_LIST,
                                       .entry_bytes = sizeof(shmq_pool_entry),
                                       .length_at = offsetof(shmq_pool_entry, bytes),
                                       .print = print_token};
  (void)arguments;
  return ask_all(a, &list);
}

const struct ask_operation ask_pool_operations[] = {
    {"take", 1, -1, pool_take},
    {"give", 1, 1, pool_give},
    {"list", 0, 0, pool_list},
    {0},
};
