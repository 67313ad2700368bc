/* SPDX-License-Identifier: Apache-2.0
 *
 * Asking and answering: values, errors, payloads of every size, streams, late answers, casts.
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
static void a_value_comes_back_with_its_payload(void) {
  char text[] = "hello";
  struct iovec parts[] = {{text, 3}, {NULL, 0}, {text + 3, 2}};
  shmq_ask a = {.op = OP_ECHO, .value = {41, 5}, .parts = parts, .part_count = 3};
  for (int i = 0; i < 1000; i++) {
    EXPECT(shmq_call(client, &a, &r, PATIENCE), 0);
    EXPECT(r.value[0], 42);
    EXPECT(r.value[1], 5);
    EXPECT(r.size, 5);
    CHECK(memcmp(r.data, "hello", 5) == 0);
    EXPECT(r.error_class, SHMQ_CLASS_OK);
    EXPECT(r.executed, SHMQ_EXECUTED_YES);
  }
}

static void payloads_of_every_size_up_to_a_block(void) {
  static char data[65536];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7);
  for (size_t n = 0; n <= sizeof data; n = n < 300 ? n + 1
                                           : n * 2 < sizeof data || n == sizeof data
                                               ? n * 2
                                               : sizeof data) {
    struct iovec part = {data, n};
    shmq_ask a = {.op = OP_ECHO, .parts = &part, .part_count = 1};
    CHECK(shmq_call(client, &a, &r, PATIENCE) == 0, "%zu bytes", n);
    EXPECT(r.size, n);
    CHECK(n == 0 || memcmp(r.data, data, n) == 0);
  }
  struct iovec part = {data, sizeof data};
  struct iovec twice[] = {part, part};
  shmq_ask a = {.op = OP_ECHO, .parts = twice, .part_count = 2};
  EXPECT(shmq_call(client, &a, &r, PATIENCE), -EMSGSIZE);
}

static void an_error_is_an_answer(void) {
  EXPECT(ask_value(client, OP_FAIL, 0, &r), -ENOENT);
  EXPECT(r.status, -ENOENT);
  EXPECT(r.error_class, SHMQ_CLASS_NOT_FOUND);
  EXPECT(r.code, 7);
  CHECK(strcmp(r.domain, "test") == 0);
  CHECK(strcmp(r.text, "there is no such thing") == 0);
  EXPECT(ask_value(client, 99, 0, &r), -EOPNOTSUPP);
  EXPECT(r.executed, SHMQ_EXECUTED_NO);
}

static void an_answer_in_place_is_read_in_place(void) {
  shmq_ask a = {.op = OP_PLACE, .room = 65536};
  for (int i = 0; i < 200; i++) {
    EXPECT(shmq_call(client, &a, &r, PATIENCE), 0);
    EXPECT(r.size, 65536);
    EXPECT(((char *)r.data)[65535], 'x');
  }
}

static void a_stream_has_all_its_parts_in_order(void) {
  for (int n = 0; n <= 1000; n = n * 10 + 1) {
    shmq_future *f = ask_later(client, OP_STREAM, (uint64_t)n, 0);
    for (int i = 0; i < n; i++) {
      EXPECT(shmq_await(f, &r, PATIENCE), 0);
      CHECK(r.more);
      EXPECT(r.size, sizeof(int));
      EXPECT(memcmp(r.data, &i, sizeof i), 0);
    }
    EXPECT(shmq_await(f, &r, PATIENCE), 0);
    CHECK(!r.more);
    CHECK(memcmp(r.data, "end", 3) == 0);
    shmq_future_free(f);
  }
}

static void a_stream_given_up_in_the_middle_stops(void) {
  shmq_future *f = ask_later(client, OP_STREAM, 1000000, 0);
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  CHECK(ask_value(client, OP_ECHO, 1, &r) == 0, "the server is free again");
}

static void answers_come_in_any_order(void) {
  shmq_future *late = ask_later(client, OP_LATE, 0, 0);
  shmq_future *echo = ask_later(client, OP_ECHO, 1, 0);
  EXPECT(shmq_await(echo, &r, PATIENCE), 0);
  EXPECT(r.value[0], 2);
  EXPECT(shmq_await(late, &r, PATIENCE), 0);
  CHECK(memcmp(r.data, "late", 4) == 0);
  shmq_future_free(late);
  shmq_future_free(echo);
}

static void casts_are_executed_and_never_answered(void) {
  shmq_ask a = {.op = OP_ECHO};
  for (int i = 0; i < 500; i++) EXPECT(shmq_cast(client, &a, PATIENCE), 0);
  EXPECT(ask_value(client, OP_COUNT, 0, &r), 0);
  EXPECT(r.value[0], 500);
  shmq_client_stats stats;
  shmq_client_get_stats(client, &stats);
  EXPECT(stats.dropped, 0);
}

static void more_requests_than_credits_wait_for_room(void) {
  enum { MANY = 100 };
  shmq_future *f[MANY];
  for (int i = 0; i < MANY; i++) f[i] = ask_later(client, OP_ECHO, (uint64_t)i, 0);
  EXPECT(shmq_await_all(f, MANY, PATIENCE), 0);
  for (int i = 0; i < MANY; i++) {
    EXPECT(shmq_await(f[i], &r, SHMQ_NOWAIT), 0);
    EXPECT(r.value[0], (uint64_t)i + 1);
    shmq_future_free(f[i]);
  }
}

static void without_waiting_the_credits_run_out(void) {
  shmq_ask a = {.op = OP_SLEEP, .value = {1000000, 0}}; /* until it is cancelled */
  shmq_future *f[16];
  int n = 0, rc;
  while ((rc = shmq_request(client, &a, SHMQ_NOWAIT, &f[n])) == 0) n++;
  EXPECT(rc, -EAGAIN);
  EXPECT(n, (int)shmq_client_credits(client));
  while (n) shmq_future_free(f[--n]);
  EXPECT(ask_value(client, OP_ECHO, 1, &r), 0);
}

