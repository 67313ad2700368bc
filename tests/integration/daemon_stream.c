/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `stream`: Redis as a real peer, and a peer of the test's own that is slow, silent, wrong or gone.
 * TEST_COMMANDS says how many commands the four clients of Redis send together.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "shmq/resource.h"
#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static shmq_result r;
static pid_t redis;
static int lines, silent, lengths, commands;

static const char config[] =
    "[daemon]\nrestart_first = 1ms\n"
    "[stream:lines]\nconnect = unix:%s/lines\npipeline = 4\nretry_first = 10ms\nretry_most = 20ms\n"
    "[stream:silent]\nconnect = unix:%s/silent\ntimeout = 100ms\nretry_first = 10ms\nretry_most = 20ms\n"
    "[stream:lengths]\nconnect = unix:%s/lengths\nframing = length\nframe_bytes = 50000\nretry_first = 10ms\n"
    "retry_most = 20ms\n"
    "[stream:redis]\nconnect = unix:%s/redis\nframing = resp\nretry_first = 10ms\nretry_most = 20ms\n";

static void begin(void) {
  shmqd_new_with(&d, config);
  client = shmqd_client(&d);
  lines = shmq_resource(client, "lines");
  silent = shmq_resource(client, "silent");
  lengths = shmq_resource(client, "lengths");
  commands = shmq_resource(client, "redis");
}
static void end(void) {
  if (redis) stop_server(redis);
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_stream, .init = begin, .fini = end, .timeout = 300);

static int ask(int stream, const void *data, size_t size, uint64_t frames) {
  return shmqd_ask(client, stream, SHMQ_STREAM_ASK, frames, 0, data, size, 60000, &r);
}
static int ask_text(int stream, const char *text) { return ask(stream, text, strlen(text), 1); }
static bool is(const char *text) {
  return r.size == strlen(text) && memcmp(r.data, text, r.size) == 0;
}

static shmq_future *ask_async(int stream, const char *text) {
  struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
  shmq_ask a = {.resource = (uint16_t)stream,
                .op = SHMQ_STREAM_ASK,
                .parts = &part,
                .part_count = 1,
                .room = 1000};
  shmq_future *f = NULL;
  cr_assert_eq(shmq_request(client, &a, SHMQ_FOREVER, &f), 0);
  return f;
}

/* The connection comes when it comes. */
static void wait_until_up(int stream) {
  do {
    nap_ms(1);
    cr_assert_eq(shmqd_ask(client, stream, SHMQ_STREAM_STATUS, 0, 0, NULL, 0, 1000, &r), 0);
  } while (!memmem(r.data, r.size, "state=up", 8));
}

/* ---- a peer of our own: this process accepts the connection and plays it ---- */

static int listen_at(const char *name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", d.dir, name);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  unlink(address.sun_path);
  MUST(bind(fd, (struct sockaddr *)&address, sizeof address));
  MUST(listen(fd, 8));
  return fd;
}

static int accepted(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  cr_assert_geq(fd, 0);
  return fd;
}

/* Read until there are so many newlines. */
static void expect_lines(int fd, int count) {
  char byte;
  while (count) {
    cr_assert_eq(read(fd, &byte, 1), 1);
    count -= byte == '\n';
  }
}

