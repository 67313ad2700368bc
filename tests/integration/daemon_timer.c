/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `timer`: never early, in order, once or periodically, into queues that may be full or gone.
 */
#include <criterion/criterion.h>

#include "shmq/resource.h"
#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static int timer;
static char segment[64];
static shmq *queue;
static shmq_result r;

static void begin(void) {
  char config[200];
  snprintf(segment, sizeof segment, "shmq-test-timer-%d", (int)getpid());
  snprintf(config, sizeof config, "[timer:clock]\nqueues = other %s*\nmax = 20\nmax_bytes = 40K\n", segment);
  shmq_queue_options q = {.capacity = 4, .message_bytes = 64};
  shmq_options o = {.queues = &q, .queue_count = 1, .participants = 8};
  shmq_unlink(segment);
  MUST(shmq_create(segment, &o));
  MUST(shmq_open(&queue, segment, 0));
  shmqd_new_with(&d, config);
  client = shmqd_client(&d);
  timer = shmq_resource(client, "clock");
  cr_assert_gt(timer, 0);
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
  shmq_close(queue);
  shmq_unlink(segment);
}
TestSuite(daemon_timer, .init = begin, .fini = end, .timeout = 100);

static shmq_future *wait_until(shmq_client *c, int64_t due_ns, int64_t deadline_ns) {
  shmq_ask a = {.resource = (uint16_t)timer, .op = SHMQ_TIMER_WAIT, .value = {(uint64_t)due_ns, 0}};
  shmq_future *f = NULL;
  cr_assert_eq(shmq_request(c, &a, deadline_ns, &f), 0);
  return f;
}

static char worker_state(void) {
  char path[64], line[512] = "";
  snprintf(path, sizeof path, "/proc/%d/stat", (int)shmqd_worker(&d));
  FILE *f = fopen(path, "r");
  cr_assert(f && fgets(line, sizeof line, f));
  fclose(f);
  return strrchr(line, ')')[2];
}

static void wait_for_sleep(void) {
  for (int still = 0; still < 20; still++) {
    nap_ms(1);
    if (worker_state() != 'S') still = 0;
  }
}

/* Returns the timer or a negative errno. */
static int64_t set(shmq_client *c, const char *name, int64_t due_ns, int64_t period_ns,
                   const char *message) {
  char data[256];
  size_t n = strlen(name) + 1;
  memcpy(data, name, n);
  memcpy(data + n, message, strlen(message));
  int rc = shmqd_ask(c, timer, SHMQ_TIMER_SET, (uint64_t)due_ns, (uint64_t)period_ns, data,
                     n + strlen(message), 0, &r);
  return rc ? rc : (int64_t)r.value[0];
}

/* How many timers there are; the last one is in *entry. */
static int list(shmq_timer_entry *entry) {
  uint64_t below = 0;
  int n = 0;
  do {
    cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_LIST, below, 0, NULL, 0, 200, &r), 0);
    for (size_t at = 0; at < r.size; n++) {
      memcpy(entry, (char *)r.data + at, sizeof *entry);
      const char *name = (char *)r.data + at + sizeof *entry;
      cr_assert(memcmp(name, segment, entry->bytes) == 0 || memcmp(name, "other", 5) == 0);
      at += sizeof *entry + ((entry->bytes + 7) & ~(size_t)7);
    }
    below = r.value[0];
  } while (below);
  return n;
}

static void got(const char *message) {
  char text[64] = "";
  ssize_t n = shmq_get(queue, text, sizeof text, PATIENCE);
  cr_assert_eq(n, (ssize_t)strlen(message), "%zd", n);
  cr_assert_eq(memcmp(text, message, (size_t)n), 0);
}

Test(daemon_timer, waits_end_in_order_and_none_early)
{
  enum { WAITS = 20 };
  shmq_future *f[WAITS];
  int64_t due[WAITS], start = shmq_now_ns();
  for (int i = 0; i < WAITS; i++) {
    due[i] = start + (i * 7 % WAITS) * 3 * MILLISECOND;
    f[i] = wait_until(client, due[i], SHMQ_FOREVER);
  }
  for (int i = 0; i < WAITS; i++) {
    cr_assert_eq(shmq_await(f[i], &r, PATIENCE), 0);
    cr_assert_geq(shmq_now_ns(), due[i]);
    cr_assert_eq((int64_t)r.value[0], due[i]);
    for (int k = 0; k < WAITS; k++)
      if (due[k] < due[i]) cr_assert(shmq_poll(f[k]), "%d was due before %d", k, i);
  }
  for (int i = 0; i < WAITS; i++) shmq_future_free(f[i]);
}

