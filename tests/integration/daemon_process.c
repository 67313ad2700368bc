/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `process`: bc and the sqlite3 shell as real peers, and shells that die, hang and say too much.
 */
#include <criterion/criterion.h>

#include <sys/resource.h>

#include "shmq/resource.h"
#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static shmq_result r;

enum { FILES = 300 };

#define QUICK "retry_first = 1ms\nretry_most = 2ms\n"
static const char config[] =
    "[daemon]\nrestart_first = 1ms\n"
    "[process:bc]\ncommand = bc -q\ncount = 3\n" QUICK
    "[process:sql]\ncommand = sqlite3 -batch %s/data.db\nframing = marker\nmarker = end-of-answer-%n\n"
    "marker_command = .print end-of-answer-%n\n" QUICK
    "[process:cat]\ncommand = cat\nframing = length\n" QUICK
    "[process:shell]\ncommand = sh -c 'while read -r line; do eval \"$line\"; done'\n" QUICK
    "[process:hanging]\ncommand = sh -c 'while read -r line; do eval \"$line\"; done'\ntimeout = 2s\n" QUICK
    "[process:limited]\ncommand = sh -c 'while read -r line; do eval \"$line\"; done'\nlimit_memory = 100M\ntimeout = 200s\n"
    "limit_cpu = 1s\nlimit_files = 20\nlimit_file_bytes = 64K\n" QUICK
    "[process:hasty]\ncommand = sh -c 'head -c 1 >/dev/null; echo early; exec sleep 1000'\n" QUICK
    "[process:absent]\ncommand = /nowhere/to/be/found\n" QUICK;

static void begin(void) {
  if (system("command -v bc sqlite3 >/dev/null")) cr_skip_test("bc or sqlite3 is not installed");
  struct rlimit files;
  MUST(getrlimit(RLIMIT_NOFILE, &files));
  files.rlim_cur = FILES; /* and the daemon takes what it can get */
  MUST(setrlimit(RLIMIT_NOFILE, &files));
  shmqd_new_with(&d, config);
  client = shmqd_client(&d);
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_process, .init = begin, .fini = end, .timeout = 200);

static int ask_frames(const char *name, const void *data, size_t size, uint64_t frames) {
  return shmqd_ask(client, shmq_resource(client, name), SHMQ_PROCESS_ASK, frames, 0, data, size,
                   60000, &r);
}
static int ask(const char *name, const char *text) {
  return ask_frames(name, text, strlen(text), 1);
}
static bool is(const char *text) {
  return r.size == strlen(text) && memcmp(r.data, text, r.size) == 0;
}

