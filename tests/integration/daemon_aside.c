/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that wait for long beside others of the same session: whatever they wait for, and however often the worker is
 * killed meanwhile, the session goes on, and each gets its one answer in the end.
 */
#include <stdatomic.h>

#include "shmq/resource.h"
#include "support/cases.h"
#include "support/shmqd.h"

enum { CREDITS = 8, FURTHER = 10000, KILLS = 10, WINDOW = 4, FAR_S = 3600 };

static struct shmqd d;
static shmq_client *c;
static shmq_result r;
static int log_, pool, timer, program;

static void begin(void) {
  shmqd_new_with(&d,
                 "[daemon]\nrestart_first=10ms\nrestart_most=20ms\nrestart_failures=0\n"
                 "[pool:pool]\ntokens = a\n"
                 "[timer:timer]\n"
                 "[process:slow]\n"
                 "command = sh -c 'while read -r x; do until test -e %s/go; do sleep 0.01; done; echo $x; done'\n");
  const shmq_session_options o = {.credits = CREDITS, .blocks = 16, .block_bytes = 1 << 16};
  MUST(shmq_client_connect(&c, d.socket, &o, 0));
  EXPECT(shmq_client_credits(c), CREDITS);
  log_ = shmq_resource(c, "log");
  pool = shmq_resource(c, "pool");
  timer = shmq_resource(c, "timer");
  program = shmq_resource(c, "slow");
  CHECK(log_ > 0 && pool > 0 && timer > 0 && program > 0);
}
static void end(void) {
  shmq_client_close(c);
  EXPECT(shmqd_stop(&d, SIGTERM), 0);
  shmqd_remove(&d);
}

static shmq_future *ask(int resource, uint16_t op, uint64_t v0, uint64_t v1, const char *text, size_t room) {
  struct iovec part;
  shmq_ask a = shmqd_ask_for(&part, resource, op, v0, v1, text, strlen(text), room);
  shmq_future *f = NULL;
  MUST(shmq_request(c, &a, SHMQ_FOREVER, &f));
  return f;
}

/* Further requests, a few at a time. */
static void pass(int n, int kills) {
  shmq_future *f[WINDOW] = {NULL};
  for (int i = 0, killed = 0; i < n + WINDOW; i++) {
    shmq_future **at = &f[i % WINDOW];
    if (*at) {
      EXPECT(shmq_await(*at, &r, PATIENCE), 0);
      shmq_future_free(*at);
      *at = NULL;
    }
    if (i < n) *at = i % 2 ? ask(0, SHMQ_DAEMON_NULL, 0, 0, "", 0) : ask(log_, SHMQ_LOG_STATUS, 0, 0, "", 0);
    if (killed < kills && i >= n / (kills + 1) * (killed + 1)) {
      shmqd_kill_worker(&d);
      killed++;
    }
  }
}

static uint64_t append(const char *text) {
  EXPECT(shmqd_ask(c, log_, SHMQ_LOG_APPEND, SHMQ_LOG_ACK_KERNEL, 0, text, strlen(text), 0, &r), 0);
  return r.value[0];
}

static void is_record(shmq_future *f, uint64_t number, const char *text) {
  shmq_log_entry e;
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  CHECK(r.size >= sizeof e + strlen(text));
  memcpy(&e, r.data, sizeof e);
  EXPECT(e.number, number);
  CHECK(memcmp((char *)r.data + sizeof e, text, strlen(text)) == 0);
  shmq_future_free(f);
}

static void nothing_more_came(void) {
  shmq_client_stats stats;
  pass(2 * CREDITS, 0);
  shmq_client_get_stats(c, &stats);
  EXPECT(stats.dropped, 0);
  EXPECT(stats.asked, stats.answered);
}

/* One in a cell, one in a block. */
static void a_log_is_followed_beside_others(void) {
  uint64_t next = append("first") + 1;
  shmq_future *in_cell = ask(log_, SHMQ_LOG_FOLLOW, next, 0, "", 64);
  shmq_future *in_block = ask(log_, SHMQ_LOG_FOLLOW, next, 0, "", 4000);
  pass(FURTHER, KILLS);
  EXPECT(shmq_poll(in_cell) + shmq_poll(in_block), 0);
  EXPECT(append("second"), next);
  is_record(in_cell, next, "second");
  is_record(in_block, next, "second");
  nothing_more_came();
}

