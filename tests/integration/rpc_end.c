/* SPDX-License-Identifier: Apache-2.0
 *
 * How a request ends otherwise: deadline, cancellation, the death of its server or of its asker.
 */
#include <fcntl.h>
#include <sys/time.h>

#include "support/cases.h"
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

static void a_deadline_ends_the_call_and_the_request(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  shmq_ask a = {.op = OP_ECHO};
  int64_t begun = shmq_now_ns();
  EXPECT(shmq_call(w.client, &a, &r, shmq_after_ns(30 * MILLISECOND)), -ETIMEDOUT);
  CHECK(shmq_now_ns() - begun >= 30 * MILLISECOND);
  EXPECT(r.error_class, SHMQ_CLASS_TIMEOUT);
  w.server = start_server(w.fd);
  EXPECT(ask_value(w.client, OP_COUNT, 0, &r), 0);
  CHECK(r.value[0] == 0, "the expired request was not executed");
  end(&w);
}

static void awaiting_may_end_before_the_request_does(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  shmq_future *f = ask_later(w.client, OP_LATE, 0, 0);
  EXPECT(shmq_await(f, &r, shmq_after_ns(5 * MILLISECOND)), -EAGAIN);
  CHECK(r.more);
  release_late(w.client);
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  end(&w);
}

/* ---- signals ---- */

static void tick(int number) { (void)number; }

