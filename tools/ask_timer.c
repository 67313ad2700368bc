/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: what can be done with a timer.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "ask.h"
#include "base/parse.h"
#include "base/report.h"

static int read_duration(const char *text, int64_t least_ns, int64_t *ns) {
  const char *fault = parse_duration(text, least_ns, ns);
  return fault != NULL ? usage("duration '%s' %s", text, fault) : STATUS_OK;
}

static int timer_wait(struct asking *a, char **arguments) {
  int64_t ns;
  int status = read_duration(arguments[0], 0, &ns);
  return status != STATUS_OK
             ? status
             : ask_about(a, SHMQ_TIMER_WAIT, NULL, (uint64_t)shmq_after_ns(ns), 0, 0);
}

static int set(struct asking *a, char **arguments, int64_t first_ns, int64_t period_ns) {
  const char *message = arguments[2] != NULL ? arguments[2] : "";
  struct iovec parts[2] = {{arguments[1], strlen(arguments[1]) + 1},
                           {(void *)(uintptr_t)message, strlen(message)}};
  shmq_ask what = {.op = SHMQ_TIMER_SET,
                   .value = {(uint64_t)shmq_after_ns(first_ns), (uint64_t)period_ns},
                   .parts = parts,
                   .part_count = 2};
  int status = ask(a, &what);
  if (status == STATUS_OK) {
    printf("%" PRIu64 "\n", a->result.value[0]);
  }
  return status;
}

static int timer_after(struct asking *a, char **arguments) {
  int64_t ns;
  int status = read_duration(arguments[0], 0, &ns);
  return status != STATUS_OK ? status : set(a, arguments, ns, 0);
}

static int timer_every(struct asking *a, char **arguments) {
  int64_t ns;
  int status = read_duration(arguments[0], SHMQ_TIMER_PERIOD_MIN, &ns);
  return status != STATUS_OK ? status : set(a, arguments, ns, ns);
}

static int timer_clear(struct asking *a, char **arguments) {
  uint64_t timer;
  const char *fault = parse_number(arguments[0], 1, UINT64_MAX, &timer);
  return fault != NULL ? usage("timer '%s' %s", arguments[0], fault)
                       : ask_about(a, SHMQ_TIMER_CLEAR, NULL, timer, 0, 0);
}

static void print_timer(struct json *json, const void *entry, const char *queue, uint32_t bytes) {
  shmq_timer_entry copy, *e = &copy;
  memcpy(&copy, entry, sizeof copy);
  int64_t in_ns = e->due_ns - shmq_now_ns();
  if (!ask_options.json) {
    printf("%" PRIu64 "\t%.*s\tin=%.3fs period=%.3fs put=%" PRIu64 " missed=%" PRIu64 "\n", e->timer,
           (int)bytes, queue, (double)in_ns / 1e9, (double)e->period_ns / 1e9, e->put, e->missed);
    return;
  }
  json_open(json, NULL, '{');
  json_number(json, "timer", e->timer);
  json_bytes(json, "queue", queue, bytes);
  json_integer(json, "in_ns", in_ns);
  json_integer(json, "period_ns", e->period_ns);
  json_number(json, "put", e->put);
  json_number(json, "missed", e->missed);
  json_number(json, "uid", e->uid);
  json_close(json, '}');
}

static int timer_list(struct asking *a, char **arguments) {
  static const struct ask_list list = {.op = SHMQ_TIMER_LIST,
                                       .entry_bytes = sizeof(shmq_timer_entry),
                                       .length_at = offsetof(shmq_timer_entry, bytes),
                                       .print = print_timer};
  (void)arguments;
  return ask_all(a, &list);
}

const struct ask_operation ask_timer_operations[] = {
    {"wait", 1, 1, timer_wait},   {"after", 2, 3, timer_after}, {"every", 2, 3, timer_every},
    {"clear", 1, 1, timer_clear}, {"list", 0, 0, timer_list},   {0},
};
