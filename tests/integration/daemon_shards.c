/* SPDX-License-Identifier: Apache-2.0
 *
 * Several shards: whatever a session asks for, on its own shard or elsewhere, is what one shard would have answered.
 * Each kind of resource used here stands on each of the four shards, so wherever a session lives, three are elsewhere.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "shmq/resource.h"
#include "support/shmqd.h"

enum { SHARDS = 4, HANDLES = 5 };

static struct shmqd d;
static shmq_client *client;
static shmq_result r;

static const char configuration[] =
    "[daemon]\nshards = 4\nhandles = 5\ndrain = 60s\n"
    "restart_first = 1ms\nrestart_most = 1ms\nrestart_failures = 0\n"
    "[dir:d1]\npath = %s/tree\nshard = 1\n[dir:d2]\npath = %s/tree\nshard = 2\n"
    "[dir:d3]\npath = %s/tree\nshard = 3\n[dir:d4]\npath = %s/tree\nshard = 4\n"
    "[pool:p1]\ncount = 1\nshard = 1\n[pool:p2]\ncount = 1\nshard = 2\n"
    "[pool:p3]\ncount = 1\nshard = 3\n[pool:p4]\ncount = 1\nshard = 4\n"
    "[kv:k1]\npath = %s/k1\nack = kernel\nsegment_bytes = 2M\nshard = 1\n"
    "[kv:k2]\npath = %s/k2\nack = kernel\nsegment_bytes = 2M\nshard = 2\n"
    "[kv:k3]\npath = %s/k3\nack = kernel\nsegment_bytes = 2M\nshard = 3\n"
    "[kv:k4]\npath = %s/k4\nack = kernel\nsegment_bytes = 2M\nshard = 4\n";

static void begin(void) {
  shmqd_new_with(&d, configuration);
  client = shmqd_client(&d);
}
static void end(void) {
  shmq_client_close(client);
  if (d.pid) cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_shards, .init = begin, .fini = end, .timeout = 200);

static int on_shard(char kind, int shard) {
  const char name[] = {kind, (char)('1' + shard), 0};
  int number = shmq_resource(client, name);
  cr_assert_gt(number, 0, "%s", name);
  return number;
}

static void make_file(const char *name, const char *contents) {
  char path[128];
  snprintf(path, sizeof path, "%s/tree/%s", d.dir, name);
  FILE *file = fopen(path, "w");
  cr_assert(file && fputs(contents, file) >= 0 && fclose(file) == 0);
}

static long status(const char *key) {
  char text[512];
  cr_assert_eq(shmqd_ask(client, 0, SHMQ_DAEMON_STATUS, 0, 0, NULL, 0, 400, &r), 0);
  snprintf(text, sizeof text, "\n%.*s", (int)r.size, (char *)r.data);
  const char *at = strstr(text, key);
  cr_assert(at, "%s", text);
  return strtol(at + strlen(key), NULL, 10);
}

static shmq_future *ask_at(shmq_client *c, int resource, uint16_t op, uint64_t v0, uint64_t v1,
                           const char *text, int64_t deadline_ns) {
  struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
  shmq_ask a = {
      .resource = (uint16_t)resource, .op = op, .value = {v0, v1}, .parts = &part, .part_count = 1};
  shmq_future *f = NULL;
  cr_assert_eq(shmq_request(c, &a, deadline_ns, &f), 0);
  return f;
}

static int answer_of(shmq_future *f) {
  int rc = shmq_await(f, &r, PATIENCE);
  shmq_future_free(f);
  return rc;
}

/* ---- threads ---- */

/* Calls fn for each thread of the worker that is a shard's or its helper's; returns how many shards there are. */
static int each_thread(void (*fn)(pid_t tid)) {
  char path[64], comm[32];
  unsigned seen = 0;
  snprintf(path, sizeof path, "/proc/%d/task", (int)shmqd_worker(&d));
  DIR *tasks = opendir(path);
  cr_assert(tasks);
  for (struct dirent *e; (e = readdir(tasks));) {
    char file[400];
    snprintf(file, sizeof file, "%s/%s/comm", path, e->d_name);
    FILE *f = e->d_name[0] == '.' ? NULL : fopen(file, "r");
    if (!f) continue;
    unsigned number = 1; /* the first runs on the worker's own */
    bool named = fgets(comm, sizeof comm, f) && (strcmp(comm, "shmqd-worker\n") == 0 ||
                                                 sscanf(comm, "shmqd-shard-%u", &number) == 1);
    fclose(f);
    if (!named) continue;
    seen |= 1u << number;
    if (fn) fn((pid_t)atoi(e->d_name));
  }
  closedir(tasks);
  return __builtin_popcount(seen);
}

