/* SPDX-License-Identifier: Apache-2.0
 *
 * What keeps an answer from being sent at once: a reply queue that is full or that the asker still reads; and
 * servers that may not wait, which must neither lose a request then nor be kept busy by nonsense.
 */
#include <sys/time.h>

#include "support/cases.h"
#include "support/service.h"

static int fd;
static shmq_client *client;
static shmq_service *service; /* in this process, and it never waits */
static shmq_incoming in;
static shmq_result r;

static void begin(void) {
  fd = fresh_service(SHMQ_REDELIVER_IDEMPOTENT, 4);
  client = asker(fd);
  MUST(shmq_service_open_fd(&service, fd, SHMQ_NEVER_WAIT));
}
static void end(void) {
  shmq_client_close(client);
  shmq_service_close(service);
  close(fd);
}

/* A queue of the service, as anybody who may ask can open it. */
static shmq *queue(const char *name) {
  shmq *q;
  EXPECT(shmq_open_in(&q, shmq_service_segment(service), name, 0), 0);
  return q;
}

/* What a predecessor's server might have left in the asker's reply queue: as much as it holds. */
static void fill_reply_queue(void) {
  shmq *reply = queue("reply.0");
  while (shmq_put(reply, "stale", 5, SHMQ_NOWAIT) == 0) continue;
  shmq_close(reply);
}

static int64_t leased(void) {
  shmq_view *view;
  shmq_queue_info info;
  MUST(shmq_view_open_fd(&view, fd));
  MUST(shmq_view_queue(view, 0, &info));
  shmq_view_close(view);
  return (int64_t)info.leased;
}

static void nonsense_is_told_once_each(void) {
  shmq *requests = queue("requests");
  for (int i = 0; i < 3; i++) EXPECT(shmq_put(requests, "nonsense", 8, SHMQ_NOWAIT), 0);
  for (int i = 0; i < 3; i++) EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EBADMSG);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  shmq_future *gone = ask_later(client, OP_ECHO, 0, 0), *kept = ask_later(client, OP_ECHO, 0, 0);
  EXPECT(shmq_cancel(gone), 0);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0); /* past the one that was skipped */
  EXPECT(shmq_reply(&in, NULL, 0), 0);
  EXPECT(shmq_await(gone, &r, PATIENCE), -ECANCELED);
  EXPECT(shmq_await(kept, &r, PATIENCE), 0);
  shmq_service_stats stats;
  shmq_service_get_stats(service, &stats);
  EXPECT(stats.malformed, 3);
  EXPECT(stats.skipped_cancelled, 1);
  shmq_close(requests);
}

/* An asker that feeds it what is to be skipped does not keep a server that has others to serve. */
static void a_call_skips_so_many_and_returns(void) {
  shmq_ask a = {.op = OP_ECHO};
  int asked = 0, calls = 0;
  while (shmq_cast(client, &a, shmq_now_ns() + 1) == 0) asked++;
  nap_ms(1);
  shmq_service_stats stats = {0};
  for (; (int)stats.skipped_expired < asked && calls < asked; calls++) {
    EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
    shmq_service_get_stats(service, &stats);
  }
  CHECK(asked >= 32);
  EXPECT(stats.skipped_expired, asked);
}

static void a_refusal_waits_for_room_and_not_the_server(void) {
  shmq_future *gone = ask_later(client, OP_ECHO, 0, 0);
  EXPECT(shmq_cancel(gone), 0);
  fill_reply_queue();
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(leased(), 1);
  EXPECT(shmq_poll(gone), 0); /* which takes the stale ones away */
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(leased(), 0);
  EXPECT(shmq_await(gone, &r, SHMQ_NOWAIT), -ECANCELED);
  EXPECT(r.executed, SHMQ_EXECUTED_NO);
  shmq_future_free(gone);
}

static void a_refusal_to_the_dead_is_forgotten(void) {
  shmq_future *gone = ask_later(client, OP_ECHO, 0, 0);
  EXPECT(shmq_cancel(gone), 0);
  fill_reply_queue();
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  shmq_client_close(client);
  nap_ms(10); /* a living asker is not looked at again so soon */
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(leased(), 0);
  client = asker(fd);
}

static void an_answer_without_room_is_still_to_be_given(void) {
  shmq_future *f = ask_later(client, OP_ECHO, 0, 0);
  char large[1000] = "";
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
  fill_reply_queue();
  EXPECT(shmq_reply(&in, "yes", 3), -EAGAIN);
  EXPECT(shmq_reply_error(&in, -EIO, "test", 7, "no"), -EAGAIN);
  EXPECT(shmq_poll(f), 0);
  EXPECT(shmq_reply(&in, "yes", 3), 0);
  EXPECT(shmq_reply(&in, large, sizeof large), -ESTALE);
  EXPECT(shmq_await(f, &r, SHMQ_NOWAIT), 0);
  CHECK(r.size == 3 && memcmp(r.data, "yes", 3) == 0);
  shmq_future_free(f);
}

