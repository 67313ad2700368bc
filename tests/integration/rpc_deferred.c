/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains of callbacks, by a table of cases: value, error or cancelled, what each handler does with it, and
 * what comes out at the end; and errors that nobody collected.
 */
#include "support/cases.h"
#include "support/service.h"

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
/* ---- the table ---- */

/* Three steps. What each does with what it gets: v returns a value, e an error, - has no handler for that. */
static const struct row {
  char start;         /* v: answered with a value, e: with an error, c: cancelled */
  const char does[4];
  const char ran[4];  /* which handlers: v on_value, e on_error, - none */
  char ends;          /* v: as a value, s: as the error it began with, 1 to 3: as that step's error */
} rows[] = {
    {'v', "vvv", "vvv", 'v'}, {'v', "vve", "vvv", '3'}, {'v', "vv-", "vv-", 'v'},
    {'v', "vev", "vve", 'v'}, {'v', "vee", "vve", '3'}, {'v', "ve-", "vv-", '2'},
    {'v', "v-v", "v-v", 'v'}, {'v', "v-e", "v-v", '3'}, {'v', "v--", "v--", 'v'},
    {'v', "evv", "vev", 'v'}, {'v', "eve", "vev", '3'}, {'v', "ev-", "ve-", 'v'},
    {'v', "eev", "vee", 'v'}, {'v', "eee", "vee", '3'}, {'v', "ee-", "ve-", '2'},
    {'v', "e-v", "v-e", 'v'}, {'v', "e-e", "v-e", '3'}, {'v', "e--", "v--", '1'},
    {'v', "-vv", "-vv", 'v'}, {'v', "-ve", "-vv", '3'}, {'v', "-v-", "-v-", 'v'},
    {'v', "-ev", "-ve", 'v'}, {'v', "-ee", "-ve", '3'}, {'v', "-e-", "-v-", '2'},
    {'v', "--v", "--v", 'v'}, {'v', "--e", "--v", '3'}, {'v', "---", "---", 'v'},
    {'e', "vvv", "evv", 'v'}, {'e', "vve", "evv", '3'}, {'e', "vv-", "ev-", 'v'},
    {'e', "vev", "eve", 'v'}, {'e', "vee", "eve", '3'}, {'e', "ve-", "ev-", '2'},
    {'e', "v-v", "e-v", 'v'}, {'e', "v-e", "e-v", '3'}, {'e', "v--", "e--", 'v'},
    {'e', "evv", "eev", 'v'}, {'e', "eve", "eev", '3'}, {'e', "ev-", "ee-", 'v'},
    {'e', "eev", "eee", 'v'}, {'e', "eee", "eee", '3'}, {'e', "ee-", "ee-", '2'},
    {'e', "e-v", "e-e", 'v'}, {'e', "e-e", "e-e", '3'}, {'e', "e--", "e--", '1'},
    {'e', "-vv", "-ev", 'v'}, {'e', "-ve", "-ev", '3'}, {'e', "-v-", "-e-", 'v'},
    {'e', "-ev", "-ee", 'v'}, {'e', "-ee", "-ee", '3'}, {'e', "-e-", "-e-", '2'},
    {'e', "--v", "--e", 'v'}, {'e', "--e", "--e", '3'}, {'e', "---", "---", 's'},
    {'c', "vvv", "evv", 'v'}, {'c', "vve", "evv", '3'}, {'c', "vv-", "ev-", 'v'},
    {'c', "vev", "eve", 'v'}, {'c', "vee", "eve", '3'}, {'c', "ve-", "ev-", '2'},
    {'c', "v-v", "e-v", 'v'}, {'c', "v-e", "e-v", '3'}, {'c', "v--", "e--", 'v'},
    {'c', "evv", "eev", 'v'}, {'c', "eve", "eev", '3'}, {'c', "ev-", "ee-", 'v'},
    {'c', "eev", "eee", 'v'}, {'c', "eee", "eee", '3'}, {'c', "ee-", "ee-", '2'},
    {'c', "e-v", "e-e", 'v'}, {'c', "e-e", "e-e", '3'}, {'c', "e--", "e--", '1'},
    {'c', "-vv", "-ev", 'v'}, {'c', "-ve", "-ev", '3'}, {'c', "-v-", "-e-", 'v'},
    {'c', "-ev", "-ee", 'v'}, {'c', "-ee", "-ee", '3'}, {'c', "-e-", "-e-", '2'},
    {'c', "--v", "--e", 'v'}, {'c', "--e", "--e", '3'}, {'c', "---", "---", 's'},
};
static const int errors[] = {-ERANGE, -EDOM, -ENOSPC};

static char ran[4];

static int step(shmq_result *result, void *ctx, char kind) {
  int i = *(const int *)ctx;
  const struct row *row = &rows[i / 3];
  CHECK(ran[i % 3] == '-', "step %d ran twice", i % 3);
  CHECK((result->status == 0) == (kind == 'v'));
  ran[i % 3] = kind;
  result->value[0] += 100;
  return row->does[i % 3] == 'v' ? 0 : errors[i % 3];
}
static int on_value(shmq_result *result, void *ctx) { return step(result, ctx, 'v'); }
static int on_error(shmq_result *result, void *ctx) { return step(result, ctx, 'e'); }