Test(daemon_timer, a_wait_ends_with_its_deadline_its_cancellation_and_its_session)
{
  int64_t never = shmq_after_ns(1000000 * MILLISECOND);
  shmq_client *other = shmqd_client(&d);
  wait_until(other, never, SHMQ_FOREVER);
  shmq_future *late = wait_until(client, never, shmq_after_ns(20 * MILLISECOND));
  shmq_future *unwanted = wait_until(client, never, SHMQ_FOREVER);
  shmq_client_close(other);
  cr_assert_eq(shmq_await(late, &r, PATIENCE), -ETIMEDOUT);
  cr_assert_eq(shmq_cancel(unwanted), 0);
  cr_assert_eq(shmq_await(unwanted, &r, PATIENCE), -ECANCELED);
  do cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_LIST, 0, 0, NULL, 0, 200, &r), 0);
  while (r.value[1]);
  shmq_future_free(late);
  shmq_future_free(unwanted);
}

Test(daemon_timer, a_message_comes_once_also_when_who_set_it_has_gone)
{
  shmq_timer_entry e;
  shmq_client *other = shmqd_client(&d);
  int64_t due = shmq_after_ns(100 * MILLISECOND);
  cr_assert_gt(set(other, segment, due, 0, "ring"), 0);
  shmq_client_close(other);
  got("ring");
  cr_assert_geq(shmq_now_ns(), due);
  while (list(&e)) nap_ms(1);
  cr_assert_eq(shmq_depth(queue), 0);
  cr_assert_gt(set(client, segment, 0, 0, ""), 0, "due long ago");
  got("");
}

Test(daemon_timer, a_period_comes_until_it_is_cleared)
{
  shmq_timer_entry e;
  int64_t id = set(client, segment, shmq_now_ns(), 5 * MILLISECOND, "tick");
  cr_assert_gt(id, 0);
  for (int i = 0; i < 10; i++) got("tick");
  do cr_assert_eq(list(&e), 1);
  while (e.put < 10); /* counted after it was put */
  cr_assert_eq((int64_t)e.timer, id);
  cr_assert_eq(e.period_ns, 5 * MILLISECOND);
  cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_CLEAR, (uint64_t)id, 0, NULL, 0, 0, &r), 0);
  uint64_t put = r.value[0];
  cr_assert_eq(list(&e), 0);
  cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_CLEAR, (uint64_t)id, 0, NULL, 0, 0, &r), -ENOENT);
  for (uint64_t i = 10; i < put; i++) got("tick");
}

Test(daemon_timer, a_full_queue_gets_a_single_message_later_and_misses_periods)
{
  shmq_timer_entry e;
  uint32_t capacity = shmq_capacity(queue);
  for (uint32_t i = 0; i < capacity; i++) MUST(shmq_put(queue, "x", 1, SHMQ_NOWAIT));
  cr_assert_gt(set(client, segment, 0, 0, "once"), 0);
  do cr_assert_eq(list(&e), 1);
  while (e.missed == 0);
  cr_assert_eq(e.put, 0);
  for (uint32_t i = 0; i < capacity; i++) got("x");
  got("once");
  while (list(&e)) nap_ms(1);

  for (uint32_t i = 0; i < capacity; i++) MUST(shmq_put(queue, "x", 1, SHMQ_NOWAIT));
  int64_t id = set(client, segment, 0, 2 * MILLISECOND, "tick");
  do cr_assert_eq(list(&e), 1);
  while (e.missed < 5);
  for (uint32_t i = 0; i < capacity; i++) got("x");
  got("tick");
  cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_CLEAR, (uint64_t)id, 0, NULL, 0, 0, &r), 0);
}

