/* SPDX-License-Identifier: Apache-2.0
 *
 * Askers with an event loop of their own: they never wait, so whatever any call takes in or finds out must reach
 * the loop, and nothing may depend on a call that waits.
 */
#include "support/cases.h"
#include "support/service.h"

static int fd;
static shmq_client *client;
static shmq_service *service; /* in this process */
static shmq_incoming in;
static shmq_result r;

static void begin(void) {
  fd = fresh_service(SHMQ_REDELIVER_IDEMPOTENT, 4);
  client = asker(fd);
  CHECK(shmq_client_event_fd(client) >= 0);
  MUST(shmq_service_open_fd(&service, fd, 0));
}
static void end(void) {
  shmq_client_close(client);
  shmq_service_close(service);
  close(fd);
}

static void answer_next(void) {
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reply(&in, "answer", 6), 0);
}

/* ---- the descriptor ---- */

static void an_answer_that_another_look_took_in_keeps_the_loop_awake(void) {
  shmq_future *first = ask_later(client, OP_ECHO, 0, 0), *second = ask_later(client, OP_ECHO, 0, 0);
  EXPECT(shmq_poll(first), 0);
  answer_next();
  EXPECT(shmq_poll(second), 0); /* the queue is empty again, and nobody has seen the first's answer */
  EXPECT(shmq_client_event_arm(client), 1);
  EXPECT(shmq_poll(first), 1);
  EXPECT(shmq_client_event_arm(client), 0);
  shmq_future_free(first);
  shmq_future_free(second);
}

static int count(shmq_result *result, void *ctx) {
  ++*(int *)ctx;
  return result->status;
}

static void a_chain_that_another_call_made_ready_keeps_the_loop_awake(void) {
  int ran = 0;
  shmq_future *chain = ask_later(client, OP_ECHO, 0, 0), *other = ask_later(client, OP_ECHO, 0, 0);
  EXPECT(shmq_then(chain, count, count, &ran), 0);
  answer_next();
  EXPECT(shmq_poll(other), 0);
  for (int i = 0; i < 2; i++) CHECK(shmq_client_event_arm(client) == 1, "until it has run");
  EXPECT(shmq_run_pending(client, SHMQ_NOWAIT), 1);
  EXPECT(ran, 1);
  EXPECT(shmq_client_event_arm(client), 0);
  shmq_future_free(chain);
  shmq_future_free(other);
}

/* ---- what only time brings ---- */

static void a_look_at_several_askers_sees_what_has_expired(void) {
  shmq_client *other = asker(fd);
  shmq_ask a = {.op = OP_ECHO};
  shmq_future *f[2] = {ask_later(client, OP_ECHO, 0, 0), NULL};
  int64_t due = shmq_after_ns(5 * MILLISECOND);
  EXPECT(shmq_request(other, &a, due, &f[1]), 0);
  int rc = shmq_await_any(f, 2, SHMQ_NOWAIT);
  CHECK(rc == -EAGAIN || shmq_now_ns() >= due, "%d", rc);
  while (shmq_now_ns() < due) nap_ms(1);
  EXPECT(shmq_await_any(f, 2, SHMQ_NOWAIT), 1);
  EXPECT(shmq_await(f[1], &r, SHMQ_NOWAIT), -ETIMEDOUT);
  shmq_future_free(f[0]);
  shmq_future_free(f[1]);
  shmq_client_close(other);
}

/* ---- answers that are read in place ---- */

static void polling_makes_way_for_a_stream(void) {
  enum { PARTS = 1000 };
  pid_t server = start_server(fd);
  shmq_future *held = hold_answer(client);
  shmq_future *stream = ask_later(client, OP_STREAM, PARTS, 0);
  int parts = 0;
  for (int64_t until = PATIENCE;;) {
    while (!shmq_poll(stream)) CHECK(shmq_now_ns() < until, "part %d", parts);
    EXPECT(shmq_await(stream, &r, SHMQ_NOWAIT), 0);
    if (!r.more) break;
    parts++;
  }
  EXPECT(parts, PARTS);
  EXPECT(shmq_await(held, &r, SHMQ_NOWAIT), 0);
  CHECK(r.size == 60000 && ((char *)r.data)[59999] == 'x');
  shmq_future_free(held);
  shmq_future_free(stream);
  stop_server(server);
}

/* A step keeps what it has seen, and asks on: that must not move what it looks at. */
struct reader {
  const char *data;
  size_t size;
};
static int keep(shmq_result *result, void *ctx) {
  *(struct reader *)ctx = (struct reader){result->data, result->size};
  return 0;
}

static void what_a_step_has_seen_stays_where_it_is(void) {
  struct reader seen = {NULL, 0};
  shmq_ask a = {.op = OP_PLACE, .room = 60000};
  shmq_future *f;
  EXPECT(shmq_request(client, &a, PATIENCE, &f), 0);
  EXPECT(shmq_then(f, keep, NULL, &seen), 0);
  pid_t server = start_server(fd);
  EXPECT(shmq_run_pending(client, PATIENCE), 1);
  int rc = 0;
  for (int i = 0; i < 1000 && rc == 0; i++) rc = ask_value(client, OP_ECHO, 1, &r);
  EXPECT(rc, -EBUSY);
  EXPECT(shmq_await(f, &r, SHMQ_NOWAIT), 0);
  CHECK(seen.data == r.data && seen.size == 60000 && seen.data[59999] == 'x');
  shmq_future_free(f);
  EXPECT(ask_value(client, OP_ECHO, 1, &r), 0);
  stop_server(server);
}

static const struct test_case cases[] = {
    CASE(an_answer_that_another_look_took_in_keeps_the_loop_awake),
    CASE(a_chain_that_another_call_made_ready_keeps_the_loop_awake),
    CASE(a_look_at_several_askers_sees_what_has_expired),
    CASE(polling_makes_way_for_a_stream),
    CASE(what_a_step_has_seen_stays_where_it_is),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