/* Both handlers of each step, or where it has none for what comes only the one for the opposite. */
static void add_steps(shmq_future *f, int number, int ids[3]) {
  const struct row *row = &rows[number];
  char comes = row->start == 'v' ? 'v' : 'e';
  for (int i = 0; i < 3; i++) {
    bool absent = row->does[i] == '-';
    ids[i] = 3 * number + i;
    EXPECT(shmq_then(f, absent && comes == 'v' ? NULL : on_value,
                     absent && comes == 'e' ? NULL : on_error, &ids[i]),
           0);
    if (!absent) comes = row->does[i];
  }
}

static shmq_future *begin_row(const struct row *row) {
  if (row->start == 'v') return ask_later(client, OP_ECHO, 0, 0);
  if (row->start == 'e') return ask_later(client, OP_FAIL, 0, 0);
  shmq_future *f = ask_later(client, OP_SLEEP, 1000000, 0);
  EXPECT(shmq_cancel(f), 0);
  return f;
}

static int expected_end(const struct row *row) {
  if (row->ends == 'v') return 0;
  return row->ends != 's' ? errors[row->ends - '1'] : row->start == 'e' ? -ENOENT : -ECANCELED;
}

/* late: the steps are added when the answer is there already. */
static void run_row(int number, bool late) {
  const struct row *row = &rows[number];
  int ids[3];
  memcpy(ran, "---", sizeof ran);
  shmq_future *f = begin_row(row);
  if (late)
    while (!shmq_poll(f)) nap_ms(1);
  add_steps(f, number, ids);
  EXPECT(shmq_run_pending(client, PATIENCE), 1);
  CHECK(strcmp(ran, row->ran) == 0, "row %d ran %s", number, ran);
  CHECK(shmq_await(f, &r, SHMQ_NOWAIT) == expected_end(row), "row %d", number);
  if (row->ends != 's') EXPECT(r.error_class, shmq_class_of(r.status));
  uint64_t steps = 0;
  for (int i = 0; i < 3; i++) steps += row->ran[i] != '-';
  CHECK(r.value[0] == 100 * steps + (row->start == 'v'), "row %d", number);
  shmq_future_free(f);
}

static void a_chain_behaves_as_the_table_says(void) {
  for (unsigned late = 0; late < 2; late++)
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++) run_row(i, late);
}

/* ---- errors that nobody collects ---- */

static int pass(shmq_result *result, void *ctx) {
  (void)ctx;
  return result->status;
}
static int handle(shmq_result *result, void *ctx) {
  (void)result;
  (void)ctx;
  return 0;
}

static int reported;
static void report(const shmq_result *error, void *ctx) {
  (void)ctx;
  reported = error->status;
}

static void an_error_that_nobody_collected_is_reported_once(void) {
  shmq_client_on_uncollected(client, report, NULL);
  shmq_future *f = ask_later(client, OP_FAIL, 0, 0);
  while (!shmq_poll(f)) nap_ms(1);
  shmq_future_free(f);
  EXPECT(reported, -ENOENT);

  reported = 0;
  f = ask_later(client, OP_FAIL, 0, 0);
  EXPECT(shmq_await(f, &r, PATIENCE), -ENOENT);
  shmq_future_free(f);
  CHECK(reported == 0, "awaited");

  f = ask_later(client, OP_FAIL, 0, 0);
  shmq_then(f, pass, handle, NULL);
  EXPECT(shmq_run_pending(client, PATIENCE), 1);
  shmq_future_free(f);
  CHECK(reported == 0, "handled");

  f = ask_later(client, OP_FAIL, 0, 0);
  shmq_then(f, pass, pass, NULL);
  EXPECT(shmq_run_pending(client, PATIENCE), 1);
  shmq_future_free(f);
  CHECK(reported == -ENOENT, "passed on by every handler");
}

static void the_end_of_the_client_reports_what_is_left(void) {
  shmq_client *other = asker(fd);
  shmq_client_on_uncollected(other, report, NULL);
  shmq_future *f = ask_later(other, OP_FAIL, 0, 0);
  while (!shmq_poll(f)) nap_ms(1);
  reported = 0;
  shmq_client_close(other);
  EXPECT(reported, -ENOENT);
}

static int free_it(shmq_result *result, void *ctx) {
  shmq_future_free(ctx);
  return result->status;
}

static void a_step_may_free_its_own_future(void) {
  for (int i = 0; i < 100; i++) {
    shmq_future *f = ask_later(client, OP_ECHO, 0, 0);
    shmq_then(f, free_it, free_it, f);
    EXPECT(shmq_run_pending(client, PATIENCE), 1);
  }
  EXPECT(ask_value(client, OP_ECHO, 1, &r), 0);
}

static void run_pending_waits_no_longer_than_told(void) {
  shmq_future *f = ask_later(client, OP_LATE, 0, 0);
  shmq_then(f, pass, pass, NULL);
  EXPECT(shmq_run_pending(client, SHMQ_NOWAIT), 0);
  EXPECT(shmq_run_pending(client, shmq_after_ns(5 * MILLISECOND)), 0);
  release_late(client);
  EXPECT(shmq_run_pending(client, PATIENCE), 1);
  shmq_future_free(f);
}

static const struct test_case cases[] = {
    CASE(a_chain_behaves_as_the_table_says),
    CASE(an_error_that_nobody_collected_is_reported_once),
    CASE(the_end_of_the_client_reports_what_is_left),
    CASE(a_step_may_free_its_own_future),
    CASE(run_pending_waits_no_longer_than_told),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