Test(daemon_shards, each_is_a_thread)
{
  cr_assert_eq(status("\nshards="), SHARDS);
  cr_assert_eq(each_thread(NULL), SHARDS);
}

static cpu_set_t pinned_to;
static void look_where(pid_t tid) {
  cpu_set_t cpus;
  if (sched_getaffinity(tid, sizeof cpus, &cpus)) return;
  cr_expect_eq(CPU_COUNT(&cpus), 1, "one CPU for each");
  CPU_OR(&pinned_to, &pinned_to, &cpus);
}

Test(daemon_shards, each_is_pinned_to_a_place)
{
  cpu_set_t own;
  end();
  setenv("SHMQD_DAEMON_PIN", "compact", 1);
  begin();
  cr_assert_eq(each_thread(look_where), SHARDS);
  cr_assert_eq(sched_getaffinity(0, sizeof own, &own), 0);
  int cpus = CPU_COUNT(&own) < SHARDS ? CPU_COUNT(&own) : SHARDS;
  cr_assert_eq(CPU_COUNT(&pinned_to), cpus, "the places are used in turn");
}

/* ---- requests ---- */

Test(daemon_shards, everything_is_answered_from_everywhere)
{
  char big[3000];
  memset(big, 'b', sizeof big - 1);
  big[sizeof big - 1] = 0;
  make_file("f", "contents");
  for (int i = 0; i < SHARDS; i++) {
    int dir = on_shard('d', i), kv = on_shard('k', i), pool = on_shard('p', i);
    shmq_dir_stat st;
    cr_assert_eq(shmqd_ask(client, dir, SHMQ_DIR_STAT, 0, 0, "f", 1, 200, &r), 0);
    memcpy(&st, r.data, sizeof st);
    cr_assert_eq(st.size, 8);
    cr_assert_eq(shmqd_ask(client, dir, SHMQ_DIR_GET, 0, 0, "f", 1, 200, &r), 0);
    cr_assert(r.size == 8 && memcmp(r.data, "contents", 8) == 0);
    cr_assert_eq(shmqd_ask(client, dir, SHMQ_DIR_GET, 0, 0, "g", 1, 200, &r), -ENOENT);
    cr_assert_eq(shmqd_ask(client, dir, 999, 0, 0, "", 0, 0, &r), -EOPNOTSUPP);
    cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
    cr_assert_str_eq(r.text, "no such operation");
    cr_assert_eq(shmqd_ask(client, dir, SHMQ_DIR_UNLINK, 0, 0, "f", 1, 0, &r), -EROFS);

    memcpy(big, "key", 3);
    cr_assert_eq(shmqd_ask(client, kv, SHMQ_KV_PUT, 3, 0, big, strlen(big), 0, &r), 0);
    cr_assert_eq(shmqd_ask(client, kv, SHMQ_KV_GET, 0, 0, "key", 3, 4000, &r), 0);
    cr_assert(r.size == strlen(big) - 3 && memcmp(r.data, big + 3, r.size) == 0);

    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), 0);
    cr_assert(r.size == 1 && *(char *)r.data == '1');
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), -EAGAIN);
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_GIVE, 1, 0, NULL, 0, 0, &r), 0);
  }
}

Test(daemon_shards, what_one_session_asks_of_a_resource_keeps_its_order)
{
  enum { ROUNDS = 200, WINDOW = 8 };
  shmq_future *f[WINDOW];
  for (int i = 0; i < SHARDS; i++) {
    int kv = on_shard('k', i);
    for (int64_t sum = 0; sum < ROUNDS * WINDOW;) {
      for (int j = 0; j < WINDOW; j++)
        f[j] = ask_at(client, kv, SHMQ_KV_ADD, 1, 0, "n", SHMQ_FOREVER);
      for (int j = 0; j < WINDOW; j++) {
        cr_assert_eq(answer_of(f[j]), 0);
        cr_assert_eq((int64_t)r.value[1], ++sum);
      }
    }
  }
}

/* ---- handles ---- */

Test(daemon_shards, handles_are_counted_together)
{
  uint64_t handle[HANDLES];
  make_file("f", "contents");
  for (int i = 0; i < HANDLES; i++) {
    cr_assert_eq(shmqd_ask(client, on_shard('d', i % SHARDS), SHMQ_DIR_OPEN, 0, 0, "f", 1, 0, &r),
                 0);
    handle[i] = r.value[0];
  }
  for (int i = 0; i < SHARDS; i++) {
    int dir = on_shard('d', i), other = on_shard('d', (i + 1) % SHARDS);
    cr_assert_eq(shmqd_ask(client, dir, SHMQ_DIR_OPEN, 0, 0, "f", 1, 0, &r), -EMFILE);
    cr_assert_eq(shmqd_ask(client, other, SHMQ_DIR_READ, handle[i], 0, NULL, 0, 100, &r), -EBADF);
    cr_assert_eq(shmqd_ask(client, dir, SHMQ_DIR_READ, handle[i], 0, NULL, 0, 100, &r), 0);
    cr_assert_eq(r.size, 8);
  }
  cr_assert_eq(shmqd_ask(client, on_shard('d', 0), SHMQ_DIR_CLOSE, handle[0], 0, NULL, 0, 0, &r),
               0);
  cr_assert_eq(shmqd_ask(client, on_shard('d', 3), SHMQ_DIR_OPEN, 0, 0, "f", 1, 0, &r), 0);
}

