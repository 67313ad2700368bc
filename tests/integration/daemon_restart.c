/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker that dies, as its clients see it: sessions go on, and what they are told of their requests is true.
 */
#include <criterion/criterion.h>
#include <dirent.h>

#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *c;
static shmq_result r;
static int tree, log_number;

static const char settings[] =
    "[daemon]\nrestart_first=10ms\nrestart_most=20ms\nrestart_failures=0\n";

static void begin(void) {
  shmqd_new_with(&d, settings);
  c = shmqd_client(&d);
  tree = shmq_resource(c, "tree");
  log_number = shmq_resource(c, "log");
}
static void end(void) {
  shmq_client_close(c);
  if (d.pid) cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_restart, .init = begin, .fini = end, .timeout = 200);

static int ask_dir(uint16_t op, uint64_t v0, uint64_t v1, const char *text, size_t room) {
  return shmqd_ask(c, tree, op, v0, v1, text, strlen(text), room, &r);
}

static pid_t stop_worker(void) {
  pid_t pid = shmqd_worker(&d);
  cr_assert_gt(pid, 0);
  kill(pid, SIGSTOP);
  return pid;
}

static void kill_worker(void) {
  pid_t old;
  while (!(old = shmqd_worker(&d))) nap_ms(1);
  kill(old, SIGKILL);
  while (shmqd_worker(&d) == old) nap_ms(1);
}