static void say_back(int fd, const char *text) {
  cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

Test(daemon_stream, answers_find_their_requests_in_whatever_pieces_they_come)
{
  int listener = listen_at("lines");
  int fd = accepted(listener);
  shmq_future *f[3] = {ask_async(lines, "one\n"), ask_async(lines, "two\n"), ask_async(lines, "\n")};
  expect_lines(fd, 3);
  for (const char *at = "first\n\nthird\n"; *at; at++) {
    cr_assert_eq(write(fd, at, 1), 1);
    nap_ms(1);
  }
  static const char *const answers[] = {"first\n", "\n", "third\n"};
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(shmq_await(f[i], &r, PATIENCE), 0);
    cr_assert(is(answers[i]));
    shmq_future_free(f[i]);
  }
  cr_assert_eq(ask(lines, "no newline", 10, 1), -EBADMSG);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  cr_assert_eq(ask(lines, "two\nlines\n", 10, 1), -EBADMSG);
  cr_assert_eq(ask(lines, "one\n", 4, 2), -EBADMSG);
  cr_assert_eq(ask(lines, "", 0, 1), -EBADMSG);
  cr_assert_eq(ask(lines, "x\n", 2, 1 << 20), -EINVAL);
  f[0] = ask_async(lines, "still there\n");
  expect_lines(fd, 1);
  say_back(fd, "yes\n");
  cr_assert_eq(shmq_await(f[0], &r, PATIENCE), 0);
  cr_assert(is("yes\n"));
  shmq_future_free(f[0]);
  close(fd);
  close(listener);
}

Test(daemon_stream, what_was_sent_is_unknown_and_what_was_not_is_no)
{
  enum { REQUESTS = 8, PIPELINE = 4 };
  int listener = listen_at("lines"), fd = accepted(listener);
  for (int round = 0; round < 3; round++) {
    shmq_future *f[REQUESTS];
    for (int i = 0; i < REQUESTS; i++) f[i] = ask_async(lines, "please\n");
    expect_lines(fd, PIPELINE);
    say_back(fd, "answer\n");
    expect_lines(fd, 1); /* the next one has its place */
    close(fd);
    for (int i = 0; i < REQUESTS; i++) {
      int rc = shmq_await(f[i], &r, PATIENCE);
      cr_assert_eq(rc == 0, i == 0, "%d: %d", i, rc);
      int executed = i == 0          ? SHMQ_EXECUTED_YES
                     : i <= PIPELINE ? SHMQ_EXECUTED_UNKNOWN
                                     : SHMQ_EXECUTED_NO;
      cr_assert_eq(r.executed, executed, "%d in round %d", i, round);
      shmq_future_free(f[i]);
    }
    fd = accepted(listener);
    wait_until_up(lines);
  }
  close(fd);
  close(listener);
}

Test(daemon_stream, without_a_peer_it_says_no_and_goes_on_trying)
{
  int rc;
  while ((rc = ask_text(lines, "x\n")) != -ENOENT) cr_assert_lt(rc, 0);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  int listener = listen_at("lines"), fd = accepted(listener);
  wait_until_up(lines);
  shmq_future *f = ask_async(lines, "x\n");
  expect_lines(fd, 1);
  say_back(fd, "y\n");
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);
  close(fd);
  close(listener);
}

Test(daemon_stream, a_peer_that_is_silent_or_talks_by_itself_is_left)
{
  char byte;
  int listener = listen_at("silent"), fd = accepted(listener);
  shmq_future *f = ask_async(silent, "x\n");
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -ETIMEDOUT);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  shmq_future_free(f);
  expect_lines(fd, 1);
  cr_assert_eq(read(fd, &byte, 1), 0);
  close(fd);
  fd = accepted(listener);
  say_back(fd, "nobody has asked\n");
  cr_assert_leq(read(fd, &byte, 1), 0);
  close(fd);
  fd = accepted(listener);
  close(fd);
  close(listener);
}

Test(daemon_stream, frames_with_a_length)
{
  static char frame[40004], back[60000];
  int listener = listen_at("lengths"), fd = accepted(listener);
  pid_t echo = fork();
  if (echo == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (ssize_t n; (n = read(fd, back, 777)) > 0;)
      if (write(fd, back, (size_t)n) != n) break;
    _exit(0);
  }
  wait_until_up(lengths);
  for (uint32_t size = 0; size <= 40000; size += 8000) {
    frame[0] = (char)(size >> 24), frame[1] = (char)(size >> 16);
    frame[2] = (char)(size >> 8), frame[3] = (char)size;
    memset(frame + 4, 'a' + (int)(size / 8000), size);
    cr_assert_eq(ask(lengths, frame, size + 4, 1), 0);
    cr_assert_eq(r.size, size + 4);
    cr_assert_eq(memcmp(r.data, frame, r.size), 0);
    cr_assert_eq(ask(lengths, frame, size + 3, 1), -EBADMSG);
  }
  memset(frame, 0xff, 4);
  cr_assert_eq(ask(lengths, frame, 1000, 1), -EMSGSIZE);
  stop_server(echo);
  close(fd);
  close(listener);
}