static void unread_answers_in_blocks_make_way(void) {
  shmq_future *held = hold_answer(client);
  for (int i = 0; i < 1000; i++) CHECK(ask_value(client, OP_ECHO, 1, &r) == 0, "call %d", i);
  EXPECT(shmq_await(held, &r, PATIENCE), 0);
  EXPECT(r.size, 60000);
  EXPECT(((char *)r.data)[59999], 'x');
  shmq_future_free(held);
}

static void an_answer_that_is_being_read_stops_the_asker_and_not_the_server(void) {
  shmq_ask a = {.op = OP_PLACE, .room = 60000};
  shmq_future *held;
  int rc = 0;
  EXPECT(shmq_request(client, &a, PATIENCE, &held), 0);
  EXPECT(shmq_await(held, &r, PATIENCE), 0);
  for (int i = 0; i < 1000 && rc == 0; i++) {
    shmq_result other;
    rc = ask_value(client, OP_ECHO, 1, &other);
  }
  EXPECT(rc, -EBUSY);
  EXPECT(((char *)r.data)[59999], 'x');
  shmq_future_free(held);
  EXPECT(ask_value(client, OP_ECHO, 1, &r), 0);
}

static void any_and_all_of_several_services(void) {
  int other_fd = fresh_service(SHMQ_REDELIVER_IDEMPOTENT, 2);
  pid_t other_server = start_server(other_fd);
  shmq_client *other = asker(other_fd);
  shmq_future *f[2] = {ask_later(client, OP_LATE, 0, 0), ask_later(other, OP_ECHO, 7, 0)};
  EXPECT(shmq_await_any(f, 2, PATIENCE), 1);
  EXPECT(shmq_await(f[1], &r, SHMQ_NOWAIT), 0);
  EXPECT(shmq_await_all(f, 2, SHMQ_NOWAIT), -EAGAIN);
  release_late(client);
  EXPECT(shmq_await_all(f, 2, PATIENCE), 0);
  shmq_future_free(f[0]);
  shmq_future_free(f[1]);
  shmq_client_close(other);
  stop_server(other_server);
  close(other_fd);
}