/* So many wait that few credits are left, and what they wait for comes one after the other. */
static void all_that_waits_goes_on_waiting(void) {
  uint64_t next = append("first") + 1;
  shmq_client *holder = shmqd_client(&d);
  EXPECT(shmqd_ask(holder, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), 0);
  uint64_t token = r.value[0];
  shmq_future *take = ask(pool, SHMQ_POOL_TAKE, 1, 0, "", 0);
  shmq_future *gone = ask(pool, SHMQ_POOL_TAKE, 1, 0, "", 0);
  shmq_future *never = ask(timer, SHMQ_TIMER_WAIT, (uint64_t)shmq_after_ns(FAR_S * INT64_C(1000000000)), 0, "", 0);
  shmq_future *follow = ask(log_, SHMQ_LOG_FOLLOW, next, 0, "", 4000);
  pass(FURTHER / 10, 2);
  EXPECT(shmq_poll(take) + shmq_poll(gone) + shmq_poll(never) + shmq_poll(follow), 0);
  EXPECT(shmq_cancel(gone), 0);
  EXPECT(shmq_await(gone, &r, PATIENCE), -ECANCELED);
  EXPECT(r.executed, SHMQ_EXECUTED_NO);
  shmq_future_free(gone);
  pass(FURTHER / 10, 1);
  EXPECT(shmqd_ask(holder, pool, SHMQ_POOL_GIVE, token, 0, NULL, 0, 0, &r), 0);
  EXPECT(shmq_await(take, &r, PATIENCE), 0);
  CHECK(r.size == 1 && *(char *)r.data == 'a');
  shmq_future_free(take);
  pass(FURTHER / 10, 1);
  EXPECT(append("second"), next);
  is_record(follow, next, "second");
  EXPECT(shmq_cancel(never), 0);
  EXPECT(shmq_await(never, &r, PATIENCE), -ECANCELED);
  shmq_future_free(never);
  shmq_client_close(holder);
  nothing_more_came();
}

/* One that a program works on waits for nobody's queue either, and those behind it for the program. */
static void a_program_takes_its_time(void) {
  enum { ASKED = CREDITS - WINDOW };
  shmq_future *f[ASKED];
  char text[32], path[128];
  for (int i = 0; i < ASKED; i++) {
    snprintf(text, sizeof text, "line %d\n", i);
    f[i] = ask(program, SHMQ_PROCESS_ASK, 1, 0, text, i % 2 ? 4000 : 64);
  }
  pass(FURTHER / 10, 0);
  for (int i = 0; i < ASKED; i++) EXPECT(shmq_poll(f[i]), 0);
  snprintf(path, sizeof path, "%s/go", d.dir);
  close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  for (int i = 0; i < ASKED; i++) {
    snprintf(text, sizeof text, "line %d\n", i);
    EXPECT(shmq_await(f[i], &r, PATIENCE), 0);
    CHECK(r.size == strlen(text) && memcmp(r.data, text, r.size) == 0, "%d: %.*s", i, (int)r.size,
          (char *)r.data);
    shmq_future_free(f[i]);
  }
  nothing_more_came();
}

/* What was put aside goes with its session. */
static void a_session_ends_with_what_waits(void) {
  shmq_client *holder = shmqd_client(&d);
  EXPECT(shmqd_ask(holder, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), 0);
  ask(pool, SHMQ_POOL_TAKE, 1, 0, "", 0);
  ask(log_, SHMQ_LOG_FOLLOW, 1000, 0, "", 4000);
  pass(4 * CREDITS, 0);
  shmq_client_close(c);
  uint64_t waiting = 1;
  while (waiting) {
    EXPECT(shmqd_ask(holder, pool, SHMQ_POOL_LIST, 0, 0, NULL, 0, 4000, &r), 0);
    waiting = r.value[1];
  }
  c = shmqd_client(&d);
  shmq_future *take = ask(pool, SHMQ_POOL_TAKE, 1, 0, "", 0);
  shmq_client_close(holder);
  EXPECT(shmq_await(take, &r, PATIENCE), 0);
  shmq_future_free(take);
}

static const struct test_case cases[] = {
    CASE(a_log_is_followed_beside_others),
    CASE(all_that_waits_goes_on_waiting),
    CASE(a_program_takes_its_time),
    CASE(a_session_ends_with_what_waits),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