static shmq_future *request(uint16_t resource, uint16_t op, uint64_t v0, const char *text,
                            size_t room) {
  struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
  shmq_ask a = {.resource = resource,
                .op = op,
                .value = {v0, 0755},
                .parts = &part,
                .part_count = 1,
                .room = room};
  shmq_future *f;
  cr_assert_eq(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
  return f;
}

Test(daemon_restart, what_no_worker_has_taken_is_done_by_the_next)
{
  stop_worker();
  shmq_future *f = request((uint16_t)tree, SHMQ_DIR_MKDIR, 0, "new", 0);
  kill_worker();
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  cr_assert_eq(ask_dir(SHMQ_DIR_UNLINK, 1, 0, "new", 0), 0, "it was made, once");
}

Test(daemon_restart, who_follows_a_log_does_not_notice)
{
  shmq_future *f = request((uint16_t)log_number, SHMQ_LOG_FOLLOW, 1, "", 200);
  cr_assert_eq(shmq_await(f, &r, shmq_after_ns(50 * MILLISECOND)), -EAGAIN,
               "it is taken, and waits");
  kill_worker();
  cr_assert_eq(shmqd_ask(c, log_number, SHMQ_LOG_APPEND, SHMQ_LOG_ACK_DISK, 0, "x", 1, 0, &r), 0);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  cr_assert_eq(r.size, sizeof(shmq_log_entry) + 8);
  shmq_future_free(f);
}

Test(daemon_restart, a_handle_dies_with_its_worker_and_says_so)
{
  cr_assert_eq(ask_dir(SHMQ_DIR_OPEN, SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE, 0600, "file", 0), 0);
  uint64_t handle = r.value[0];
  cr_assert_eq(ask_dir(SHMQ_DIR_WRITE, handle, 0, "before", 0), 0);
  kill_worker();
  cr_assert_eq(ask_dir(SHMQ_DIR_WRITE, handle, 0, "after", 0), -ESTALE);
  cr_assert_eq(r.error_class, SHMQ_CLASS_RESTARTED);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  cr_assert_eq(ask_dir(SHMQ_DIR_READ, handle, 0, "", 100), -ESTALE);
  cr_assert_eq(ask_dir(SHMQ_DIR_CLOSE, handle, 0, "", 0), 0, "that it is");
  cr_assert_eq(ask_dir(SHMQ_DIR_OPEN, 0, 0, "file", 0), 0);
  cr_assert_neq(r.value[0], handle, "the number does not come again");
  cr_assert_eq(ask_dir(SHMQ_DIR_READ, r.value[0], 0, "", 100), 0);
  cr_assert_eq(r.size, 6);
  cr_assert_eq(memcmp(r.data, "before", 6), 0);
  cr_assert_eq(ask_dir(SHMQ_DIR_READ, handle ^ 1, 0, "", 100), -ESTALE);
}

static int null(void) { return shmqd_ask(c, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r); }

static uint32_t told_epoch(void) {
  unsigned epoch = 0;
  cr_assert_eq(shmqd_ask(c, 0, SHMQ_DAEMON_STATUS, 0, 0, NULL, 0, 0, &r), 0);
  const char *line = memmem(r.data, r.size, "\nepoch=", 7);
  cr_assert(line && sscanf(line, "\nepoch=%u\n", &epoch) == 1);
  return epoch;
}

Test(daemon_restart, the_epoch_counts_workers_and_only_grows)
{
  cr_assert_eq(shmq_client_epoch(c), 1);
  shmq_future *waits = request((uint16_t)log_number, SHMQ_LOG_FOLLOW, 1, "", 200);
  for (uint32_t epoch = 2; epoch < 4; epoch++) {
    kill_worker();
    cr_assert_eq(shmq_client_epoch(c), epoch - 1, "nobody has told");
    cr_assert_eq(null(), 0);
    cr_assert_eq(r.epoch, epoch);
    cr_assert_eq(shmq_client_epoch(c), epoch);
    cr_assert_eq(told_epoch(), epoch);
  }
  shmq_client *late = shmqd_client(&d);
  cr_assert_eq(shmq_client_epoch(late), 3, "as it connects");
  shmq_client_close(late);
  cr_assert_eq(shmqd_ask(c, log_number, SHMQ_LOG_APPEND, 0, 0, "x", 1, 0, &r), 0);
  cr_assert_eq(shmq_await(waits, &r, PATIENCE), 0);
  cr_assert_eq(r.epoch, 3, "who answers, not who was asked");
  shmq_future_free(waits);
}

Test(daemon_restart, the_epoch_goes_on_over_a_new_daemon)
{
  kill_worker();
  cr_assert_eq(null(), 0);
  cr_assert_eq(shmq_client_epoch(c), 2);
  shmq_client_close(c);
  shmqd_kill_all(&d);
  shmqd_start(&d);
  c = shmqd_client(&d);
  cr_assert_eq(shmq_client_epoch(c), 3);
}

/* Rename back and forth, killing the worker at some moment of each. */
Test(daemon_restart, a_rename_is_told_as_it_was)
{
  char path[160];
  int at = 0, told[3] = {0};
  snprintf(path, sizeof path, "%s/tree/b", d.dir);
  cr_assert_eq(ask_dir(SHMQ_DIR_OPEN, SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE, 0600, "a", 0), 0);
  for (int n = 0; n < 24; n++) {
    const char names[] = {(char)('a' + at), 0, (char)('a' + !at)};
    struct iovec part = {(void *)(uintptr_t)names, sizeof names};
    shmq_ask a = {
        .resource = (uint16_t)tree, .op = SHMQ_DIR_RENAME, .parts = &part, .part_count = 1};
    shmq_future *f;
    cr_assert_eq(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
    for (int spin = 0; spin < n * 2000; spin++) __asm__ volatile("");
    kill_worker();
    int rc = shmq_await(f, &r, PATIENCE);
    int now = access(path, F_OK) == 0; /* we are the only one, and have been answered */
    told[r.executed]++;
    if (r.executed == SHMQ_EXECUTED_YES) cr_assert(rc == 0 && now == !at, "%d: %d", n, rc);
    if (r.executed == SHMQ_EXECUTED_NO) cr_assert(rc < 0 && now == at, "%d: %d", n, rc);
    if (r.executed == SHMQ_EXECUTED_UNKNOWN) cr_assert_eq(rc, -ERESTART, "%d: %d", n, rc);
    shmq_future_free(f);
    at = now;
  }
  cr_assert_gt(told[SHMQ_EXECUTED_YES], 0);
}

static bool has_temporaries(void) {
  char path[96];
  bool found = false;
  snprintf(path, sizeof path, "%s/tree", d.dir);
  DIR *dir = opendir(path);
  for (struct dirent *e; (e = readdir(dir));) found = found || strncmp(e->d_name, ".shmqd", 6) == 0;
  closedir(dir);
  return found;
}

Test(daemon_restart, a_put_is_whole_and_leaves_nothing_behind)
{
  char data[4 + 20000];
  memcpy(data, "file", 4);
  for (int n = 0; n < 16; n++) {
    memset(data + 4, 'a' + n % 26, sizeof data - 4);
    struct iovec part = {data, sizeof data};
    shmq_ask a = {.resource = (uint16_t)tree,
                  .op = SHMQ_DIR_PUT,
                  .value = {4, 0600},
                  .parts = &part,
                  .part_count = 1};
    shmq_future *f;
    cr_assert_eq(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
    if (n % 2) nap_ms(n % 5);
    kill_worker();
    cr_assert_eq(shmq_await(f, &r, PATIENCE), 0, "%d: %s", n, shmq_strerror(r.status));
    shmq_future_free(f);
    cr_assert_eq(ask_dir(SHMQ_DIR_GET, 0, 0, "file", 30000), 0);
    cr_assert_eq(r.size, sizeof data - 4);
    for (size_t i = 0; i < r.size; i++) cr_assert_eq(((char *)r.data)[i], 'a' + n % 26);
  }
  cr_assert_not(has_temporaries());
}

/* Whoever waits for the daemon waits a little longer. */
Test(daemon_restart, a_worker_that_is_killed_before_it_is_ready_is_replaced)
{
  for (int i = 0; i < 10; i++) {
    char ready_fd[16], byte;
    int ready[2];
    shmqd_stop(&d, SIGTERM);
    MUST(pipe(ready));
    snprintf(ready_fd, sizeof ready_fd, "%d", ready[1]);
    d.pid = fork();
    if (d.pid == 0) shmqd_exec(&d, ready_fd);
    close(ready[1]);
    shmqd_kill_worker(&d);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
  }
}

Test(daemon_restart, a_worker_that_dies_too_often_ends_the_daemon)
{
  end();
  shmqd_new_with(&d, "[daemon]\nrestart_first=1ms\nrestart_most=1ms\n");
  c = shmqd_client(&d);
  /* It waits, so no worker that lives for a while between two kills answers it. */
  shmq_future *f = request((uint16_t)shmq_resource(c, "log"), SHMQ_LOG_FOLLOW, 1, "", 200);
  for (int n = 0; n < 5; n++) kill_worker(); /* and no more: what else it starts is not a worker */
  int status;
  waitpid(d.pid, &status, 0);
  d.pid = 0;
  cr_assert_eq(WEXITSTATUS(status), 1);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -EOWNERDEAD);
  shmq_future_free(f);
}
