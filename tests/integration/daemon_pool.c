/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `pool`: a token has one holder, whoever has waited longest is next, and what the dead held comes
 * back.
 */
#include <criterion/criterion.h>

#include "shmq/resource.h"
#include "support/shmqd.h"

enum { TOKENS = 3 };

static struct shmqd d;
static shmq_client *client;
static int pool;
static shmq_result r;

static void begin(void) {
  shmqd_new_with(&d, "[daemon]\nrestart_first = 1ms\nrestart_most = 1ms\nrestart_failures = 0\n"
                     "[pool:ports]\ntokens = 8000 8001\ncount = 1\n");
  client = shmqd_client(&d);
  pool = shmq_resource(client, "ports");
  cr_assert_gt(pool, 0);
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_pool, .init = begin, .fini = end, .timeout = 100);

/* Returns the token or a negative errno. */
static int64_t take_now(shmq_client *c) {
  int rc = shmqd_ask(c, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r);
  return rc ? rc : (int64_t)r.value[0];
}

static shmq_future *take_later(shmq_client *c, int64_t deadline_ns) {
  shmq_ask a = {.resource = (uint16_t)pool, .op = SHMQ_POOL_TAKE, .value = {1, 0}};
  shmq_future *f = NULL;
  cr_assert_eq(shmq_request(c, &a, deadline_ns, &f), 0);
  return f;
}

static int give(shmq_client *c, int64_t token, int others) {
  return shmqd_ask(c, pool, SHMQ_POOL_GIVE, (uint64_t)token, (uint64_t)others, NULL, 0, 0, &r);
}

/* How many tokens are held, by pid if it is not 0; checks the list's form. */
static int held_by(pid_t pid) {
  int n = 0, seen = 0;
  uint64_t cursor = 0;
  do {
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_LIST, cursor, 0, NULL, 0, 100, &r), 0);
    for (size_t at = 0; at < r.size; seen++) {
      shmq_pool_entry e;
      memcpy(&e, (char *)r.data + at, sizeof e);
      cr_assert_eq(e.token, seen + 1);
      if (e.since_ns) {
        cr_assert_leq(e.since_ns, shmq_now_ns());
        cr_assert_eq(e.uid, getuid());
        n += !pid || e.pid == pid;
      }
      at += sizeof e + ((e.bytes + 7) & ~(size_t)7);
    }
    cursor = r.value[0];
  } while (cursor);
  cr_assert_eq(seen, TOKENS);
  return n;
}

static void wait_for_waiting(uint64_t n) {
  do {
    nap_ms(1);
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_LIST, 0, 0, NULL, 0, 1000, &r), 0);
  } while (r.value[1] != n);
}

Test(daemon_pool, each_token_has_one_holder)
{
  static const char *const texts[] = {"8000", "8001", "1"};
  for (int i = 0; i < TOKENS; i++) {
    cr_assert_eq(take_now(client), i + 1);
    cr_assert_eq(r.size, strlen(texts[i]));
    cr_assert_eq(memcmp(r.data, texts[i], r.size), 0);
  }
  cr_assert_eq(take_now(client), -EAGAIN);
  cr_assert_eq(held_by(getpid()), TOKENS);
  cr_assert_eq(give(client, 2, 0), 0);
  cr_assert_eq(give(client, 2, 0), -ENOENT);
  cr_assert_eq(held_by(0), TOKENS - 1);
  cr_assert_eq(take_now(client), 2);
}

Test(daemon_pool, who_has_waited_longest_is_next)
{
  enum { WAITERS = 5 };
  shmq_client *c[WAITERS];
  shmq_future *f[WAITERS];
  for (int i = 0; i < TOKENS; i++) cr_assert_gt(take_now(client), 0);
  for (int i = 0; i < WAITERS; i++) {
    c[i] = shmqd_client(&d);
    f[i] = take_later(c[i], SHMQ_FOREVER);
    wait_for_waiting((uint64_t)i + 1);
  }
  for (int i = 0; i < WAITERS; i++) {
    cr_assert_eq(give(i ? c[i - 1] : client, 1, 0), 0);
    cr_assert_eq(take_now(client), -EAGAIN, "it went to the waiter, or those behind it come first");
    cr_assert_eq(shmq_await(f[i], &r, PATIENCE), 0);
    cr_assert_eq(r.value[0], 1);
    if (i + 1 < WAITERS) cr_assert_eq(shmq_poll(f[i + 1]), 0);
    shmq_future_free(f[i]);
  }
  for (int i = 0; i < WAITERS; i++) shmq_client_close(c[i]);
}

static void hold_all_and_stop(int ready) {
  shmq_client *c = shmqd_client(&d);
  for (int i = 0; i < TOKENS; i++) MUST(take_now(c));
  if (write(ready, "x", 1) != 1) abort();
  for (;;) pause();
}

Test(daemon_pool, what_the_dead_held_goes_to_who_waits)
{
  int ready[2];
  char byte;
  cr_assert_eq(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    hold_all_and_stop(ready[1]);
  }
  cr_assert_eq(read(ready[0], &byte, 1), 1);
  cr_assert_eq(held_by(pid), TOKENS);
  shmq_future *f = take_later(client, SHMQ_FOREVER);
  wait_for_waiting(1);
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  while (held_by(pid)) nap_ms(1);
  cr_assert_eq(held_by(getpid()), 1);
  for (int i = 1; i < TOKENS; i++) cr_assert_gt(take_now(client), 0);
  close(ready[0]);
  close(ready[1]);
}