Test(daemon_stream, a_killed_worker_leaves_no_doubt_about_the_doubt)
{
  int listener = listen_at("lines"), fd = accepted(listener);
  wait_until_up(lines);
  shmq_future *f = ask_async(lines, "x\n");
  expect_lines(fd, 1);
  shmqd_kill_worker(&d);
  int rc = shmq_await(f, &r, PATIENCE);
  cr_assert_eq(rc, -ERESTART, "%d", rc);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  shmq_future_free(f);
  close(fd);
  fd = accepted(listener);
  close(fd);
  close(listener);
}

/* ---- Redis ---- */

static void start_redis(void) {
  char path[128];
  if (system("command -v redis-server >/dev/null")) cr_skip_test("redis-server is not installed");
  snprintf(path, sizeof path, "%s/redis", d.dir);
  redis = fork();
  if (redis == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--save", "",
           "--appendonly", "no", "--logfile", "/dev/null", "--dir", d.dir, (char *)NULL);
    _exit(127);
  }
  wait_until_up(commands);
}

/* One of four: ECHO with words of its own, several at a time; each answer is its word. */
static void echo_many(int name, int count) {
  enum { DEPTH = 32 };
  shmq_client *c = shmqd_client(&d);
  shmq_future *f[DEPTH] = {NULL};
  shmq_result mine;
  char command[80], word[32], expected[64];
  for (int i = 0; i < count + DEPTH; i++) {
    shmq_future **at = &f[i % DEPTH];
    if (*at) {
      MUST(shmq_await(*at, &mine, PATIENCE));
      int n = snprintf(word, sizeof word, "%d-%d", name, i - DEPTH);
      int size = snprintf(expected, sizeof expected, "$%d\r\n%s\r\n", n, word);
      if (mine.size != (size_t)size || memcmp(mine.data, expected, mine.size) != 0) _exit(1);
    }
    shmq_future_free(*at);
    *at = NULL;
    if (i >= count) continue;
    int n = snprintf(word, sizeof word, "%d-%d", name, i);
    int size = snprintf(command, sizeof command, "*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n", n, word);
    struct iovec part = {command, (size_t)size};
    shmq_ask a = {.resource = (uint16_t)commands,
                  .op = SHMQ_STREAM_ASK,
                  .parts = &part,
                  .part_count = 1,
                  .room = 0};
    MUST(shmq_request(c, &a, PATIENCE, at));
  }
  shmq_client_close(c);
  _exit(0);
}

Test(daemon_stream, redis_answers_each_client_its_own)
{
  enum { CLIENTS = 4 };
  const char *wanted = getenv("TEST_COMMANDS");
  int count = wanted ? atoi(wanted) : 20000;
  pid_t pids[CLIENTS];
  start_redis();
  for (int c = 0; c < CLIENTS; c++) {
    pids[c] = fork();
    if (pids[c]) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    echo_many(c, count / CLIENTS);
  }
  for (int c = 0; c < CLIENTS; c++) {
    int status;
    waitpid(pids[c], &status, 0);
    cr_assert_eq(status, 0);
  }
  cr_assert_eq(shmqd_ask(client, commands, SHMQ_STREAM_STATUS, 0, 0, NULL, 0, 1000, &r), 0);
  char answered[64];
  int n = snprintf(answered, sizeof answered, "answered=%d\n", count / CLIENTS * CLIENTS);
  cr_assert_not_null(memmem(r.data, r.size, answered, (size_t)n));
}