/* A signal every 5 ms: one of them comes while somebody sleeps. */
static void ticking(long microseconds) {
  struct sigaction action = {.sa_handler = tick};
  struct itimerval every = {.it_interval = {.tv_usec = microseconds},
                            .it_value = {.tv_usec = microseconds}};
  EXPECT(sigaction(SIGALRM, &action, NULL), 0);
  EXPECT(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void a_signal_leaves_what_is_awaited_pending(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  shmq_future *f = ask_later(w.client, OP_SLEEP, 1000000, 0);
  ticking(5000);
  EXPECT(shmq_await(f, &r, PATIENCE), -EINTR);
  CHECK(r.more);
  EXPECT(shmq_await_any(&f, 1, PATIENCE), -EINTR);
  EXPECT(shmq_await_all(&f, 1, PATIENCE), -EINTR);
  EXPECT(shmq_run_pending(w.client, PATIENCE), -EINTR);
  ticking(0);
  EXPECT(shmq_poll(f), 0);
  EXPECT(shmq_cancel(f), 0);
  EXPECT(shmq_await(f, &r, PATIENCE), -ECANCELED);
  CHECK(!r.more);
  shmq_future_free(f);
  end(&w);
}

static void a_signal_ends_a_call_and_cancels_its_request(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  ticking(5000);
  EXPECT(ask_value(w.client, OP_SLEEP, 1000000, &r), -EINTR);
  ticking(0);
  CHECK(!r.more);
  EXPECT(r.executed, SHMQ_EXECUTED_UNKNOWN);
  CHECK(ask_value(w.client, OP_ECHO, 1, &r) == 0, "the server is free again");
  end(&w);
}

/* ---- cancellation ---- */

static void a_cancelled_request_that_nobody_took_is_not_executed(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  shmq_future *gone = ask_later(w.client, OP_ECHO, 0, 0),
              *kept = ask_later(w.client, OP_ECHO, 0, 0);
  EXPECT(shmq_cancel(gone), 0);
  CHECK(shmq_cancel(gone) == 0, "twice is once");
  w.server = start_server(w.fd);
  EXPECT(shmq_await(gone, &r, PATIENCE), -ECANCELED);
  EXPECT(r.executed, SHMQ_EXECUTED_NO);
  EXPECT(shmq_await(kept, &r, PATIENCE), 0);
  EXPECT(shmq_cancel(kept), -EALREADY);
  EXPECT(ask_value(w.client, OP_COUNT, 0, &r), 0);
  EXPECT(r.value[0], 1);
  shmq_future_free(gone);
  shmq_future_free(kept);
  end(&w);
}

static void a_running_request_sees_its_cancellation(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  shmq_future *f = ask_later(w.client, OP_SLEEP, 1000000, 0);
  EXPECT(shmq_await(f, &r, shmq_after_ns(20 * MILLISECOND)), -EAGAIN);
  EXPECT(shmq_cancel(f), 0);
  EXPECT(shmq_await(f, &r, PATIENCE), -ECANCELED);
  shmq_future_free(f);
  end(&w);
}

static void cancelling_more_than_the_queue_of_cancellations_holds(void) {
  const shmq_service_options o = {.askers = 4, .credits = 8, .aside = 8}; /* one is kept all the time */
  struct world w = {.fd = -1};
  MUST(shmq_service_create_memfd(&o, &w.fd));
  w.server = start_server(w.fd);
  w.client = asker(w.fd);
  shmq_future *stays = ask_later(w.client, OP_LATE, 0, 0);
  CHECK(ask_value(w.client, OP_COUNT, 0, &r) == 0, "so it has been taken");
  EXPECT(shmq_cancel(stays), 0);
  for (int i = 0; i < 300; i++) {
    shmq_future *f = ask_later(w.client, OP_SLEEP, 1000000, 0);
    CHECK(shmq_cancel(f) == 0, "number %d", i);
    CHECK(shmq_await(f, &r, PATIENCE) == -ECANCELED, "number %d", i);
    shmq_future_free(f);
  }
  shmq_future_free(stays);
  end(&w);
}

/* A server takes a request, says so, and from its cancellation on sees it at every look until it is told to end. */
static void watch_a_cancellation(int fd, int said, int told) {
  shmq_service *s;
  shmq_incoming in;
  int flags = fcntl(told, F_GETFL);
  uint64_t looks = 0;
  char byte = 0;
  MUST(fcntl(told, F_SETFL, flags | O_NONBLOCK));
  MUST(shmq_service_open_fd(&s, fd, 0));
  EXPECT(shmq_serve(s, &in, PATIENCE), 0);
  MUST(write(said, &byte, 1));
  while (!shmq_cancelled(&in)) continue;
  MUST(write(said, &byte, 1));
  for (; looks % 256 || read(told, &byte, 1) != 1; looks++)
    CHECK(shmq_cancelled(&in), "look %lu", (unsigned long)looks);
  EXPECT(shmq_reply(&in, NULL, 0), 0);
  shmq_service_close(s);
  _exit(0);
}

/* The asker takes others back all the time, so it moves what it says about this one. */
static void a_cancellation_stays_in_sight(void) {
  enum { ROUNDS = 20000 };
  const shmq_service_options o = {.askers = 4, .credits = 8, .capacity = 65536}; /* it stands in the way of the others */
  struct world w = {.fd = -1};
  int said[2], told[2], status;
  char byte = 0;
  MUST(shmq_service_create_memfd(&o, &w.fd));
  w.client = asker(w.fd);
  MUST(pipe(said));
  MUST(pipe(told));
  shmq_future *f = ask_later(w.client, OP_ECHO, 0, 0);
  pid_t watcher = fork();
  if (watcher == 0) watch_a_cancellation(w.fd, said[1], told[0]);
  MUST(read(said[0], &byte, 1));
  EXPECT(shmq_cancel(f), 0);
  MUST(read(said[0], &byte, 1));

  shmq_service *s;
  shmq_incoming in;
  MUST(shmq_service_open_fd(&s, w.fd, SHMQ_NEVER_WAIT));
  for (int i = 0; i < ROUNDS; i++) {
    shmq_future *other = ask_later(w.client, OP_ECHO, 0, 0);
    EXPECT(shmq_cancel(other), 0);
    EXPECT(shmq_serve(s, &in, SHMQ_NOWAIT), -EAGAIN);
    EXPECT(shmq_await(other, &r, PATIENCE), -ECANCELED);
    shmq_future_free(other);
  }
  MUST(write(told[1], &byte, 1));
  EXPECT(waitpid(watcher, &status, 0), watcher);
  EXPECT(status, 0);
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  shmq_service_close(s);
  for (int i = 0; i < 2; i++) close(said[i]), close(told[i]);
  end(&w);
}

static void the_death_of_the_server_is_told_at_once(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 1);
  EXPECT(ask_value(w.client, OP_DIE, 0, &r), -EOWNERDEAD);
  EXPECT(r.executed, SHMQ_EXECUTED_UNKNOWN);
  EXPECT(r.error_class, SHMQ_CLASS_PEER_DIED);
  waitpid(w.server, NULL, 0);
  w.server = start_server(w.fd);
  EXPECT(ask_value(w.client, OP_ECHO, 1, &r), 0);
  EXPECT(r.value[0], 2);
  end(&w);
}

static void redelivered(enum shmq_redeliver redeliver, uint32_t flags, int expected) {
  struct world w = world(redeliver, 1);
  shmq_future *f = ask_later(w.client, OP_DIE, 0, flags);
  waitpid(w.server, NULL, 0);
  w.server = start_server(w.fd);
  CHECK(shmq_await(f, &r, PATIENCE) == expected, "policy %d flags %u", redeliver, flags);
  if (!expected) CHECK(r.value[0] == 2, "the second attempt");
  shmq_future_free(f);
  end(&w);
}

static void what_may_be_repeated_is_executed_by_the_next_server(void) {
  redelivered(SHMQ_REDELIVER_IDEMPOTENT, SHMQ_ASK_IDEMPOTENT, 0);
  redelivered(SHMQ_REDELIVER_ALWAYS, 0, 0);
  redelivered(SHMQ_REDELIVER_IDEMPOTENT, 0, -EOWNERDEAD);
  redelivered(SHMQ_REDELIVER_NEVER, SHMQ_ASK_IDEMPOTENT, -EOWNERDEAD);
}

/* Its parent has asked under the same number, and would take the child's answer for its own. */
static void a_forked_child_asks_for_itself(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  shmq_ask a = {.op = OP_ECHO, .value = {41, 0}};
  pid_t child = fork();
  if (child == 0) {
    shmq_future *f;
    EXPECT(shmq_request(w.client, &a, SHMQ_NOWAIT, &f), -ESTALE);
    EXPECT(shmq_cast(w.client, &a, SHMQ_NOWAIT), -ESTALE);
    EXPECT(shmq_call(w.client, &a, &r, SHMQ_NOWAIT), -ESTALE);
    EXPECT(r.executed, SHMQ_EXECUTED_NO);
    shmq_client *own = asker(w.fd);
    shmq_client_close(w.client);
    shmq_client_close(own);
    _exit(0);
  }
  int status;
  EXPECT(waitpid(child, &status, 0), child);
  EXPECT(status, 0);
  w.server = start_server(w.fd);
  EXPECT(ask_value(w.client, OP_ECHO, 1, &r), 0);
  EXPECT(r.value[0], 2);
  end(&w);
}

static void die_asking(int fd) {
  shmq_client *c = asker(fd);
  ask_later(c, OP_ECHO, 0, 0);
  ask_later(c, OP_ECHO, 0, 0);
  raise(SIGKILL);
}

static void requests_of_a_dead_asker_are_skipped(void) {
  struct world w = world(SHMQ_REDELIVER_IDEMPOTENT, 0);
  pid_t pid = fork();
  if (pid == 0) die_asking(w.fd);
  waitpid(pid, NULL, 0);
  w.server = start_server(w.fd);
  EXPECT(ask_value(w.client, OP_COUNT, 0, &r), 0);
  EXPECT(r.value[0], 0);
  end(&w);
}

/* Without taking one in. */
static void until_answered(int fd, uint64_t n) {
  shmq_view *view;
  shmq_queue_info info = {0};
  uint32_t reply = 0;
  MUST(shmq_view_open_fd(&view, fd));
  for (; strcmp(info.name, "reply.0") != 0; reply++) MUST(shmq_view_queue(view, reply, &info));
  for (; info.depth < n; nap_ms(1)) MUST(shmq_view_queue(view, reply - 1, &info));
  shmq_view_close(view);
}

/* An asker takes an answer slot over whose last holder died with answers in it. */
static void die_with_answers(int fd) {
  shmq_client *c = asker(fd);
  shmq_future *last = NULL;
  for (int i = 0; i < 5; i++) last = ask_later(c, OP_ECHO, 1000, 0);
  (void)last;
  until_answered(fd, 5); /* what nobody has begun is skipped when its asker is dead */
  ask_later(c, OP_SLEEP, 30, 0);
  raise(SIGKILL);
}

static void an_answer_to_the_last_holder_of_a_slot_is_dropped_and_counted(void) {
  struct world w = {.fd = fresh_service(SHMQ_REDELIVER_IDEMPOTENT, 1)};
  shmq_client_stats stats;
  w.server = start_server(w.fd);
  pid_t pid = fork();
  if (pid == 0) die_with_answers(w.fd);
  waitpid(pid, NULL, 0);
  w.client = asker(w.fd);
  for (int i = 0; i < 100; i++) {
    EXPECT(ask_value(w.client, OP_ECHO, 1, &r), 0);
    EXPECT(r.value[0], 2);
  }
  shmq_client_get_stats(w.client, &stats);
  CHECK(stats.dropped >= 5);
  end(&w);
}

static const struct test_case cases[] = {
    CASE(a_deadline_ends_the_call_and_the_request),
    CASE(awaiting_may_end_before_the_request_does),
    CASE(a_signal_leaves_what_is_awaited_pending),
    CASE(a_signal_ends_a_call_and_cancels_its_request),
    CASE(a_cancelled_request_that_nobody_took_is_not_executed),
    CASE(a_running_request_sees_its_cancellation),
    CASE(cancelling_more_than_the_queue_of_cancellations_holds),
    CASE(a_cancellation_stays_in_sight),
    CASE(the_death_of_the_server_is_told_at_once),
    CASE(what_may_be_repeated_is_executed_by_the_next_server),
    CASE(a_forked_child_asks_for_itself),
    CASE(requests_of_a_dead_asker_are_skipped),
    CASE(an_answer_to_the_last_holder_of_a_slot_is_dropped_and_counted),
};

int main(int argc, char **argv) { return RUN_CASES(cases, NULL, NULL, argc, argv); }
