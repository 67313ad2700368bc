/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains of callbacks, by a table of cases: value or error, what each handler does with it, and
 * what comes out at the end; and errors that nobody collected.
 */
#include <criterion/criterion.h>

#include "support/service.h"

enum action { NONE, PASS, VALUE, ERROR };

/* Three steps: the first handles values, the second errors, the third both. */
struct chain {
  enum action on_value1, on_error2, on_value3, on_error3;
  int ran; /* bits of the handlers that ran */
};
static struct chain chain;

static int act(enum action action, int bit, shmq_result *r) {
  chain.ran |= bit;
  if (action == VALUE) r->value[0] += 100;
  if (action == VALUE) return 0;
  return action == ERROR ? -ERANGE : r->status;
}
static int value1(shmq_result *r, void *ctx) {
  (void)ctx;
  return act(chain.on_value1, 1, r);
}
static int error2(shmq_result *r, void *ctx) {
  (void)ctx;
  return act(chain.on_error2, 2, r);
}
static int value3(shmq_result *r, void *ctx) {
  (void)ctx;
  return act(chain.on_value3, 4, r);
}
static int error3(shmq_result *r, void *ctx) {
  (void)ctx;
  return act(chain.on_error3, 8, r);
}

static const struct {
  uint16_t op; /* OP_ECHO: begins with the value 1; OP_FAIL: with -ENOENT */
  struct chain chain;
  int status;
  uint64_t value;
} cases[] = {
    {OP_ECHO, {PASS, PASS, PASS, PASS, 1 | 4}, 0, 1},
    {OP_ECHO, {VALUE, PASS, VALUE, PASS, 1 | 4}, 0, 201},
    {OP_ECHO, {ERROR, PASS, PASS, PASS, 1 | 2 | 8}, -ERANGE, 1},
    {OP_ECHO, {ERROR, VALUE, PASS, PASS, 1 | 2 | 4}, 0, 101},
    {OP_ECHO, {ERROR, VALUE, ERROR, PASS, 1 | 2 | 4}, -ERANGE, 101},
    {OP_ECHO, {ERROR, ERROR, PASS, VALUE, 1 | 2 | 8}, 0, 101},
    {OP_ECHO, {NONE, NONE, ERROR, NONE, 4}, -ERANGE, 1},
    {OP_FAIL, {PASS, PASS, PASS, PASS, 2 | 8}, -ENOENT, 0},
    {OP_FAIL, {PASS, VALUE, PASS, PASS, 2 | 4}, 0, 100},
    {OP_FAIL, {PASS, VALUE, ERROR, PASS, 2 | 4}, -ERANGE, 100},
    {OP_FAIL, {PASS, ERROR, PASS, VALUE, 2 | 8}, 0, 100},
    {OP_FAIL, {PASS, NONE, PASS, NONE, 0}, -ENOENT, 0},
};

static int fd;
static pid_t server;
static shmq_client *client;
static shmq_result r;

static void begin(void) {
  fd = fresh_service(SHMQ_REDELIVER_IDEMPOTENT, 4);
  server = start_server(fd);
  client = asker(fd);
}
static void end(void) {
  shmq_client_close(client);
  stop_server(server);
  close(fd);
}
TestSuite(rpc_deferred, .init = begin, .fini = end);

static void then_all(shmq_future *f) {
  shmq_then(f, chain.on_value1 ? value1 : NULL, NULL, NULL);
  shmq_then(f, NULL, chain.on_error2 ? error2 : NULL, NULL);
  shmq_then(f, chain.on_value3 ? value3 : NULL, chain.on_error3 ? error3 : NULL, NULL);
}

Test(rpc_deferred, a_chain_behaves_as_the_table_says)
{
  for (unsigned early = 0; early < 2; early++)
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
      int expected = cases[i].chain.ran;
      chain = cases[i].chain;
      chain.ran = 0;
      shmq_future *f = ask_later(client, cases[i].op, 0, 0);
      if (early) then_all(f);
      while (!shmq_poll(f)) nap_ms(1);
      if (!early) then_all(f);
      cr_assert_eq(shmq_run_pending(client, PATIENCE), 1);
      cr_assert_eq(chain.ran, expected, "case %u: ran %d", i, chain.ran);
      cr_assert_eq(shmq_await(f, &r, SHMQ_NOWAIT), cases[i].status, "case %u", i);
      cr_assert_eq(r.value[0], cases[i].value, "case %u", i);
      shmq_future_free(f);
    }
}

Test(rpc_deferred, a_cancelled_one_runs_the_error_handlers)
{
  stop_server(server);
  chain = (struct chain){PASS, VALUE, PASS, PASS, 0};
  shmq_future *f = ask_later(client, OP_ECHO, 0, 0);
  then_all(f);
  shmq_cancel(f);
  server = start_server(fd);
  cr_assert_eq(shmq_run_pending(client, PATIENCE), 1);
  cr_assert_eq(chain.ran, 2 | 4);
  shmq_future_free(f);
}

static int reported;
static void report(const shmq_result *error, void *ctx) {
  (void)ctx;
  reported = error->status;
}

Test(rpc_deferred, an_error_that_nobody_collected_is_reported_once)
{
  shmq_client_on_uncollected(client, report, NULL);
  shmq_future *f = ask_later(client, OP_FAIL, 0, 0);
  while (!shmq_poll(f)) nap_ms(1);
  shmq_future_free(f);
  cr_assert_eq(reported, -ENOENT);

  reported = 0;
  f = ask_later(client, OP_FAIL, 0, 0);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -ENOENT);
  shmq_future_free(f);
  cr_assert_eq(reported, 0, "awaited");

  chain = (struct chain){PASS, VALUE, PASS, PASS, 0};
  f = ask_later(client, OP_FAIL, 0, 0);
  then_all(f);
  cr_assert_eq(shmq_run_pending(client, PATIENCE), 1);
  shmq_future_free(f);
  cr_assert_eq(reported, 0, "handled");

  chain = (struct chain){PASS, PASS, PASS, PASS, 0};
  f = ask_later(client, OP_FAIL, 0, 0);
  then_all(f);
  cr_assert_eq(shmq_run_pending(client, PATIENCE), 1);
  shmq_future_free(f);
  cr_assert_eq(reported, -ENOENT, "passed on by every handler");
}

static int free_it(shmq_result *result, void *ctx) {
  shmq_future_free(ctx);
  return result->status;
}

Test(rpc_deferred, a_step_may_free_its_own_future)
{
  for (int i = 0; i < 100; i++) {
    shmq_future *f = ask_later(client, OP_ECHO, 0, 0);
    shmq_then(f, free_it, free_it, f);
    cr_assert_eq(shmq_run_pending(client, PATIENCE), 1);
  }
  cr_assert_eq(ask_value(client, OP_ECHO, 1, &r), 0);
}

Test(rpc_deferred, run_pending_waits_no_longer_than_told)
{
  shmq_future *f = ask_later(client, OP_SLEEP, 50, 0);
  shmq_then(f, value3, error3, NULL);
  cr_assert_eq(shmq_run_pending(client, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_run_pending(client, shmq_after_ns(5 * MILLISECOND)), 0);
  cr_assert_eq(shmq_run_pending(client, PATIENCE), 1);
  shmq_future_free(f);
}
