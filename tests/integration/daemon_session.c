/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions: many of them, their deaths, clients that do not keep to the rules, and the end of the daemon.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "support/shmqd.h"

static struct shmqd d;
static shmq_result r;

static void begin(void) { shmqd_new(&d); }
static void end(void) {
  if (d.pid) cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_session, .init = begin, .fini = end, .timeout = 200);

static int null_call(shmq_client *c) {
  return shmqd_ask(c, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r);
}

/* Of the supervisor and its worker. */
Test(daemon_session, it_runs_on_the_rung_that_was_asked_for)
{
  const char *rung = getenv("TEST_RUNG");
  char line[64];
  if (!rung) return; /* run by hand */
  shmq_client *c = shmqd_client(&d);
  cr_assert_eq(shmqd_ask(c, 0, SHMQ_DAEMON_STATUS, 0, 0, NULL, 0, 256, &r), 0);
  int n = snprintf(line, sizeof line, "io=%s\n", rung);
  cr_assert_eq(strncmp(r.data, line, (size_t)n), 0, "%s: %.30s", line, (const char *)r.data);
  shmq_client_close(c);
}

static int open_descriptors(void) {
  return descriptors_of(d.pid) + descriptors_of(shmqd_worker(&d));
}

/* When it has begun wholly, and has no session. */
static int descriptors_at_rest(void) {
  shmq_client *c = shmqd_client(&d);
  MUST(null_call(c));
  shmq_client_close(c);
  int n = open_descriptors(), same = 0;
  while (same < 100) {
    nap_ms(1);
    int now = open_descriptors();
    same = now == n ? same + 1 : 0;
    n = now;
  }
  return n;
}

/* The daemon notices the end of a session a little later than its client, and may not even have seen its beginning yet. */
static void wait_for_descriptors(int wanted) {
  int now = 0, same = 0;
  for (int i = 0; i < 20000 && same < 50; i++) {
    nap_ms(1);
    now = open_descriptors();
    same = now == wanted ? same + 1 : 0;
  }
  cr_assert_geq(same, 50, "%d and not %d", now, wanted);
}

Test(daemon_session, sessions_come_and_go_and_leave_nothing)
{
  shmq_client *c[50];
  int before = descriptors_at_rest();
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 50; i++) c[i] = shmqd_client(&d);
    for (int i = 0; i < 50; i++) cr_assert_eq(null_call(c[i]), 0);
    for (int i = 0; i < 50; i++) shmq_client_close(c[i]);
  }
  wait_for_descriptors(before);
}

static void die_in_the_middle(void) {
  shmq_client *c = shmqd_client(&d);
  int log_number = shmq_resource(c, "log");
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_APPEND, .value = {SHMQ_LOG_ACK_DISK, 0}};
  shmq_future *f;
  for (int i = 0; i < 20; i++) MUST(shmq_request(c, &a, PATIENCE, &f));
  raise(SIGKILL);
}

Test(daemon_session, clients_that_die_are_forgotten)
{
  int before = descriptors_at_rest();
  for (int i = 0; i < 20; i++) {
    pid_t pid = fork();
    if (pid == 0) die_in_the_middle();
    waitpid(pid, NULL, 0);
  }
  wait_for_descriptors(before);
  shmq_client *c = shmqd_client(&d);
  cr_assert_eq(null_call(c), 0);
  shmq_client_close(c);
}

static int raw_connect(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, d.socket);
  int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  MUST(connect(s, (struct sockaddr *)&address, sizeof address));
  return s;
}

/* However the refusal and the greeting cross each other. */
Test(daemon_session, one_too_many_is_told_so, .init = NULL)
{
  shmqd_new_with(&d, "[daemon]\nmax_sessions = 1\n");
  shmq_client *c = shmqd_client(&d), *refused;
  for (int i = 0; i < 500; i++)
    cr_assert_eq(shmq_client_connect(&refused, d.socket, NULL, 0), -EUSERS);
  MUST(null_call(c));
  shmq_client_close(c);
}

