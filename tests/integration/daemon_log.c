/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `log`: numbers without gaps, each kind of acknowledgement, keys, segments, and what is there
 * after kill -9 and after a torn tail.
 */
#include <criterion/criterion.h>

#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static int log_number;
static shmq_result r;

static void connect_anew(void) {
  client = shmqd_client(&d);
  log_number = shmq_resource(client, "log");
}
static void begin(void) {
  shmqd_new(&d);
  connect_anew();
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_log, .init = begin, .fini = end, .timeout = 100);

static int append(enum shmq_log_ack ack, const void *data, size_t size) {
  return shmqd_ask(client, log_number, SHMQ_LOG_APPEND, ack, 0, data, size, 0, &r);
}

static int append_keyed(uint64_t position, const char *text) {
  struct {
    shmq_id key;
    char text[64];
  } record = {.key = {.position = position}};
  snprintf(record.text, sizeof record.text, "%s", text);
  return shmqd_ask(client, log_number, SHMQ_LOG_APPEND, SHMQ_LOG_ACK_DISK, SHMQ_LOG_KEYED, &record,
                   sizeof record.key + strlen(text), 0, &r);
}

/* Read all records from `next` on, which are "N" with N their number. Returns the number after the last. */
static uint64_t read_numbers(uint64_t next) {
  while (shmqd_ask(client, log_number, SHMQ_LOG_READ, next, 0, NULL, 0, 60000, &r) == 0)
    for (size_t at = 0; at < r.size; next++) {
      shmq_log_entry e;
      char text[32];
      memcpy(&e, (char *)r.data + at, sizeof e);
      cr_assert_eq(e.number, next);
      int n = snprintf(text, sizeof text, "%llu", (unsigned long long)next);
      cr_assert_geq((int)e.bytes, n);
      cr_assert_eq(memcmp((char *)r.data + at + sizeof e, text, (size_t)n), 0, "record %llu",
                   (unsigned long long)next);
      at += (sizeof e + e.bytes + 7) & ~(size_t)7;
    }
  cr_assert_eq(r.status, -ENODATA);
  return next;
}

static void append_number(enum shmq_log_ack ack, uint64_t number) {
  char text[32];
  int n = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
  cr_assert_eq(append(ack, text, (size_t)n), 0);
  cr_assert_eq(r.value[0], number);
}

static void kill_and_restart(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGKILL), -SIGKILL);
  shmqd_start(&d);
  connect_anew();
}

Test(daemon_log, records_get_numbers_and_can_be_read)
{
  for (uint64_t i = 1; i <= 300; i++) append_number(i % 3, i);
  append_number(SHMQ_LOG_ACK_KERNEL, 301);
  cr_assert_eq(read_numbers(1), 302);
  cr_assert_eq(read_numbers(150), 302);
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_STATUS, 0, 0, NULL, 0, 0, &r), 0);
  cr_assert_eq(r.value[0], 1);
  cr_assert_eq(r.value[1], 302);
}

/* Memory is acknowledged before the record is in the file, where reading finds it. */
Test(daemon_log, what_was_acknowledged_can_be_read_at_once)
{
  for (uint64_t i = 1; i <= 500; i++) {
    append_number(SHMQ_LOG_ACK_MEMORY, i);
    cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_READ, i, 0, NULL, 0, 100, &r), 0);
  }
}

Test(daemon_log, what_was_acknowledged_is_there_after_kill_9)
{
  uint64_t next = 1;
  for (int round = 0; round < 5; round++) {
    for (int i = 0; i < 50; i++)
      append_number(i % 2 ? SHMQ_LOG_ACK_DISK : SHMQ_LOG_ACK_KERNEL, next++);
    kill_and_restart();
    cr_assert_eq(read_numbers(1), next);
  }
}

Test(daemon_log, a_key_is_recorded_once_also_by_the_next_daemon)
{
  cr_assert_eq(append_keyed(1, "one"), 0);
  cr_assert_eq(r.value[1], 0);
  for (int round = 0; round < 2; round++) {
    for (int i = 0; i < 3; i++) {
      cr_assert_eq(append_keyed(1, "again"), 0);
      cr_assert_eq(r.value[0], 1);
      cr_assert_eq(r.value[1], 1);
    }
    kill_and_restart();
  }
  cr_assert_eq(append_keyed(2, "two"), 0);
  cr_assert_eq(r.value[0], 2);
  cr_assert_eq(r.value[1], 0);
}

Test(daemon_log, the_log_goes_on_in_further_segments_and_trims_the_old)
{
  static char record[40000];
  for (uint64_t i = 1; i <= 200; i++) { /* 8 MB in segments of 2 */
    snprintf(record, sizeof record, "%llu", (unsigned long long)i);
    cr_assert_eq(append(SHMQ_LOG_ACK_KERNEL, record, sizeof record), 0);
    cr_assert_eq(r.value[0], i);
  }
  cr_assert_eq(read_numbers(1), 201);
  kill_and_restart();
  cr_assert_eq(read_numbers(1), 201);
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_TRIM, 120, 0, NULL, 0, 0, &r), 0);
  uint64_t first = r.value[0];
  cr_assert_gt(first, 1);
  cr_assert_leq(first, 120);
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_READ, 1, 0, NULL, 0, 60000, &r), -ENODATA);
  cr_assert_eq(read_numbers(first), 201);
  kill_and_restart();
  cr_assert_eq(read_numbers(first), 201);
}