Test(daemon_stream, redis_values_of_every_kind)
{
  start_redis();
  cr_assert_eq(ask_text(commands, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\n1\r\n\r\n\r\n"), 0);
  cr_assert(is("+OK\r\n"));
  cr_assert_eq(ask_text(commands, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"), 0);
  cr_assert(is("$5\r\n1\r\n\r\n\r\n"));
  cr_assert_eq(ask_text(commands, "*2\r\n$3\r\nGET\r\n$7\r\nnothing\r\n"), 0);
  cr_assert(is("$-1\r\n"));
  cr_assert_eq(ask_text(commands, "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n"), 0);
  cr_assert_eq(((char *)r.data)[0], '-', "an error of Redis is an answer");
  cr_assert_eq(ask_text(commands, "*4\r\n$4\r\nEVAL\r\n$24\r\nreturn {1,{'a',{}},{},2}\r\n$1\r\n0\r\n$0\r\n\r\n"), 0);
  cr_assert(is("*4\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n*0\r\n:2\r\n"));
  const char *transaction = "*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*1\r\n$4\r\nEXEC\r\n";
  cr_assert_eq(ask(commands, transaction, strlen(transaction), 3), 0);
  cr_assert(is("+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"));
  cr_assert_eq(r.value[0], 3);
}

/* A small request, for what is large, many times. */
Test(daemon_stream, an_answer_that_no_block_holds_costs_no_memory)
{
  enum { TIMES = 200 };
  static const char get[] = "*2\r\n$3\r\nGET\r\n$1\r\nl\r\n";
  char gets[TIMES * sizeof get] = "";
  start_redis();
  cr_assert_eq(ask_text(commands, "*4\r\n$8\r\nSETRANGE\r\n$1\r\nl\r\n$6\r\n999999\r\n$1\r\nx\r\n"), 0);
  for (int i = 0; i < TIMES; i++) strcat(gets, get);
  long before = shmqd_most_memory(&d);
  cr_assert_eq(ask(commands, gets, strlen(gets), TIMES), -EMSGSIZE);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_YES);
  cr_assert_lt(shmqd_most_memory(&d) - before, 100 << 10, "of 200 MB");
  cr_assert_eq(ask_text(commands, "*1\r\n$4\r\nPING\r\n"), 0);
  cr_assert(is("+PONG\r\n"));
}

Test(daemon_stream, what_would_harm_the_others_is_refused)
{
  start_redis();
  cr_assert_eq(ask_text(commands, "*1\r\n$5\r\nMULTI\r\n"), -EPERM, "without its EXEC");
  cr_assert_eq(ask_text(commands, "*2\r\n$5\r\nwatch\r\n$1\r\na\r\n"), -EPERM);
  cr_assert_eq(ask_text(commands, "*1\r\n$4\r\nSYNC\r\n"), -EPERM);
  cr_assert_eq(ask_text(commands, "*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n"), -EPERM);
  cr_assert_eq(ask_text(commands, "*1\r\n$7\r\nMONITOR\r\n"), -EPERM);
  cr_assert_eq(ask_text(commands, "PING\r\n"), -EBADMSG);
  cr_assert_eq(ask_text(commands, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n"), -EBADMSG);
  cr_assert_eq(ask_text(commands, "*1\r\n$4\r\nPING"), -EBADMSG);
  cr_assert_eq(ask_text(commands, "*1\r\n$5\r\nPING\r\n"), -EBADMSG);
  cr_assert_eq(ask_text(commands, "*99999999999\r\n"), -EBADMSG);
  cr_assert_eq(ask_text(commands, "$4\r\nPING\r\n"), -EBADMSG);
  cr_assert_eq(ask_text(commands, "*1\r\n$4\r\nPING\r\n"), 0);
  cr_assert(is("+PONG\r\n"), "and none of that was sent");
}