/* It may have `more` descriptors than it has. */
static void limit_descriptors(pid_t pid, int more) {
  struct rlimit limit;
  char path[64];
  MUST(prlimit(pid, RLIMIT_NOFILE, NULL, &limit));
  for (limit.rlim_cur = 0; more >= 0; limit.rlim_cur++) {
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, (int)limit.rlim_cur);
    if (faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW)) more--;
  }
  limit.rlim_cur--;
  MUST(prlimit(pid, RLIMIT_NOFILE, &limit, NULL));
}

/* In the end somebody is told; nobody waits in the listener's queue. */
Test(daemon_session, a_supervisor_without_descriptors_turns_clients_away)
{
  enum { MORE = 5 };
  int sockets[2 * MORE];
  shmq_hello hello = {0};
  (void)descriptors_at_rest();
  limit_descriptors(d.pid, MORE);
  for (int i = 0; i < 2 * MORE; i++) {
    sockets[i] = raw_connect();
    MUST(setsockopt(sockets[i], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){60, 0}, sizeof(struct timeval)));
  }
  for (int i = MORE; i < 2 * MORE; i++) {
    cr_assert_eq(recv(sockets[i], &hello, sizeof hello, 0), (ssize_t)sizeof hello);
    cr_assert_eq(hello.status, -EMFILE);
  }
  for (int i = 0; i < 2 * MORE; i++) close(sockets[i]);
  shmq_client *c;
  int rc;
  while ((rc = shmq_client_connect(&c, d.socket, NULL, 0)) == -EMFILE) nap_ms(1);
  cr_assert_eq(rc, 0, "there is room again");
  cr_assert_eq(null_call(c), 0);
  shmq_client_close(c);
}

Test(daemon_session, a_session_that_the_worker_cannot_take_ends)
{
  struct rlimit before;
  (void)descriptors_at_rest();
  pid_t worker = shmqd_worker(&d);
  MUST(prlimit(worker, RLIMIT_NOFILE, NULL, &before));
  for (int more = 0; more < 4; more++) {
    shmq_client *c;
    limit_descriptors(worker, more);
    MUST(shmq_client_connect(&c, d.socket, NULL, 0));
    cr_assert_eq(null_call(c), -EOWNERDEAD, "%d more", more);
    shmq_client_close(c);
  }
  MUST(prlimit(worker, RLIMIT_NOFILE, &before, NULL));
  shmq_client *c = shmqd_client(&d);
  cr_assert_eq(null_call(c), 0);
  shmq_client_close(c);
  cr_assert_eq(shmqd_worker(&d), worker, "it lives");
}

Test(daemon_session, a_greeting_that_makes_no_sense_ends_the_connection)
{
  int before = descriptors_at_rest();
  char junk[300];
  memset(junk, 0x5a, sizeof junk);
  for (size_t n = 0; n <= sizeof junk; n += 20) {
    int s = raw_connect();
    if (n) cr_assert_eq(send(s, junk, n, MSG_NOSIGNAL), (ssize_t)n);
    if (n) cr_assert_leq(recv(s, junk, sizeof junk, 0), 0);
    close(s);
  }
  shmq_hello hello = {
      .magic = SHMQ_HELLO_MAGIC,
      .options = {.credits = UINT32_MAX, .blocks = UINT32_MAX, .block_bytes = UINT32_MAX}};
  int s = raw_connect();
  cr_assert_eq(send(s, &hello, sizeof hello, MSG_NOSIGNAL), (ssize_t)sizeof hello);
  cr_assert_eq(recv(s, &hello, sizeof hello, 0), (ssize_t)sizeof hello, "it grants what it has");
  close(s);
  wait_for_descriptors(before);
}

/* The queue's rules are kept and the request's are not. */
static void send_header(shmq_client *c, const shmq_request_header *h, size_t size) {
  shmq *requests;
  shmq_message m;
  MUST(shmq_open_in(&requests, shmq_client_segment(c), "requests.always", 0));
  if (shmq_reserve(requests, size, &m, SHMQ_NOWAIT) == 0) {
    memset(m.data, 0, size);
    memcpy(m.data, h, size < sizeof *h ? size : sizeof *h);
    shmq_commit(requests, &m);
  }
  shmq_close(requests);
}

