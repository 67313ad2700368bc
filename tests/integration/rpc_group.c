/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests taken in groups, and answers that are sent together: none is seen before, none is lost or given twice
 * when the server dies in between.
 */
#include "support/cases.h"
#include "support/service.h"

enum { ASKED = 5 };

static int fd;
static shmq_client *client;
static shmq_service *service;
static shmq_incoming room[16], *in[16];
static shmq_future *future[16];
static shmq_result r;

static void begin(void) {
  fd = fresh_service(SHMQ_REDELIVER_ALWAYS, 4);
  client = asker(fd);
  MUST(shmq_service_open_fd(&service, fd, SHMQ_NEVER_WAIT | SHMQ_GROUP_ANSWERS));
  for (int i = 0; i < 16; i++) in[i] = &room[i];
}
static void end(void) {
  shmq_client_close(client);
  shmq_service_close(service);
  close(fd);
}

static void ask(int n) {
  for (int i = 0; i < n; i++) future[i] = ask_later(client, OP_ECHO, (uint64_t)i, 0);
}

static void answer(shmq_incoming *incoming) {
  uint64_t value[2] = {incoming->header.value[0] + 100, 0};
  EXPECT(shmq_reply_value(incoming, value, NULL, 0), 0);
}

/* With room for a long answer, which the server writes over the request. */
static void ask_for_long(int n) {
  for (int i = 0; i < n; i++) {
    shmq_ask a = {.op = OP_ECHO, .value = {(uint64_t)i, 0}, .room = 20000};
    MUST(shmq_request(client, &a, SHMQ_FOREVER, &future[i]));
  }
}

static void answer_in_place(shmq_incoming *incoming) {
  uint64_t value[2] = {incoming->header.value[0] + 100, 0};
  memset(incoming->data, (int)incoming->header.value[0], 20000);
  EXPECT(shmq_reply_in_place(incoming, value, 20000), 0);
}

static int answers_seen(int n) {
  int seen = 0;
  for (int i = 0; i < n; i++) seen += shmq_poll(future[i]);
  return seen;
}

static void all_answered(int n) {
  for (int i = 0; i < n; i++) {
    EXPECT(shmq_await(future[i], &r, PATIENCE), 0);
    EXPECT(r.value[0], i + 100);
    shmq_future_free(future[i]);
  }
  shmq_client_stats stats;
  shmq_client_get_stats(client, &stats);
  EXPECT(stats.dropped, 0);
}

static void a_group_is_what_has_come_in_its_order(void) {
  ask(ASKED);
  EXPECT(shmq_serve_batch(service, in, 0, SHMQ_NOWAIT), -EINVAL);
  EXPECT(shmq_serve_batch(service, in, 3, SHMQ_NOWAIT), 3);
  EXPECT(shmq_serve_batch(service, in + 3, 13, SHMQ_NOWAIT), 2);
  EXPECT(shmq_serve_batch(service, in, 16, SHMQ_NOWAIT), -EAGAIN);
  for (int i = 0; i < ASKED; i++) EXPECT(in[i]->header.value[0], i);
  for (int i = ASKED; i-- > 0;) answer(in[i]);
  EXPECT(shmq_service_flush(service), 0);
  all_answered(ASKED);
}

static void nonsense_is_told_in_its_place(void) {
  shmq *requests;
  EXPECT(shmq_open_in(&requests, shmq_service_segment(service), "requests.always", 0), 0);
  for (int i = 0; i < 2; i++) {
    future[i] = ask_later(client, OP_ECHO, (uint64_t)i, 0);
    EXPECT(shmq_put(requests, "nonsense", 8, SHMQ_NOWAIT), 0);
  }
  for (int i = 0; i < 2; i++) {
    EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), 1);
    EXPECT(in[0]->header.value[0], i);
    answer(in[0]);
    EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), -EBADMSG);
  }
  EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(shmq_service_flush(service), 0);
  all_answered(2);
  shmq_close(requests);
}

static void answers_are_seen_when_they_are_sent(void) {
  ask(ASKED);
  EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), ASKED);
  for (int i = 0; i < ASKED; i++) answer(in[i]);
  EXPECT(answers_seen(ASKED), 0);
  EXPECT(shmq_service_flush(service), 0);
  EXPECT(answers_seen(ASKED), ASKED);
  EXPECT(shmq_service_flush(service), 0);
  all_answered(ASKED);
}

static void eight_are_sent_unasked(void) {
  ask(8);
  EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), 8);
  for (int i = 0; i < 7; i++) answer(in[i]);
  EXPECT(answers_seen(8), 0);
  answer(in[7]);
  EXPECT(answers_seen(8), 8);
  all_answered(8);
}