/* ---- waiting ---- */

Test(daemon_shards, who_waits_elsewhere_can_cancel_and_be_too_late)
{
  for (int i = 0; i < SHARDS; i++) {
    int pool = on_shard('p', i);
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), 0);
    shmq_future *cancelled = ask_at(client, pool, SHMQ_POOL_TAKE, 1, 0, "", SHMQ_FOREVER);
    shmq_future *late =
        ask_at(client, pool, SHMQ_POOL_TAKE, 1, 0, "", shmq_after_ns(20 * MILLISECOND));
    shmq_future *last = ask_at(client, pool, SHMQ_POOL_TAKE, 1, 0, "", SHMQ_FOREVER);
    cr_assert_eq(answer_of(late), -ETIMEDOUT);
    cr_assert_eq(shmq_cancel(cancelled), 0);
    cr_assert_eq(answer_of(cancelled), -ECANCELED);
    do {
      nap_ms(1); /* the daemon is told in its own time */
      cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_LIST, 0, 0, NULL, 0, 1000, &r), 0);
    } while (r.value[1] != 1);
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_GIVE, 1, 0, NULL, 0, 0, &r), 0);
    cr_assert_eq(answer_of(last), 0, "it went to who still wants it");
  }
}

static int open_files(void) {
  char path[64];
  int n = 0;
  snprintf(path, sizeof path, "/proc/%d/fd", (int)shmqd_worker(&d));
  DIR *fds = opendir(path);
  cr_assert(fds);
  while (readdir(fds)) n++;
  closedir(fds);
  return n;
}

/* A client that has, on every shard: a handle, a token, and a request that waits. */
static void have_everything(const char *socket, int tell) {
  shmq_client *c = NULL;
  shmq_future *f;
  MUST(shmq_client_connect(&c, socket, NULL, 0));
  for (int i = 0; i < SHARDS; i++) {
    const char pool[] = {'p', (char)('1' + i), 0}, dir[] = {'d', (char)('1' + i), 0};
    int p = shmq_resource(c, pool), t = shmq_resource(c, dir);
    shmq_ask wait = {.resource = (uint16_t)p, .op = SHMQ_POOL_TAKE, .value = {1, 0}};
    MUST(shmqd_ask(c, t, SHMQ_DIR_OPEN, 0, 0, "f", 1, 0, &r));
    MUST(shmqd_ask(c, p, SHMQ_POOL_TAKE, 1, 0, NULL, 0, 0, &r));
    MUST(shmq_request(c, &wait, SHMQ_FOREVER, &f));
  }
  if (write(tell, "x", 1) != 1) _exit(1);
  pause();
}

Test(daemon_shards, the_dead_leave_nothing_on_any_shard)
{
  enum { TIMES = 10 };
  int ready[2], before = 0;
  char byte;
  make_file("f", "contents");
  MUST(pipe(ready));
  for (int time = 0; time < TIMES; time++) {
    pid_t pid = fork();
    if (pid == 0) have_everything(d.socket, ready[1]);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (int i = 0; i < SHARDS; i++) {
      int pool = on_shard('p', i);
      cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_TAKE, 1, 0, NULL, 0, 0, &r), 0,
                   "its token is back");
      cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_GIVE, 1, 0, NULL, 0, 0, &r), 0);
    }
    while (status("\nsessions=") != 1) nap_ms(1);
    if (time == 0) before = open_files();
  }
  while (open_files() > before) nap_ms(1); /* closed after the session was counted off */
}

Test(daemon_shards, who_waits_elsewhere_is_told_that_the_daemon_ends)
{
  shmq_future *f[SHARDS];
  for (int i = 0; i < SHARDS; i++) {
    int pool = on_shard('p', i);
    cr_assert_eq(shmqd_ask(client, pool, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), 0);
    f[i] = ask_at(client, pool, SHMQ_POOL_TAKE, 1, 0, "", SHMQ_FOREVER);
  }
  int64_t from = shmq_now_ns();
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  cr_assert_lt(shmq_now_ns() - from, 60000 * MILLISECOND, "it drained: nothing ran out of time");
  d.pid = 0;
  for (int i = 0; i < SHARDS; i++) cr_assert_eq(answer_of(f[i]), -ECANCELED);
}