static shmq_future *ask_async(shmq_client *c, const char *name, const char *text) {
  struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
  shmq_ask a = {.resource = (uint16_t)shmq_resource(client, name),
                .op = SHMQ_PROCESS_ASK,
                .parts = &part,
                .part_count = 1,
                .room = 1000};
  shmq_future *f = NULL;
  cr_assert_eq(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
  return f;
}

/* How many different children have answered, this one included. */
static int count_children(uint64_t pids[3], uint64_t pid) {
  int k = 0;
  while (k < 3 && pids[k] && pids[k] != pid) k++;
  cr_assert_lt(k, 3, "a fourth child");
  pids[k] = pid;
  for (k = 0; k < 3 && pids[k];) k++;
  return k;
}

/* Requests that take a while, until the third child has to take one. */
static void all_take_part(uint64_t pids[3]) {
  for (int children = 0; children < 3;) {
    shmq_future *f[3];
    for (int i = 0; i < 3; i++) f[i] = ask_async(client, "bc", "x = 3 ^ 20000; 1\n");
    for (int i = 0; i < 3; i++) {
      cr_assert_eq(shmq_await(f[i], &r, PATIENCE), 0);
      children = count_children(pids, r.value[1]);
      shmq_future_free(f[i]);
    }
  }
}

Test(daemon_process, bc_calculates_for_many)
{
  enum { REQUESTS = 300, DEPTH = 6 }; /* a session has eight blocks */
  shmq_future *f[DEPTH] = {NULL};
  uint64_t pids[3] = {0};
  for (int i = 0; i < REQUESTS + DEPTH; i++) {
    char text[64];
    if (f[i % DEPTH]) {
      int n = i - DEPTH;
      cr_assert_eq(shmq_await(f[i % DEPTH], &r, PATIENCE), 0);
      snprintf(text, sizeof text, "%d\n", n * n + 1);
      cr_assert(is(text));
      (void)count_children(pids, r.value[1]);
    }
    shmq_future_free(f[i % DEPTH]);
    f[i % DEPTH] = NULL;
    if (i >= REQUESTS) continue;
    snprintf(text, sizeof text, "%d * %d + 1\n", i, i);
    f[i % DEPTH] = ask_async(client, "bc", text);
  }
  all_take_part(pids);
  cr_assert_eq(ask_frames("bc", "1\n2\n", 4, 2), 0);
  cr_assert(is("1\n2\n"));
  cr_assert_eq(ask("bc", "1+1"), -EBADMSG);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  cr_assert_eq(ask("bc", "1\n2\n"), -EBADMSG);
}

Test(daemon_process, sqlite_answers_with_as_many_lines_as_it_has)
{
  cr_assert_eq(ask("sql", "CREATE TABLE t(a, b);\n"), 0);
  cr_assert_eq(r.size, 0);
  cr_assert_eq(ask("sql", "INSERT INTO t VALUES (1, 'one'), (2, 'two');\n"), 0);
  cr_assert_eq(ask("sql", "SELECT * FROM t\nORDER BY a DESC;\n"), 0);
  cr_assert(is("2|two\n1|one\n"));
  cr_assert_eq(r.value[0], 2);
  cr_assert_eq(ask("sql", "SELECT 'end-of-answer-1';\n"), 0);
  cr_assert(is("end-of-answer-1\n"), "another request's marker is none");
  cr_assert_eq(ask("sql", "SELECT 1"), -EBADMSG);
}

Test(daemon_process, frames_with_a_length)
{
  static char frame[50004];
  for (uint32_t size = 0; size <= 50000; size += 10000) {
    frame[0] = (char)(size >> 24), frame[1] = (char)(size >> 16);
    frame[2] = (char)(size >> 8), frame[3] = (char)size;
    memset(frame + 4, 'a' + (int)(size / 10000), size);
    cr_assert_eq(ask_frames("cat", frame, size + 4, 1), 0);
    cr_assert_eq(r.size, size + 4);
    cr_assert_eq(memcmp(r.data, frame, r.size), 0);
  }
}

Test(daemon_process, a_request_whose_child_died_is_unknown_and_the_next_has_another)
{
  cr_assert_eq(ask("shell", "echo $$\n"), 0);
  uint64_t pid = r.value[1];
  for (int i = 0; i < 3; i++) {
    int rc = ask("shell", i == 0 ? "exit 3\n" : i == 1 ? "kill -9 $$\n" : "exec >&-; sleep 100\n");
    cr_assert_eq(rc, -ECONNRESET, "%d", rc);
    cr_assert_eq(r.error_class, SHMQ_CLASS_PEER_DIED);
    cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
    cr_assert_eq(ask("shell", "echo $$\n"), 0);
    cr_assert_neq(r.value[1], pid);
    pid = r.value[1];
  }
  cr_assert_eq(ask("shell", "echo last words; exit 0\n"), 0);
  cr_assert(is("last words\n"));
}

static pid_t read_pid(const char *path) {
  FILE *file = fopen(path, "r");
  int pid = 0;
  cr_assert(file && fscanf(file, "%d", &pid) == 1);
  fclose(file);
  return pid;
}

Test(daemon_process, a_child_that_hangs_is_killed_with_all_it_started)
{
  char path[128];
  snprintf(path, sizeof path, "%s/pid", d.dir);
  char text[256];
  snprintf(text, sizeof text, "sleep 1000 & echo $! >%s; wait\n", path);
  cr_assert_eq(ask("hanging", text), -ETIMEDOUT);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  pid_t pid = read_pid(path);
  while (kill(pid, 0) == 0) nap_ms(1); /* the daemon reaps it */
}

Test(daemon_process, one_that_says_more_than_it_was_asked_is_not_trusted)
{
  cr_assert_eq(ask("shell", "printf 'one\\ntwo\\n'\n"), -EBADMSG); /* in one write */
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  cr_assert_eq(ask("shell", "echo fresh\n"), 0);
  cr_assert(is("fresh\n"));
}

/* Or the next request would go behind the rest of this one. */
Test(daemon_process, one_that_answers_before_it_has_read_is_not_trusted)
{
  static char line[300000];
  const shmq_session_options large = {.blocks = 4, .block_bytes = 1 << 20};
  shmq_client *c;
  MUST(shmq_client_connect(&c, d.socket, &large, 0));
  memset(line, 'x', sizeof line);
  line[sizeof line - 1] = '\n';
  int hasty = shmq_resource(c, "hasty");
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(shmqd_ask(c, hasty, SHMQ_PROCESS_ASK, 1, 0, line, sizeof line, 0, &r), -EBADMSG);
    cr_assert_eq(r.error_class, SHMQ_CLASS_PEER_DIED);
    cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  }
  shmq_client_close(c);
}