static void who_closes_or_waits_has_sent_them(void) {
  for (int waits = 0; waits < 2; waits++) {
    ask(2);
    EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), 2);
    for (int i = 0; i < 2; i++) answer(in[i]);
    EXPECT(answers_seen(2), 0);
    if (waits) {
      EXPECT(shmq_serve(service, in[0], shmq_after_ns(MILLISECOND)), -ETIMEDOUT);
    } else {
      shmq_service_close(service);
      MUST(shmq_service_open_fd(&service, fd, SHMQ_NEVER_WAIT | SHMQ_GROUP_ANSWERS));
    }
    EXPECT(answers_seen(2), 2);
    all_answered(2);
  }
}

/* The first group is sent, the second is not. */
static void die_with_answers(void *unused) {
  shmq_service *own;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, SHMQ_NEVER_WAIT | SHMQ_GROUP_ANSWERS));
  EXPECT(shmq_serve_batch(own, in, 8, SHMQ_NOWAIT), ASKED);
  for (int i = 0; i < ASKED; i++) {
    answer(in[i]);
    if (i == 1) EXPECT(shmq_service_flush(own), 0);
  }
  raise(SIGKILL);
}

static void answers_that_were_not_sent_are_given_by_the_next_server(void) {
  ask(ASKED);
  ended(child(die_with_answers, NULL));
  EXPECT(answers_seen(ASKED), 2);
  shmq_recover(shmq_service_segment(service));
  int n = 0;
  for (int rc; (rc = shmq_serve_batch(service, in, 8, SHMQ_NOWAIT)) > 0; n += rc)
    for (int i = 0; i < rc; i++) {
      CHECK(in[i]->header.value[0] >= 2);
      EXPECT(in[i]->attempts, 2);
      answer(in[i]);
    }
  EXPECT(n, ASKED - 2);
  EXPECT(shmq_service_flush(service), 0);
  all_answered(ASKED);
}

static void those_in_place_are_sent_with_the_others(void) {
  ask_for_long(3);
  EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), 3);
  for (int i = 0; i < 3; i++) i % 2 ? answer(in[i]) : answer_in_place(in[i]);
  EXPECT(answers_seen(3), 0);
  EXPECT(shmq_service_flush(service), 0);
  EXPECT(answers_seen(3), 3);
  for (int i = 0; i < 3; i++) {
    EXPECT(shmq_await(future[i], &r, PATIENCE), 0);
    EXPECT(r.value[0], i + 100);
    EXPECT(r.size, i % 2 ? 0 : 20000);
    for (size_t k = 0; k < r.size; k++) CHECK(((char *)r.data)[k] == i);
    shmq_future_free(future[i]);
  }
}

/* It would stand behind them, unseen. */
static void a_part_of_a_stream_sends_them(void) {
  ask(2);
  EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), 2);
  answer(in[0]);
  EXPECT(answers_seen(1), 0);
  EXPECT(shmq_reply_stream(in[1], "part", 4, SHMQ_NOWAIT), 0);
  EXPECT(answers_seen(1), 1);
  answer(in[1]);
  EXPECT(shmq_service_flush(service), 0);
  EXPECT(shmq_await(future[0], &r, PATIENCE), 0);
  shmq_future_free(future[0]);
  EXPECT(shmq_await(future[1], &r, PATIENCE), 0);
  EXPECT(r.size, 4);
  shmq_future_free(future[1]);
}

static void die_with_answers_in_place(void *unused) {
  shmq_service *own;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, SHMQ_NEVER_WAIT | SHMQ_GROUP_ANSWERS));
  EXPECT(shmq_serve_batch(own, in, 8, SHMQ_NOWAIT), 3);
  for (int i = 0; i < 2; i++) answer_in_place(in[i]);
  raise(SIGKILL);
}

/* It finds them written where the requests were, and needs not be asked to send them. */
static void those_in_place_are_sent_by_the_next_server(void) {
  ask_for_long(3);
  ended(child(die_with_answers_in_place, NULL));
  EXPECT(answers_seen(3), 0);
  shmq_recover(shmq_service_segment(service));
  EXPECT(shmq_serve_batch(service, in, 8, SHMQ_NOWAIT), 1);
  EXPECT(in[0]->header.value[0], 2);
  EXPECT(answers_seen(3), 2);
  answer_in_place(in[0]);
  EXPECT(shmq_service_flush(service), 0);
  all_answered(3);
}

static const struct test_case cases[] = {
    CASE(a_group_is_what_has_come_in_its_order),
    CASE(nonsense_is_told_in_its_place),
    CASE(answers_are_seen_when_they_are_sent),
    CASE(eight_are_sent_unasked),
    CASE(who_closes_or_waits_has_sent_them),
    CASE(answers_that_were_not_sent_are_given_by_the_next_server),
    CASE(those_in_place_are_sent_with_the_others),
    CASE(those_in_place_are_sent_by_the_next_server),
    CASE(a_part_of_a_stream_sends_them),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