Test(daemon_session, a_malformed_request_ends_its_session_and_no_other)
{
  const shmq_request_header good = {.magic = SHMQ_RPC_MAGIC,
                                    .kind = SHMQ_RPC_REQUEST,
                                    .deadline_ns = SHMQ_FOREVER,
                                    .data_offset = 64};
  shmq_client *bystander = shmqd_client(&d);
  for (int i = 0; i < 8; i++) {
    shmq_request_header h = good;
    size_t size = 128;
    switch (i) {
    case 0: h.magic++; break;
    case 1: h.kind = SHMQ_RPC_REPLY; break;
    case 2: h.data_offset = 63; break;
    case 3: h.data_offset = 129; break;
    case 4: h.data_bytes = 65; break;
    case 5: h.data_offset = UINT32_MAX, h.data_bytes = 2; break;
    case 6: h.slot = 1; break;
    case 7: size = 63; break;
    }
    shmq_client *c = shmqd_client(&d);
    cr_assert_eq(null_call(c), 0);
    send_header(c, &h, size);
    shmq_ask a = {0};
    cr_assert_eq(shmq_call(c, &a, &r, PATIENCE), -EOWNERDEAD, "case %d", i);
    shmq_client_close(c);
    cr_assert_eq(null_call(bystander), 0);
  }
  shmq_client_close(bystander);
}

Test(daemon_session, random_headers_do_no_harm)
{
  unsigned seed = 1;
  shmq_client *bystander = shmqd_client(&d);
  for (int i = 0; i < 30; i++) {
    shmq_client *c = shmqd_client(&d);
    for (int k = 0; k < 50; k++) {
      shmq_request_header h = {.magic = SHMQ_RPC_MAGIC,
                               .kind = SHMQ_RPC_REQUEST,
                               .id = (uint64_t)rand_r(&seed),
                               .resource = (uint16_t)(rand_r(&seed) % 4),
                               .op = (uint16_t)(rand_r(&seed) % 14),
                               .flags = (uint16_t)(rand_r(&seed) % 4),
                               .asker = (uint32_t)rand_r(&seed) % 8,
                               .generation = (uint32_t)rand_r(&seed) % 3,
                               .deadline_ns = rand_r(&seed) % 2 ? SHMQ_FOREVER : rand_r(&seed),
                               .data_offset = 64,
                               .data_bytes = (uint32_t)rand_r(&seed) % 65,
                               .value = {(uint64_t)rand_r(&seed) << (rand_r(&seed) % 34),
                                         (uint64_t)rand_r(&seed) << (rand_r(&seed) % 34)}};
      shmq_participant(shmq_client_segment(c), &h.generation);
      h.asker = (uint32_t)shmq_participant(shmq_client_segment(c), &h.generation);
      send_header(c, &h, 128 + (size_t)rand_r(&seed) % 60000);
    }
    nap_ms(2);
    shmq_client_close(c);
    cr_assert_eq(null_call(bystander), 0);
  }
  shmq_client_close(bystander);
}

/* Scribble over the shared memory itself. */
static void scribble(unsigned seed) {
  shmq_client *c = shmqd_client(&d);
  char line[256];
  FILE *maps = fopen("/proc/self/maps", "r");
  unsigned long begin = 0, stop = 0;
  while (fgets(line, sizeof line, maps))
    if (strstr(line, "memfd:") && strstr(line, "rw-s")) sscanf(line, "%lx-%lx", &begin, &stop);
  fclose(maps);
  if (!begin) abort();
  for (int i = 0; i < 20000; i++) {
    shmq_request_header h = {.magic = SHMQ_RPC_MAGIC,
                             .kind = SHMQ_RPC_REQUEST,
                             .deadline_ns = SHMQ_FOREVER,
                             .data_offset = 64};
    size_t at = (size_t)rand_r(&seed) % (stop - begin - 8);
    if (rand_r(&seed) % 2) at %= 32768;
    memcpy((char *)begin + at, &(uint64_t){(uint64_t)rand_r(&seed) << (rand_r(&seed) % 33)}, 8);
    if (i % 100 == 0) send_header(c, &h, 64);
  }
  _exit(0);
}