Test(daemon_process, an_answer_that_no_block_holds_costs_no_memory)
{
  cr_assert_eq(ask("sql", "SELECT 1;\n"), 0);
  long before = shmqd_most_memory(&d);
  cr_assert_eq(ask("sql", "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 150000)\n"
                          "SELECT printf('%01000d', n) FROM t;\n"),
               -EMSGSIZE);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_YES);
  cr_assert_lt(shmqd_most_memory(&d) - before, 100 << 10, "of 150 MB");
  cr_assert_eq(ask("sql", "SELECT 2;\n"), 0);
  cr_assert(is("2\n"));
}

Test(daemon_process, a_program_that_does_not_stay_says_no)
{
  int rc = ask("absent", "x\n");
  cr_assert_eq(rc, -ECONNRESET, "%d", rc);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
}

Test(daemon_process, no_program_gets_more_than_its_limits)
{
  char text[256], files[16];
  snprintf(files, sizeof files, "%d\n", FILES);
  cr_assert_eq(ask("shell", "ulimit -n\n"), 0);
  cr_assert(is(files), "the daemon's own limit is not passed on");
  cr_assert_eq(ask("limited", "ulimit -n\n"), 0);
  cr_assert(is("20\n"));
  cr_assert_eq(ask("limited", "ulimit -n 21 2>/dev/null || echo no\n"), 0);
  cr_assert(is("no\n"));
  cr_assert_eq(ask("limited", "dd if=/dev/zero of=/dev/null bs=150M count=1 2>/dev/null || echo no\n"), 0);
  cr_assert(is("no\n"));
  snprintf(text, sizeof text, "head -c 100000 /dev/zero >%s/large; wc -c <%s/large\n", d.dir, d.dir);
  cr_assert_eq(ask("limited", text), 0);
  cr_assert(is("65536\n"));
  cr_assert_eq(ask("limited", "while :; do :; done\n"), -ECONNRESET);
  cr_assert_eq(shmqd_ask(client, shmq_resource(client, "limited"), SHMQ_PROCESS_STATUS, 0, 0, NULL, 0,
                         1000, &r),
               0);
  snprintf(text, sizeof text, "status=%d\n", SIGXCPU);
  cr_assert(memmem(r.data, r.size, text, strlen(text)));
}