/* ---- all at once ---- */

enum { CLIENTS = 6, ADDS = 1500 };

static _Atomic int *added; /* by each client, in memory that all share */

/* Adds to every map, through a window of requests to all of them; exits 0 if each answer was a value. */
static int add_everywhere(const char *socket, _Atomic int *mine) {
  enum { WINDOW = 12 };
  shmq_client *c = NULL;
  shmq_future *f[WINDOW];
  shmq_result result;
  int kv[SHARDS];
  struct iovec part = {(void *)(uintptr_t) "sum", 3};
  MUST(shmq_client_connect(&c, socket, NULL, 0));
  for (int i = 0; i < SHARDS; i++) {
    const char name[] = {'k', (char)('1' + i), 0};
    kv[i] = shmq_resource(c, name);
  }
  for (int n = 0; n < ADDS * SHARDS; n += WINDOW) {
    for (int i = 0; i < WINDOW; i++) {
      shmq_ask a = {.resource = (uint16_t)kv[(n + i) % SHARDS],
                    .op = SHMQ_KV_ADD,
                    .value = {1, 0},
                    .parts = &part,
                    .part_count = 1};
      MUST(shmq_request(c, &a, SHMQ_FOREVER, &f[i]));
    }
    for (int i = 0; i < WINDOW; i++) {
      int rc = shmq_await(f[i], &result, PATIENCE);
      bool done = rc == 0 || (rc == -EOWNERDEAD && result.executed == SHMQ_EXECUTED_YES);
      if (!done) fprintf(stderr, "an addition: %s\n", shmq_strerror(rc));
      if (!done) return 1;
      shmq_future_free(f[i]);
    }
    *mine += WINDOW;
  }
  shmq_client_close(c);
  return 0;
}

static void start_adding(pid_t pids[CLIENTS]) {
  added = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  cr_assert_neq((void *)added, MAP_FAILED);
  for (int i = 0; i < CLIENTS; i++) {
    pids[i] = fork();
    if (pids[i] == 0) _exit(add_everywhere(d.socket, &added[i]));
  }
}

static bool any_runs(pid_t pids[CLIENTS]) {
  bool running = false;
  for (int i = 0; i < CLIENTS; i++) {
    int status;
    if (pids[i] && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
      cr_assert_eq(status, 0);
      pids[i] = 0;
    }
    running = running || pids[i];
  }
  return running;
}

static void check_sums(void) {
  char sum[32];
  int n = snprintf(sum, sizeof sum, "%d", CLIENTS * ADDS);
  for (int i = 0; i < SHARDS; i++) {
    cr_assert_eq(shmqd_ask(client, on_shard('k', i), SHMQ_KV_GET, 0, 0, "sum", 3, 100, &r), 0);
    cr_assert(r.size == (size_t)n && memcmp(r.data, sum, r.size) == 0, "%.*s", (int)r.size,
              (char *)r.data);
  }
}

static void configure(int turn) {
  char path[128];
  snprintf(path, sizeof path, "%s/shmqd.conf", d.dir);
  FILE *file = fopen(path, "a");
  cr_assert(file);
  fprintf(file, "[pool:new%d]\ncount = 1\nallow = all rw\n[daemon]\nspin = %dus\n", turn, turn);
  cr_assert_eq(fclose(file), 0);
}

Test(daemon_shards, a_reload_finds_all_of_them_between_two_requests)
{
  pid_t pids[CLIENTS];
  int turn = 0;
  start_adding(pids);
  while (any_runs(pids)) {
    char name[16];
    int number = -ENOENT;
    snprintf(name, sizeof name, "new%d", ++turn);
    configure(turn);
    while (number < 0) {
      kill(d.pid, SIGHUP); /* again: one that comes while the last is under way is not heard */
      nap_ms(5);
      number = shmq_resource(client, name);
    }
    cr_assert_eq(shmqd_ask(client, number, SHMQ_POOL_TAKE, 0, 0, NULL, 0, 0, &r), 0,
                 "on whichever shard");
  }
  cr_assert_gt(turn, 0);
  check_sums();
}

Test(daemon_shards, nothing_is_lost_or_done_twice_when_the_worker_dies)
{
  enum { KILLS = 5 };
  pid_t pids[CLIENTS];
  int kills = 0, before[CLIENTS] = {0};
  start_adding(pids);
  for (; any_runs(pids); nap_ms(1)) {
    if (kills == KILLS || !all_went_on(added, before, CLIENTS, ADDS * SHARDS / (2 * KILLS))) continue;
    shmqd_kill_worker(&d);
    kills++;
  }
  cr_assert_gt(kills, 0);
  check_sums();
}