static uint64_t trim(uint64_t number, int expected) {
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_TRIM, number, 0, NULL, 0, 0, &r), expected);
  return r.value[0];
}

/* A directory in a file's place stands for whatever keeps a file from going. */
Test(daemon_log, a_trim_that_fails_in_the_middle_can_be_done_again)
{
  static char record[40000];
  char command[512];
  for (int i = 1; i <= 200; i++) {
    snprintf(record, sizeof record, "%d", i);
    cr_assert_eq(append(SHMQ_LOG_ACK_KERNEL, record, sizeof record), 0);
  }
  snprintf(command, sizeof command, "cd %s/log && s=$(ls *.log | sed -n 2p) && mv $s ../kept && mkdir $s", d.dir);
  cr_assert_eq(system(command), 0);
  (void)trim(180, -EISDIR);
  snprintf(command, sizeof command, "cd %s/log && s=$(ls -d *.log | sed -n 1p) && rmdir $s && mv ../kept $s", d.dir);
  cr_assert_eq(system(command), 0);
  uint64_t first = trim(180, 0);
  cr_assert_gt(first, 100);
  kill_and_restart();
  cr_assert_eq(read_numbers(first), 201);
}

/* What the worker has read with system calls, from anything. */
static uint64_t worker_has_read(void) {
  char path[64];
  unsigned long long bytes = 0;
  snprintf(path, sizeof path, "/proc/%d/io", (int)shmqd_worker(&d));
  FILE *file = fopen(path, "re");
  cr_assert(file && fscanf(file, "rchar: %llu", &bytes) == 1, "%s", path);
  fclose(file);
  return bytes;
}

/* Records that came alone have a block each, and behind each stands none: that is not looked for in the file. */
Test(daemon_log, a_log_of_many_batches_is_read_once) {
  enum { RECORDS = 200, LOG_BYTES = 2 << 20, TIMES = 8 };
  for (uint64_t i = 1; i <= RECORDS; i++) append_number(SHMQ_LOG_ACK_DISK, i);
  kill_and_restart();
  uint64_t recovered = worker_has_read();
  cr_assert_lt(recovered, TIMES * LOG_BYTES, "%llu bytes at the start", (unsigned long long)recovered);
  cr_assert_eq(read_numbers(1), RECORDS + 1);
  uint64_t read = worker_has_read() - recovered;
  cr_assert_lt(read, TIMES * LOG_BYTES, "%llu bytes for the records", (unsigned long long)read);
}

Test(daemon_log, a_torn_tail_is_cut_wherever_it_tore)
{
  char path[160];
  for (uint64_t i = 1; i <= 20; i++) append_number(SHMQ_LOG_ACK_DISK, i);
  snprintf(path, sizeof path, "%s/log/%020d.log", d.dir, 1);
  /* Each append was a batch of its own, so record n stands in block n - 1. */
  static const struct {
    int byte;
    const char *what;
  } tears[] = {{0, "magic"}, {8, "number"}, {52, "crc"}, {64, "record"}};
  for (unsigned i = 0; i < 4; i++) {
    uint64_t last = 20 - i;
    shmq_client_close(client);
    cr_assert_eq(shmqd_stop(&d, SIGKILL), -SIGKILL);
    int fd = open(path, O_RDWR);
    char byte;
    off_t at = (off_t)(last - 1) * 4096 + tears[i].byte;
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte = (char)~byte;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    shmqd_start(&d);
    connect_anew();
    cr_assert_eq(read_numbers(1), last, "%s", tears[i].what);
  }
  append_number(SHMQ_LOG_ACK_DISK, 17);
  cr_assert_eq(read_numbers(1), 18);
}

Test(daemon_log, a_follower_gets_what_comes)
{
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_FOLLOW, .value = {1, 0}, .room = 1000};
  shmq_future *f;
  cr_assert_eq(shmq_request(client, &a, SHMQ_FOREVER, &f), 0);
  cr_assert_eq(shmq_await(f, &r, shmq_after_ns(20 * MILLISECOND)), -EAGAIN);
  shmq_client *other = shmqd_client(&d);
  shmq_result mine;
  cr_assert_eq(
      shmqd_ask(other, log_number, SHMQ_LOG_APPEND, SHMQ_LOG_ACK_MEMORY, 0, "x", 1, 0, &mine), 0);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), 0);
  cr_assert_eq(((char *)r.data)[sizeof(shmq_log_entry)], 'x');
  shmq_future_free(f);
  shmq_client_close(other);
}

static shmq_future *follow_first(int64_t deadline_ns) {
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_FOLLOW, .value = {1, 0}, .room = 1000};
  shmq_future *f;
  cr_assert_eq(shmq_request(client, &a, deadline_ns, &f), 0);
  return f;
}

