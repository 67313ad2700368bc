/* SPDX-License-Identifier: Apache-2.0
 *
 * What ends the wait of a taker: every call that takes, however it waits, and everything that it may wait for. A guard is there, so
 * that no bounded look hides what the wait itself did not see.
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "support/fresh.h"

enum { SHORT = 5, LONG = 300, SETTLE_US = 4000 };
static int fd;
static shmq *q, *guard;

static void begin(uint32_t flags) {
  shmq_queue_options queue = {.capacity = 4, .message_bytes = 64, .flags = flags};
  shmq_options o = {.queues = &queue, .queue_count = 1, .participants = 8, .blocks = 2,
                    .block_bytes = LONG};
  int64_t next;
  fd = fresh_fd(&o);
  guard = peer(fd, NULL);
  MUST(shmq_guard(guard->segment, &next));
  q = peer(fd, NULL);
}
static void end(void) {
  shmq_close(q);
  shmq_close(guard);
  close(fd);
}

/* ---- the calls: the size of what was taken, or an error ---- */

static int by_get(shmq *taker, size_t room) {
  char data[LONG];
  return (int)shmq_get(taker, data, room, PATIENCE);
}
static int by_batch(shmq *taker, size_t room) {
  char data[2][LONG];
  struct iovec to[2] = {{data[0], room}, {data[1], room}};
  int rc = shmq_get_batch(taker, to, 2, PATIENCE);
  return rc > 0 ? (int)to[0].iov_len : rc;
}
static int by_lease(shmq *taker, size_t room) {
  shmq_message m;
  int rc = shmq_lease(taker, &m, PATIENCE);
  if (rc < 0) return rc;
  rc = m.size > room ? -EMSGSIZE : (int)m.size;
  MUST(rc < 0 ? shmq_nack(taker, &m) : shmq_ack(taker, &m));
  return rc;
}
static int (*const calls[])(shmq *, size_t) = {by_get, by_batch, by_lease};

/* ---- what happens meanwhile ---- */

static void a_short_one_comes(void) { MUST(shmq_put(q, "short", SHORT, SHMQ_NOWAIT)); }
static void a_long_one_comes(void) { MUST(shmq_put(q, (char[LONG]){0}, LONG, SHMQ_NOWAIT)); }
static void one_is_given_up_before_it(void) {
  shmq_message m;
  MUST(shmq_reserve(q, 1, &m, SHMQ_NOWAIT));
  MUST(shmq_abort(q, &m));
  usleep(SETTLE_US);
  a_short_one_comes();
}
static void one_is_published_behind_another(void) {
  shmq_message first;
  MUST(shmq_reserve(q, SHORT, &first, SHMQ_NOWAIT));
  a_short_one_comes();
  usleep(SETTLE_US);
  MUST(shmq_commit(q, &first));
}
static void it_is_shut(void) { MUST(shmq_shutdown(q)); }

struct event {
  void (*happens)(void);
  size_t room;
  int expected;
};
static const struct event events[] = {
    {a_short_one_comes, LONG, SHORT},         {a_short_one_comes, SHORT - 1, -EMSGSIZE},
    {a_long_one_comes, LONG, LONG},           {a_long_one_comes, LONG - 1, -EMSGSIZE},
    {one_is_given_up_before_it, LONG, SHORT}, {one_is_published_behind_another, LONG, SHORT},
    {it_is_shut, LONG, -EPIPE},
};

/* ---- a taker in a thread ---- */

struct way {
  unsigned flags;
  bool short_pause;
};
static const struct way ways[] = {{0, true}, {SHMQ_SPIN, false}, {SHMQ_SPIN, true}, {SHMQ_NOSPIN, false}};
enum { WAYS = sizeof ways / sizeof *ways };

struct taker {
  pthread_t thread;
  int (*call)(shmq *, size_t);
  struct way way;
  size_t room;
  int result;
};
static void *taker_main(void *argument) {
  struct taker *t = argument;
  shmq *mine = NULL;
  shmq_segment *s = attached(fd);
  MUST(shmq_open_in(&mine, s, NULL, t->way.flags));
  s->owned_by_queue = true;
  mine->short_pause = t->way.short_pause;
  t->result = t->call(mine, t->room);
  shmq_close(mine);
  return NULL;
}
static void start(struct taker *t) {
  cr_assert_eq(pthread_create(&t->thread, NULL, taker_main, t), 0);
  usleep(SETTLE_US);
}

static const uint32_t kinds[] = {0, SHMQ_SINGLE_CONSUMER, SHMQ_TIMED};

Test(queue_awaited, whatever_comes_ends_the_wait) {
  for (unsigned kind = 0; kind < 3; kind++)
    for (unsigned w = 0; w < WAYS; w++)
      for (unsigned c = 0; c < 3; c++)
        for (unsigned e = 0; e < sizeof events / sizeof *events; e++) {
          begin(kinds[kind]);
          struct taker t = {.call = calls[c], .way = ways[w], .room = events[e].room};
          start(&t);
          events[e].happens();
          pthread_join(t.thread, NULL);
          cr_assert_eq(t.result, events[e].expected, "kind %u, way %u, call %u, event %u: %d", kind, w, c, e,
                       t.result);
          end();
        }
}

/* A message that somebody holds goes back while another waits. */
Test(queue_awaited, what_is_returned_ends_the_wait) {
  for (unsigned kind = 0; kind < 3; kind += 2)
    for (unsigned w = 0; w < WAYS; w++)
      for (unsigned c = 0; c < 3; c++) {
        shmq_message m;
        begin(kinds[kind]);
        a_short_one_comes();
        MUST(shmq_lease(q, &m, SHMQ_NOWAIT));
        struct taker t = {.call = calls[c], .way = ways[w], .room = LONG};
        start(&t);
        MUST(shmq_nack(q, &m));
        pthread_join(t.thread, NULL);
        cr_assert_eq(t.result, SHORT, "kind %u, way %u, call %u: %d", kind, w, c, t.result);
        end();
      }
}

/* Nothing comes but a time. */
Test(queue_awaited, a_message_that_is_due_ends_the_wait) {
  for (unsigned w = 0; w < WAYS; w++)
    for (unsigned c = 0; c < 3; c++) {
      begin(SHMQ_TIMED);
      struct taker t = {.call = calls[c], .way = ways[w], .room = LONG};
      start(&t);
      shmq_put_options later = {.not_before_ns = shmq_after_ns(5 * MILLISECOND)};
      MUST(shmq_put_with(q, "short", SHORT, &later, SHMQ_NOWAIT));
      pthread_join(t.thread, NULL);
      cr_assert_eq(t.result, SHORT, "way %u, call %u: %d", w, c, t.result);
      cr_assert_geq(shmq_now_ns(), later.not_before_ns);
      end();
    }
}