Test(daemon_timer, a_timer_ends_with_its_worker_and_its_number_is_not_anothers)
{
  int64_t never = shmq_after_ns(1000000 * MILLISECOND);
  int64_t before = set(client, segment, never, 0, "x");
  shmqd_kill_worker(&d);
  shmq_timer_entry e;
  cr_assert_eq(list(&e), 0);
  int64_t after = set(client, segment, never, 0, "x");
  cr_assert_gt(after, before);
  cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_CLEAR, (uint64_t)before, 0, NULL, 0, 0, &r), -ESTALE);
  cr_assert_eq(r.error_class, SHMQ_CLASS_RESTARTED);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  cr_assert_eq(list(&e), 1, "the other is there");
}

Test(daemon_timer, what_is_not_allowed_or_not_there)
{
  shmq_timer_entry e;
  cr_assert_eq(set(client, "nothing-of-ours", 0, 0, "x"), -EACCES);
  cr_assert_eq(set(client, "other2", 0, 0, "x"), -EACCES);
  cr_assert_gt(set(client, "other", 0, 0, "x"), 0, "there is no such queue when it is due");
  while (list(&e)) nap_ms(1);
  cr_assert_eq(set(client, segment, 0, 1000, "x"), -EINVAL);
  cr_assert_eq(set(client, segment, -1, 0, "x"), -EINVAL);
  cr_assert_eq(set(client, segment, INT64_MAX, INT64_MAX, "x"), -EINVAL);
  cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_SET, 0, 0, segment, strlen(segment), 0, &r),
               -EINVAL, "a name and no message");
  int64_t never = shmq_after_ns(1000000 * MILLISECOND);
  for (int i = 0; i < 20; i++) cr_assert_gt(set(client, segment, never, 0, "x"), 0);
  cr_assert_eq(set(client, segment, never, 0, "x"), -EDQUOT);
  cr_assert_eq(list(&e), 20);
  cr_assert_eq(shmqd_ask(client, timer, 9, 0, 0, NULL, 0, 0, &r), -EOPNOTSUPP);
}

Test(daemon_timer, messages_have_so_much_memory_together)
{
  static char data[30000];
  int64_t never = shmq_after_ns(1000000 * MILLISECOND);
  strcpy(data, segment);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_SET, (uint64_t)never, 0, data, sizeof data, 0, &r), 0);
    uint64_t one = r.value[0];
    cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_SET, (uint64_t)never, 0, data, sizeof data, 0, &r), -EDQUOT);
    cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
    cr_assert_eq(shmqd_ask(client, timer, SHMQ_TIMER_CLEAR, one, 0, NULL, 0, 0, &r), 0);
  }
  cr_assert_gt(set(client, segment, never, 0, "x"), 0);
}

/* It was asleep behind its doorbell when the answer came, was polled after that, sleeps behind the same one, and hears it. */
Test(daemon_timer, an_answer_wakes_its_session_and_it_sleeps_again) {
  for (int i = 0; i < 40; i++) {
    shmq_future *f = wait_until(client, shmq_after_ns(i * INT64_C(100000)), PATIENCE);
    cr_assert_eq(shmq_await(f, &r, SHMQ_FOREVER), 0);
    shmq_future_free(f);
    if (i % 2) cr_assert_eq(shmqd_ask(client, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), 0);
    wait_for_sleep();
    cr_assert_eq(shmqd_ask(client, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), 0);
  }
}

/* As one does that dies between changing the word and ringing. */
static void change_word(void) {
  uint32_t *word, value;
  shmq *requests;
  cr_assert_eq(shmq_open_in(&requests, shmq_client_segment(client), "requests.always", 0), 0);
  cr_assert_eq(shmq_event_word(requests, &word, &value), 0);
  (void)__atomic_add_fetch(word, 8, __ATOMIC_SEQ_CST);
  shmq_close(requests);
}

Test(daemon_timer, a_doorbell_that_was_not_rung_keeps_nobody_awake) {
  for (int i = 0; i < 5; i++) {
    shmq_future *f = wait_until(client, shmq_after_ns(50 * MILLISECOND), PATIENCE);
    wait_for_sleep();
    change_word();
    cr_assert_eq(shmq_await(f, &r, SHMQ_FOREVER), 0);
    shmq_future_free(f);
    wait_for_sleep();
    cr_assert_eq(shmqd_ask(client, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), 0);
  }
}