Test(daemon_log, a_follower_may_change_its_mind)
{
  shmq_future *f = follow_first(SHMQ_FOREVER), *stays = follow_first(SHMQ_FOREVER);
  cr_assert_eq(shmq_await(f, &r, shmq_after_ns(20 * MILLISECOND)), -EAGAIN, "it waits");
  cr_assert_eq(shmq_cancel(f), 0);
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -ECANCELED);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  shmq_future_free(f);
  cr_assert_eq(append(SHMQ_LOG_ACK_DISK, "x", 1), 0);
  cr_assert_eq(shmq_await(stays, &r, PATIENCE), 0);
  cr_assert_eq(((char *)r.data)[sizeof(shmq_log_entry)], 'x');
  shmq_future_free(stays);
}

/* The client gives up by itself; its credit comes back when the daemon does so too. */
static void times_out(shmq_future *f) {
  shmq_client_stats stats;
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -ETIMEDOUT);
  do {
    nap_ms(1);
    shmq_run_pending(client, SHMQ_NOWAIT);
    shmq_client_get_stats(client, &stats);
  } while (stats.answered + stats.dropped < stats.asked);
  shmq_future_free(f);
}

Test(daemon_log, a_followers_deadline_is_kept)
{
  times_out(follow_first(shmq_after_ns(30 * MILLISECOND)));
}

/* Nor is a credit lost where the daemon comes to a request too late. */
Test(daemon_log, what_has_expired_before_it_is_taken_is_answered)
{
  pid_t worker = shmqd_worker(&d);
  kill(worker, SIGSTOP);
  shmq_future *f = follow_first(shmq_after_ns(MILLISECOND));
  nap_ms(20);
  kill(worker, SIGCONT);
  times_out(f);
}

Test(daemon_log, many_clients_append_and_no_number_is_missing)
{
  enum { CLIENTS = 4, EACH = 500 };
  pid_t pids[CLIENTS];
  for (int c = 0; c < CLIENTS; c++) {
    pids[c] = fork();
    if (pids[c]) continue;
    shmq_client *mine = shmqd_client(&d);
    shmq_future *f[8] = {NULL};
    shmq_ask a = {
        .resource = (uint16_t)log_number, .op = SHMQ_LOG_APPEND, .value = {SHMQ_LOG_ACK_DISK, 0}};
    for (int i = 0; i < EACH + 8; i++) {
      if (f[i % 8]) MUST(shmq_await(f[i % 8], &r, PATIENCE));
      shmq_future_free(f[i % 8]);
      f[i % 8] = NULL;
      if (i < EACH) MUST(shmq_request(mine, &a, PATIENCE, &f[i % 8]));
    }
    shmq_client_close(mine);
    _exit(0);
  }
  for (int c = 0; c < CLIENTS; c++) {
    int status;
    waitpid(pids[c], &status, 0);
    cr_assert_eq(status, 0);
  }
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_STATUS, 0, 0, NULL, 0, 0, &r), 0);
  cr_assert_eq(r.value[1], CLIENTS * EACH + 1);
}

/* One batch waits for those that the last one answered: they may never come again. */
Test(daemon_log, who_has_gone_is_not_waited_for)
{
  enum { CLIENTS = 4, TOGETHER = 50, ALONE = 200 };
  shmq_client *c[CLIENTS];
  shmq_future *f[CLIENTS];
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_APPEND, .value = {SHMQ_LOG_ACK_DISK, 0}};
  for (int i = 0; i < CLIENTS; i++) c[i] = shmqd_client(&d);
  for (int n = 0; n < TOGETHER; n++) {
    for (int i = 0; i < CLIENTS; i++) MUST(shmq_request(c[i], &a, PATIENCE, &f[i]));
    for (int i = 0; i < CLIENTS; i++) {
      MUST(shmq_await(f[i], &r, PATIENCE));
      shmq_future_free(f[i]);
    }
  }
  for (int i = 0; i < CLIENTS; i++) shmq_client_close(c[i]);
  for (uint64_t n = 0; n < ALONE; n++)
    append_number(SHMQ_LOG_ACK_DISK, CLIENTS * TOGETHER + 1 + n);
}

Test(daemon_log, bad_requests_are_refused)
{
  static char huge[60000];
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_APPEND, 3, 0, "x", 1, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_APPEND, 0, SHMQ_LOG_KEYED, "x", 1, 0, &r),
               -EINVAL);
  cr_assert_eq(shmqd_ask(client, log_number, 77, 0, 0, "x", 1, 0, &r), -EOPNOTSUPP);
  cr_assert_eq(shmqd_ask(client, 9, 1, 0, 0, "x", 1, 0, &r), -ENODEV);
  cr_assert_eq(append(SHMQ_LOG_ACK_DISK, huge, sizeof huge), 0);
  cr_assert_eq(shmqd_ask(client, log_number, SHMQ_LOG_READ, 1, 0, NULL, 0, 100, &r), -EMSGSIZE);
  cr_assert_eq(append(SHMQ_LOG_ACK_DISK, "", 0), 0, "an empty record is a record");
}