Test(daemon_pool, a_deadline_and_a_cancellation_end_the_wait)
{
  shmq_client *other = shmqd_client(&d);
  for (int i = 0; i < TOKENS; i++) cr_assert_gt(take_now(other), 0);
  shmq_future *late = take_later(client, shmq_after_ns(30 * MILLISECOND));
  shmq_future *unwanted = take_later(client, SHMQ_FOREVER);
  shmq_future *patient = take_later(client, SHMQ_FOREVER);
  cr_assert_eq(shmq_await(late, &r, PATIENCE), -ETIMEDOUT);
  cr_assert_eq(shmq_cancel(unwanted), 0);
  cr_assert_eq(shmq_await(unwanted, &r, PATIENCE), -ECANCELED);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  wait_for_waiting(1);
  cr_assert_eq(give(other, 3, 0), 0);
  cr_assert_eq(shmq_await(patient, &r, PATIENCE), 0);
  cr_assert_eq(held_by(getpid()), TOKENS, "each of our two sessions has this pid");
  shmq_future_free(late);
  shmq_future_free(unwanted);
  shmq_future_free(patient);
  cr_assert_eq(give(client, 3, 0), 0, "no token went to those who did not wait any more");
  cr_assert_eq(give(client, 2, 0), -EPERM);
  cr_assert_eq(give(client, 2, 1), 0, "of the same user");
  shmq_client_close(other);
}

/* Opened before the session's socket, so that the lock goes before it when the process is killed. */
static void open_locks(int fd[TOKENS + 1]) {
  char path[160];
  for (int i = 1; i <= TOKENS; i++) {
    snprintf(path, sizeof path, "%s/token-%d", d.dir, i);
    fd[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    MUST(fd[i]);
  }
}

static void take_and_give(void) {
  int fd[TOKENS + 1];
  open_locks(fd);
  shmq_client *c = shmqd_client(&d);
  for (;;) {
    shmq_future *f = take_later(c, SHMQ_FOREVER);
    MUST(shmq_await(f, &r, PATIENCE));
    int64_t token = (int64_t)r.value[0];
    shmq_future_free(f);
    struct flock lock = {.l_type = F_WRLCK}, unlock = {.l_type = F_UNLCK};
    if (fcntl(fd[token], F_SETLK, &lock)) {
      char path[160];
      snprintf(path, sizeof path, "%s/held-twice", d.dir);
      close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    }
    fcntl(fd[token], F_SETLK, &unlock);
    MUST(give(c, token, 0));
  }
}

Test(daemon_pool, none_is_lost_and_none_held_twice_under_kills)
{
  enum { CHILDREN = 4, ROUNDS = 60 };
  pid_t pids[CHILDREN] = {0};
  char path[160];
  for (int round = 0; round < ROUNDS; round++) {
    pid_t *pid = &pids[round % CHILDREN];
    if (*pid) stop_server(*pid);
    *pid = fork();
    if (*pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      take_and_give();
    }
    nap_ms(3);
  }
  for (int i = 0; i < CHILDREN; i++) stop_server(pids[i]);
  snprintf(path, sizeof path, "%s/held-twice", d.dir);
  cr_assert_eq(access(path, F_OK), -1);
  while (held_by(0)) nap_ms(1);
  for (int i = 0; i < TOKENS; i++) cr_assert_gt(take_now(client), 0);
}

Test(daemon_pool, a_killed_worker_takes_no_token_from_who_lives)
{
  cr_assert_eq(take_now(client), 1);
  shmq_client *other = shmqd_client(&d);
  cr_assert_eq(take_now(other), 2);
  for (int round = 0; round < 3; round++) {
    shmqd_kill_worker(&d);
    cr_assert_eq(held_by(0), 2);
    cr_assert_eq(take_now(other), 3, "the only one that is free");
    cr_assert_eq(give(other, 3, 0), 0);
    cr_assert_eq(give(client, 2, 0), -EPERM);
  }
  shmq_future *f = take_later(client, SHMQ_FOREVER);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  f = take_later(client, SHMQ_FOREVER);
  wait_for_waiting(1);
  kill(d.pid, SIGSTOP);
  shmqd_kill_worker(&d);
  shmq_client_close(other); /* while there is no worker to see it */
  kill(d.pid, SIGCONT);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0, "it waits on, and gets what the other held");
  cr_assert_eq(r.value[0], 2);
  shmq_future_free(f);
}

Test(daemon_pool, bad_requests_are_refused)
{
  cr_assert_eq(give(client, 0, 0), -ENOENT);
  cr_assert_eq(give(client, TOKENS + 1, 1), -ENOENT);
  cr_assert_eq(give(client, 1, 0), -ENOENT);
  cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_TAKE, 2, 0, NULL, 0, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_LIST, 0, 0, NULL, 0, 8, &r), -EMSGSIZE);
  cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_LIST, 99, 0, NULL, 0, 8, &r), 0);
  cr_assert_eq(r.size, 0);
  cr_assert_eq(shmqd_ask(client, pool, 9, 0, 0, NULL, 0, 0, &r), -EOPNOTSUPP);
}