/* ---- with a server of its own ---- */

static void tick(int number) { (void)number; }

static void answer_while_signals_come(void *unused) {
  struct sigaction action = {.sa_handler = tick};
  struct itimerval every = {.it_interval = {.tv_usec = 2000}, .it_value = {.tv_usec = 2000}};
  shmq_service *own;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, 0));
  MUST(shmq_serve(own, &in, SHMQ_NOWAIT));
  sigaction(SIGALRM, &action, NULL);
  setitimer(ITIMER_REAL, &every, NULL);
  EXPECT(shmq_reply(&in, "yes", 3), 0); /* waits: its asker lives */
  shmq_service_close(own);
}

static void a_signal_does_not_lose_an_answer(void) {
  shmq_future *f = ask_later(client, OP_ECHO, 0, 0);
  fill_reply_queue();
  pid_t server = child(answer_while_signals_come, NULL);
  nap_ms(50);
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  SUCCEEDED(server);
  shmq_future_free(f);
}

/* As shmq_reply_in_place does, up to where it dies. */
static void die_answering_in_place(void *unused) {
  shmq_service *own;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, 0));
  MUST(shmq_serve(own, &in, SHMQ_NOWAIT));
  memcpy(in.data, "answer", 6);
  shmq_reply_header h = {.magic = SHMQ_RPC_MAGIC,
                         .kind = SHMQ_RPC_REPLY,
                         .id = in.header.id,
                         .asker = in.header.asker,
                         .generation = in.header.generation,
                         .slot = in.header.slot,
                         .executed = SHMQ_EXECUTED_YES,
                         .data_offset = in.header.data_offset,
                         .data_bytes = 6};
  memcpy(in.message.data, &h, sizeof h);
  raise(SIGKILL);
}

static void an_answer_in_place_of_a_dead_server_arrives(void) {
  shmq_ask a = {.op = OP_PLACE, .room = 60000, .flags = SHMQ_ASK_IDEMPOTENT};
  shmq_future *f;
  EXPECT(shmq_request(client, &a, PATIENCE, &f), 0);
  ended(child(die_answering_in_place, NULL));
  shmq_recover(shmq_service_segment(service));
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN); /* nothing is to be executed */
  EXPECT(shmq_await(f, &r, SHMQ_NOWAIT), 0);
  CHECK(r.size == 6 && memcmp(r.data, "answer", 6) == 0);
  shmq_future_free(f);
}

static void an_answer_longer_than_its_room_is_an_error_and_the_end(void) {
  shmq_future *f = ask_later(client, OP_PLACE, 0, 0);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reply_in_place(&in, NULL, in.room + 1), -EMSGSIZE);
  EXPECT(shmq_reply(&in, NULL, 0), -ESTALE);
  EXPECT(leased(), 0);
  EXPECT(shmq_await(f, &r, PATIENCE), -EMSGSIZE);
  EXPECT(r.executed, SHMQ_EXECUTED_YES);
  shmq_future_free(f);
}

/* ---- answers that are read in place ---- */

static void stream_past(bool looked_at) {
  enum { PARTS = 1000 };
  pid_t server = start_server(fd);
  shmq_future *held = hold_answer(client);
  if (looked_at) EXPECT(shmq_await(held, &r, PATIENCE), 0);
  shmq_future *stream = ask_later(client, OP_STREAM, PARTS, 0);
  int parts = 0, busy = 0;
  for (int rc; (rc = shmq_await(stream, &r, PATIENCE)) != 0 || r.more;) {
    if (rc == -EBUSY && held) {
      busy++;
      shmq_future_free(held);
      held = NULL;
      continue;
    }
    EXPECT(rc, 0);
    CHECK(memcmp(r.data, &parts, sizeof parts) == 0, "part %d", parts);
    parts++;
  }
  EXPECT(parts, PARTS);
  EXPECT(busy, looked_at);
  if (!looked_at) {
    EXPECT(shmq_await(held, &r, SHMQ_NOWAIT), 0);
    CHECK(r.size == 60000 && ((char *)r.data)[59999] == 'x');
  }
  shmq_future_free(held);
  shmq_future_free(stream);
  stop_server(server);
}

static void a_stream_passes_an_answer_nobody_has_looked_at(void) { stream_past(false); }
static void a_stream_that_cannot_go_on_says_so(void) { stream_past(true); }

static const struct test_case cases[] = {
    CASE(nonsense_is_told_once_each),
    CASE(a_call_skips_so_many_and_returns),
    CASE(a_refusal_waits_for_room_and_not_the_server),
    CASE(a_refusal_to_the_dead_is_forgotten),
    CASE(an_answer_without_room_is_still_to_be_given),
    CASE(a_signal_does_not_lose_an_answer),
    CASE(an_answer_in_place_of_a_dead_server_arrives),
    CASE(an_answer_longer_than_its_room_is_an_error_and_the_end),
    CASE(a_stream_passes_an_answer_nobody_has_looked_at),
    CASE(a_stream_that_cannot_go_on_says_so),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