Test(daemon_process, signals_and_status)
{
  int shell = shmq_resource(client, "shell"), bc = shmq_resource(client, "bc");
  cr_assert_eq(ask("shell", "trap 'echo got it' USR1; echo ready\n"), 0);
  shmq_future *f = ask_async(client, "shell", "while :; do sleep 0.01; done\n");
  cr_assert_eq(shmqd_ask(client, shell, SHMQ_PROCESS_SIGNAL, 1, SIGUSR1, NULL, 0, 0, &r), 0);
  cr_assert_eq(r.value[0], 1);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  cr_assert(is("got it\n"));
  shmq_future_free(f);
  do cr_assert_eq(shmqd_ask(client, bc, SHMQ_PROCESS_STATUS, 0, 0, NULL, 0, 1000, &r), 0);
  while (!memmem(r.data, r.size, "1 up", 4) || !memmem(r.data, r.size, "2 up", 4) ||
         !memmem(r.data, r.size, "3 up", 4));
  cr_assert_eq(r.value[0], 3);
  cr_assert_eq(shmqd_ask(client, bc, SHMQ_PROCESS_SIGNAL, 0, SIGKILL, NULL, 0, 0, &r), 0);
  cr_assert_eq(r.value[0], 3);
  do cr_assert_eq(shmqd_ask(client, bc, SHMQ_PROCESS_STATUS, 0, 0, NULL, 0, 1000, &r), 0);
  while (
      memmem(r.data, r.size, "deaths=0", 8)); /* until then a request may go to one that is dead */
  cr_assert_eq(ask("bc", "2^10\n"), 0);
  cr_assert(is("1024\n"));
  cr_assert_eq(shmqd_ask(client, bc, SHMQ_PROCESS_SIGNAL, 4, SIGTERM, NULL, 0, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, bc, SHMQ_PROCESS_SIGNAL, 0, 65, NULL, 0, 0, &r), -EINVAL);
}

static pid_t start_by_shell(const char *text) {
  cr_assert_eq(ask("shell", text), 0);
  cr_assert_gt(r.size, 0);
  return (pid_t)atoi(r.data);
}

/* Each uncovered by the death of the one above. */
Test(daemon_process, nothing_that_was_started_outlives_the_daemon)
{
  char path[128], text[512];
  snprintf(path, sizeof path, "%s/deepest", d.dir);
  snprintf(text, sizeof text,
           "bash -c 'set -m; (set -m; (set -m; sleep 1000 & echo $! >%s; wait) & wait) & wait' >/dev/null 2>&1 & echo begun\n", path);
  cr_assert_eq(ask("shell", text), 0);
  for (struct stat st = {0}; st.st_size == 0; nap_ms(1)) (void)stat(path, &st);
  pid_t deepest = read_pid(path);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  cr_assert(kill(deepest, 0) && errno == ESRCH, "%d lives", (int)deepest);
  shmqd_start(&d);
}

Test(daemon_process, a_killed_worker_takes_its_children_along)
{
  cr_assert_eq(ask("shell", "echo here\n"), 0);
  pid_t pid = (pid_t)r.value[1];
  char path[128];
  snprintf(path, sizeof path, "%s/begun", d.dir);
  char text[256];
  /* In the program's process group, in a group of its own, and with a parent that has gone already. */
  pid_t started[] = {start_by_shell("sleep 1000 >&2 & echo $!\n"),
                     start_by_shell("bash -c 'set -m; sleep 1000 >&2 & echo $!'\n"),
                     start_by_shell("sh -c 'sleep 1000 >&2 & echo $!'\n")};
  snprintf(text, sizeof text, "touch %s; exec sleep 1000\n", path);
  shmq_future *f = ask_async(client, "shell", text);
  while (access(path, F_OK)) nap_ms(1);
  shmqd_kill_worker(&d);
  int rc = shmq_await(f, &r, PATIENCE);
  cr_assert_eq(rc, -ERESTART, "%d", rc);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  shmq_future_free(f);
  cr_assert_eq(ask("shell", "echo again\n"), 0);
  cr_assert_neq((pid_t)r.value[1], pid);
  for (int i = 0; i < 3; i++)
    while (kill(started[i], 0) == 0) nap_ms(1);
}