static void every_slot_has_one_holder(void) {
  shmq_client *c[4] = {client};
  shmq_client *one_more;
  for (int i = 1; i < 4; i++) c[i] = asker(fd);
  EXPECT(shmq_client_open_fd(&one_more, fd, 0), -EUSERS);
  for (int i = 0; i < 4; i++) EXPECT(ask_value(c[i], OP_ECHO, 1, &r), 0);
  shmq_client_close(c[2]);
  c[2] = asker(fd);
  EXPECT(ask_value(c[2], OP_ECHO, 1, &r), 0);
  for (int i = 1; i < 4; i++) shmq_client_close(c[i]);
}

static void what_is_no_service_is_refused(void) {
  int plain;
  shmq_client *c;
  shmq_service *s;
  MUST(shmq_create_memfd(NULL, &plain));
  EXPECT(shmq_client_open_fd(&c, plain, 0), -ENOTTY);
  EXPECT(shmq_service_open_fd(&s, plain, 0), -ENOTTY);
  close(plain);
}

/* What could not be opened is NULL, and using it is an error and no crash. */
static void nothing_is_refused(void) {
  shmq_ask a = {.op = OP_ECHO};
  shmq_client *c = NULL;
  shmq_service *s = NULL;
  shmq_future *f = NULL;
  shmq_incoming in;
  EXPECT(shmq_client_open(&c, NULL, 0), -EINVAL);
  EXPECT(shmq_service_open(&s, NULL, 0), -EINVAL);
  EXPECT(shmq_service_create(NULL, NULL), -EINVAL);
  EXPECT(shmq_request(c, &a, SHMQ_NOWAIT, &f), -EINVAL);
  EXPECT(shmq_cast(c, &a, SHMQ_NOWAIT), -EINVAL);
  EXPECT(shmq_call(c, &a, &r, SHMQ_NOWAIT), -EINVAL);
  EXPECT(r.status, -EINVAL);
  EXPECT(shmq_await(f, &r, SHMQ_NOWAIT), -EINVAL);
  CHECK(!r.more);
  EXPECT(shmq_poll(f), 0);
  EXPECT(shmq_cancel(f), -EINVAL);
  EXPECT(shmq_then(f, NULL, NULL, NULL), -EINVAL);
  EXPECT(shmq_await_any(&f, 0, SHMQ_NOWAIT), -EINVAL);
  EXPECT(shmq_run_pending(c, SHMQ_NOWAIT), -EINVAL);
  EXPECT(shmq_client_event_fd(c), -EINVAL);
  EXPECT(shmq_client_event_arm(c), -EINVAL);
  EXPECT(shmq_serve(s, &in, SHMQ_NOWAIT), -EINVAL);
  EXPECT(shmq_service_run(s, NULL, 0, NULL, SHMQ_NOWAIT), -EINVAL);
  EXPECT(shmq_service_shutdown(s), -EINVAL);
  shmq_future_free(f);
  shmq_call_done(c);
  shmq_client_close(c);
  shmq_service_close(s);
}

static const struct test_case cases[] = {
    CASE(a_value_comes_back_with_its_payload),
    CASE(payloads_of_every_size_up_to_a_block),
    CASE(an_error_is_an_answer),
    CASE(an_answer_in_place_is_read_in_place),
    CASE(a_stream_has_all_its_parts_in_order),
    CASE(a_stream_given_up_in_the_middle_stops),
    CASE(answers_come_in_any_order),
    CASE(casts_are_executed_and_never_answered),
    CASE(more_requests_than_credits_wait_for_room),
    CASE(without_waiting_the_credits_run_out),
    CASE(unread_answers_in_blocks_make_way),
    CASE(an_answer_that_is_being_read_stops_the_asker_and_not_the_server),
    CASE(any_and_all_of_several_services),
    CASE(every_slot_has_one_holder),
    CASE(what_is_no_service_is_refused),
    CASE(nothing_is_refused),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
