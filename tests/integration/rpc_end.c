/* SPDX-License-Identifier: Apache-2.0
 *
 * How a request ends otherwise: deadline, cancellation, the death of its server or of its asker.
 */
#include <criterion/criterion.h>

#include "support/service.h"

static shmq_result r;

/* A service with or without a server. */
struct world {
  int fd;
  pid_t server;
  shmq_client *client;
};
static struct world world(enum shmq_redeliver redeliver, int with_server) {
  struct world w = {.fd = fresh_service(redeliver, 4)};
  if (with_server) w.server = start_server(w.fd);
  w.client = asker(w.fd);
  return w;
}
static void end(struct world *w) {
  shmq_client_close(w->client);
  if (w->server) stop_server(w->server);
  close(w->fd);
}

Test(rpc_end, a_deadline_ends_the_call_and_the_request)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  shmq_ask a = {.op = OP_ECHO};
  int64_t begun = shmq_now_ns();
  cr_assert_eq(shmq_call(w.client, &a, &r, shmq_after_ns(30 * MILLISECOND)), -ETIMEDOUT);
  cr_assert_geq(shmq_now_ns() - begun, 30 * MILLISECOND);
  cr_assert_eq(r.error_class, SHMQ_CLASS_TIMEOUT);
  w.server = start_server(w.fd);
  cr_assert_eq(ask_value(w.client, OP_COUNT, 0, &r), 0);
  cr_assert_eq(r.value[0], 0, "the expired request was not executed");
  end(&w);
}

Test(rpc_end, awaiting_may_end_before_the_request_does)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  shmq_future *f = ask_later(w.client, OP_SLEEP, 100, 0);
  cr_assert_eq(shmq_await(f, &r, shmq_after_ns(5 * MILLISECOND)), -EAGAIN);
  cr_assert(r.more);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  end(&w);
}

Test(rpc_end, a_cancelled_request_that_nobody_took_is_not_executed)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  shmq_future *gone = ask_later(w.client, OP_ECHO, 0, 0),
              *kept = ask_later(w.client, OP_ECHO, 0, 0);
  cr_assert_eq(shmq_cancel(gone), 0);
  cr_assert_eq(shmq_cancel(gone), 0, "twice is once");
  w.server = start_server(w.fd);
  cr_assert_eq(shmq_await(gone, &r, PATIENCE), -ECANCELED);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  cr_assert_eq(shmq_await(kept, &r, PATIENCE), 0);
  cr_assert_eq(shmq_cancel(kept), -EALREADY);
  cr_assert_eq(ask_value(w.client, OP_COUNT, 0, &r), 0);
  cr_assert_eq(r.value[0], 1);
  shmq_future_free(gone);
  shmq_future_free(kept);
  end(&w);
}

Test(rpc_end, a_running_request_sees_its_cancellation)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  shmq_future *f = ask_later(w.client, OP_SLEEP, 1000000, 0);
  cr_assert_eq(shmq_await(f, &r, shmq_after_ns(20 * MILLISECOND)), -EAGAIN);
  cr_assert_eq(shmq_cancel(f), 0);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -ECANCELED);
  shmq_future_free(f);
  end(&w);
}

Test(rpc_end, cancelling_more_than_the_queue_of_cancellations_holds)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  shmq_future *stays = ask_later(w.client, OP_LATE, 0, 0);
  cr_assert_eq(shmq_cancel(stays), 0);
  for (int i = 0; i < 300; i++) {
    shmq_future *f = ask_later(w.client, OP_SLEEP, 1000000, 0);
    cr_assert_eq(shmq_cancel(f), 0, "number %d", i);
    cr_assert_eq(shmq_await(f, &r, PATIENCE), -ECANCELED, "number %d", i);
    shmq_future_free(f);
  }
  shmq_future_free(stays);
  end(&w);
}

Test(rpc_end, the_death_of_the_server_is_told_at_once)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  cr_assert_eq(ask_value(w.client, OP_DIE, 0, &r), -EOWNERDEAD);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  cr_assert_eq(r.error_class, SHMQ_CLASS_PEER_DIED);
  waitpid(w.server, NULL, 0);
  w.server = start_server(w.fd);
  cr_assert_eq(ask_value(w.client, OP_ECHO, 1, &r), 0);
  cr_assert_eq(r.value[0], 2);
  end(&w);
}

static void redelivered(enum shmq_redeliver redeliver, uint32_t flags, int expected) {
  struct world w = world(redeliver, 1);
  shmq_future *f = ask_later(w.client, OP_DIE, 0, flags);
  waitpid(w.server, NULL, 0);
  w.server = start_server(w.fd);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), expected, "policy %d flags %u", redeliver, flags);
  if (!expected) cr_assert_eq(r.value[0], 2, "the second attempt");
  shmq_future_free(f);
  end(&w);
}

Test(rpc_end, what_may_be_repeated_is_executed_by_the_next_server)
{
  redelivered(SHMQ_REDELIVER_IDEMPOTENT, SHMQ_ASK_IDEMPOTENT, 0);
  redelivered(SHMQ_REDELIVER_ALWAYS, 0, 0);
  redelivered(SHMQ_REDELIVER_IDEMPOTENT, 0, -EOWNERDEAD);
  redelivered(SHMQ_REDELIVER_NEVER, SHMQ_ASK_IDEMPOTENT, -EOWNERDEAD);
}

static void die_asking(int fd) {
  shmq_client *c = asker(fd);
  ask_later(c, OP_ECHO, 0, 0);
  ask_later(c, OP_ECHO, 0, 0);
  raise(SIGKILL);
}

Test(rpc_end, requests_of_a_dead_asker_are_skipped)
{
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  pid_t pid = fork();
  if (pid == 0) die_asking(w.fd);
  waitpid(pid, NULL, 0);
  w.server = start_server(w.fd);
  cr_assert_eq(ask_value(w.client, OP_COUNT, 0, &r), 0);
  cr_assert_eq(r.value[0], 0);
  end(&w);
}

/* An asker takes an answer slot over whose last holder died with answers in it. */
static void die_with_answers(int fd) {
  shmq_client *c = asker(fd);
  shmq_future *last = NULL;
  for (int i = 0; i < 5; i++) last = ask_later(c, OP_ECHO, 1000, 0);
  (void)last;
  nap_ms(50);
  ask_later(c, OP_SLEEP, 30, 0);
  raise(SIGKILL);
}

Test(rpc_end, an_answer_to_the_last_holder_of_a_slot_is_dropped_and_counted)
{
  struct world w = {.fd = fresh_service(SHMQ_REDELIVER_IDEMPOTENT, 1)};
  shmq_client_stats stats;
  w.server = start_server(w.fd);
  pid_t pid = fork();
  if (pid == 0) die_with_answers(w.fd);
  waitpid(pid, NULL, 0);
  w.client = asker(w.fd);
  for (int i = 0; i < 100; i++) {
    cr_assert_eq(ask_value(w.client, OP_ECHO, 1, &r), 0);
    cr_assert_eq(r.value[0], 2);
  }
  shmq_client_get_stats(w.client, &stats);
  cr_assert_geq(stats.dropped, 5);
  end(&w);
}