/* The bystander's memory must not be in the scribbler: it connects afterwards. */
Test(daemon_session, a_client_that_scribbles_over_its_memory_hurts_itself)
{
  int before = descriptors_at_rest();
  for (unsigned i = 0; i < 20; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      alarm(20);
      if (!freopen("/dev/null", "w", stderr)) abort();
      scribble(i + 1);
    }
    waitpid(pid, NULL, 0);
    shmq_client *bystander = shmqd_client(&d);
    cr_assert_eq(null_call(bystander), 0, "after %u", i);
    shmq_client_close(bystander);
  }
  wait_for_descriptors(before);
}

Test(daemon_session, terminating_it_answers_what_was_asked)
{
  shmq_client *c = shmqd_client(&d);
  int log_number = shmq_resource(c, "log");
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_APPEND, .value = {SHMQ_LOG_ACK_DISK, 0}};
  shmq_future *f[20];
  for (int i = 0; i < 20; i++) cr_assert_eq(shmq_request(c, &a, PATIENCE, &f[i]), 0);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  d.pid = 0;
  for (int i = 0; i < 20; i++) {
    cr_assert_eq(shmq_await(f[i], &r, PATIENCE), 0, "number %d", i);
    shmq_future_free(f[i]);
  }
  int rc = shmq_call(c, &a, &r, PATIENCE);
  cr_assert(rc == -EPIPE || rc == -EOWNERDEAD, "%d", rc);
  shmq_client_close(c);
  shmq_client *none;
  cr_assert_eq(shmq_client_connect(&none, d.socket, NULL, 0), -ENOENT);
}

Test(daemon_session, killing_it_is_told_at_once)
{
  shmq_client *c = shmqd_client(&d);
  int log_number = shmq_resource(c, "log");
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_FOLLOW, .value = {1, 0}, .room = 100};
  shmq_future *f;
  cr_assert_eq(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
  cr_assert_eq(shmq_await(f, &r, shmq_after_ns(20 * MILLISECOND)), -EAGAIN);
  cr_assert_eq(shmqd_stop(&d, SIGKILL), -SIGKILL);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -EOWNERDEAD);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  shmq_future_free(f);
  shmq_client_close(c);
  shmqd_start(&d);
  c = shmqd_client(&d);
  cr_assert_eq(null_call(c), 0);
  shmq_client_close(c);
}

/* Every credit is out with it, and nobody takes what fills the queue. */
Test(daemon_session, who_would_wait_for_room_is_told_too)
{
  shmq_client *c = shmqd_client(&d);
  shmq_ask a = {.resource = (uint16_t)shmq_resource(c, "log"), .op = SHMQ_LOG_FOLLOW, .value = {1, 0}};
  shmq_future *f;
  for (uint32_t i = 0; i < shmq_client_credits(c); i++)
    cr_assert_eq(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
  shmqd_kill_all(&d);
  cr_assert_eq(shmq_request(c, &a, PATIENCE, &f), -EOWNERDEAD);
  int rc;
  while ((rc = shmq_cast(c, &a, SHMQ_NOWAIT)) == 0) continue;
  cr_assert_eq(rc, -EAGAIN);
  cr_assert_eq(shmq_cast(c, &a, PATIENCE), -EOWNERDEAD);
  shmq_client_close(c);
  shmqd_start(&d);
}

/* Nothing was asked that could be settled. */
Test(daemon_session, who_only_casts_is_told_where_there_is_no_room)
{
  shmq_client *c = shmqd_client(&d);
  shmq_ask a = {.op = SHMQ_DAEMON_NULL};
  int rc;
  shmqd_kill_all(&d);
  while ((rc = shmq_cast(c, &a, SHMQ_NOWAIT)) == 0) continue;
  cr_assert_eq(rc, -EAGAIN);
  cr_assert_eq(shmq_cast(c, &a, PATIENCE), -EOWNERDEAD);
  shmq_client_close(c);
  shmqd_start(&d);
}

Test(daemon_session, one_directory_has_one_daemon)
{
  char program[512];
  snprintf(program, sizeof program, "%s/daemon/shmqd", getenv("SHMQ_BUILD_DIR"));
  pid_t pid = fork();
  if (pid == 0) {
    if (!freopen("/dev/null", "w", stderr)) abort();
    execl(program, "shmqd", "--config", "/dev/null", "--dir", d.dir, (char *)NULL);
    _exit(127);
  }
  int status;
  waitpid(pid, &status, 0);
  cr_assert_eq(WEXITSTATUS(status), 1);
}
