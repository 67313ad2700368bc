/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors of the disk, under a log and under a tree: each answer is what happened, nothing that was acknowledged is lost,
 * nothing is there twice, no sync is tried again, and what the log says is on the disk.
 */
#include <criterion/criterion.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "shmq/resource.h"
#include "support/faults.h"
#include "support/shmqd.h"

enum { BATCH = 8, RECORD_BYTES = 3000, GOOD = 20 };

static struct shmqd d;
static struct faults *faults;
static shmq_client *client;
static int log_number, tree, map;
static shmq_result r;
static char control[] = "/tmp/shmqd-faults.XXXXXX";

static void connect_anew(void) {
  client = shmqd_client(&d);
  MUST(log_number = shmq_resource(client, "log"));
  MUST(tree = shmq_resource(client, "tree"));
  MUST(map = shmq_resource(client, "map"));
}

static void said_path(char to[128]) { snprintf(to, 128, "%s/said", d.dir); }

/* What it says goes to a file. */
static void restart(void) {
  char path[128];
  int saved = dup(STDERR_FILENO);
  said_path(path);
  int said = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(said, STDERR_FILENO);
  shmqd_start(&d);
  dup2(saved, STDERR_FILENO);
  close(saved);
  close(said);
}

static void begin(void) {
  int fd = mkstemp(control);
  MUST(ftruncate(fd, sizeof *faults));
  faults = mmap(NULL, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  setenv("TEST_FAULTS", control, 1);
  shmqd_new_with(&d, "[daemon]\nrestart_first = 1ms\n[kv:map]\npath = %s/map\nsnapshot_bytes = 64K\n");
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  restart();
  connect_anew();
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  shmqd_remove(&d);
  munmap(faults, sizeof *faults);
  unlink(control);
}
TestSuite(daemon_faults, .init = begin, .fini = end, .timeout = 200);

static void arm(enum fault fault, int error) {
  faults->happened = 0;
  faults->after = 0;
  faults->syncs = 0;
  faults->error = error;
  faults->suffix[0] = 0;
  faults->armed = (int)fault;
}

static void arm_for(const char *suffix, enum fault fault, int error) {
  arm(FAULT_NONE, error);
  snprintf(faults->suffix, sizeof faults->suffix, "%s", suffix);
  faults->armed = (int)fault;
}

static bool it_said(const char *what) {
  char path[128], line[1024];
  bool found = false;
  said_path(path);
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f)) found = found || strstr(line, what);
  if (f) fclose(f);
  return found;
}

/* ---- log ---- */

/* Each record begins with a value of its own, by which it is found again. */
static uint64_t serial;
enum fate { NOT_THERE, ACKNOWLEDGED, UNSURE };
static enum fate fate[1000];
static uint64_t number_of[1000];

static shmq_future *append_later(enum shmq_log_ack ack) {
  static char record[RECORD_BYTES];
  shmq_future *f;
  serial++;
  memset(record, (int)serial, sizeof record);
  memcpy(record, &serial, sizeof serial);
  struct iovec part = {record, sizeof record};
  shmq_ask a = {.resource = (uint16_t)log_number,
                .op = SHMQ_LOG_APPEND,
                .value = {ack, 0},
                .parts = &part,
                .part_count = 1};
  MUST(shmq_request(client, &a, PATIENCE, &f));
  return f;
}

/* Returns how many failed, all of them with the error and executed = UNKNOWN. */
static int append_batch(enum shmq_log_ack ack, int n, int error) {
  shmq_future *f[BATCH];
  uint64_t first = serial + 1;
  int failed = 0;
  for (int i = 0; i < n; i++) f[i] = append_later(ack);
  for (int i = 0; i < n; i++) {
    int rc = shmq_await(f[i], &r, PATIENCE);
    fate[first + (uint64_t)i] = rc ? UNSURE : ACKNOWLEDGED;
    number_of[first + (uint64_t)i] = r.value[0];
    if (rc) {
      failed++;
      cr_assert_eq(rc, -error, "%s", shmq_strerror(rc));
      cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
    }
    shmq_future_free(f[i]);
  }
  return failed;
}

/* No gaps, no changes, what was acknowledged once and under its number, the rest at most once. */
static void check_log(void) {
  uint64_t next = 1, seen[1000] = {0};
  while (shmqd_ask(client, log_number, SHMQ_LOG_READ, next, 0, NULL, 0, 60000, &r) == 0)
    for (size_t at = 0; at < r.size; next++) {
      shmq_log_entry e;
      uint64_t which;
      memcpy(&e, (char *)r.data + at, sizeof e);
      const char *record = (char *)r.data + at + sizeof e;
      memcpy(&which, record, sizeof which);
      cr_assert_eq(e.number, next);
      cr_assert_eq(e.bytes, (uint32_t)RECORD_BYTES);
      cr_assert_leq(which, serial);
      for (int i = 8; i < RECORD_BYTES; i++) cr_assert_eq(record[i], (char)which);
      cr_assert_eq(seen[which], 0, "record %llu is there twice", (unsigned long long)which);
      seen[which] = e.number;
      at += (sizeof e + e.bytes + 7) & ~(size_t)7;
    }
  cr_assert_eq(r.status, -ENODATA);
  for (uint64_t i = 1; i <= serial; i++)
    if (fate[i] == ACKNOWLEDGED)
      cr_assert_eq(seen[i], number_of[i], "record %llu", (unsigned long long)i);
}

static void kill_and_look(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGKILL), -SIGKILL);
  restart();
  connect_anew();
  check_log();
}

static void fault_under_log(enum shmq_log_ack ack, enum fault fault, int error) {
  for (int i = 0; i < GOOD; i++) cr_assert_eq(append_batch(ack, 1, 0), 0);
  arm(fault, error);
  int failed = append_batch(ack, BATCH, error);
  cr_assert_eq(faults->happened, 1, "the fault did not happen");
  if (fault == FAULT_WRITE_SHORT) {
    cr_assert_eq(failed, 0, "a short write is gone on with");
  } else {
    cr_assert_geq(failed, 1, "nobody was told");
    cr_assert(it_said("stopped, reading back"));
    if (fault == FAULT_SYNC_ERROR) cr_assert_eq(faults->syncs, 1, "a sync was tried again");
  }
  check_log();
  for (int i = 0; i < 3; i++) cr_assert_eq(append_batch(ack, BATCH, 0), 0, "it goes on");
  check_log();
  kill_and_look();
  cr_assert_eq(append_batch(ack, BATCH, 0), 0);
  check_log();
}

Test(daemon_faults, log_short_write_to_disk)
{ fault_under_log(SHMQ_LOG_ACK_DISK, FAULT_WRITE_SHORT, 0); }
Test(daemon_faults, log_short_write_to_cache)
{ fault_under_log(SHMQ_LOG_ACK_KERNEL, FAULT_WRITE_SHORT, 0); }
Test(daemon_faults, log_eio_to_disk)
{ fault_under_log(SHMQ_LOG_ACK_DISK, FAULT_WRITE_ERROR, EIO); }
Test(daemon_faults, log_eio_to_cache)
{ fault_under_log(SHMQ_LOG_ACK_KERNEL, FAULT_WRITE_ERROR, EIO); }
Test(daemon_faults, log_enospc)
{ fault_under_log(SHMQ_LOG_ACK_DISK, FAULT_WRITE_ERROR, ENOSPC); }
Test(daemon_faults, log_torn_to_disk)
{ fault_under_log(SHMQ_LOG_ACK_DISK, FAULT_WRITE_TORN, EIO); }
Test(daemon_faults, log_torn_to_cache)
{ fault_under_log(SHMQ_LOG_ACK_KERNEL, FAULT_WRITE_TORN, EIO); }
Test(daemon_faults, log_written_and_denied)
{ fault_under_log(SHMQ_LOG_ACK_DISK, FAULT_WRITE_LATE, EIO); }
Test(daemon_faults, log_cached_and_denied)
{ fault_under_log(SHMQ_LOG_ACK_KERNEL, FAULT_WRITE_LATE, EIO); }

/* A sync of its own is needed where cached records come before. */
Test(daemon_faults, log_sync_fails)
{
  for (int i = 0; i < 3; i++) cr_assert_eq(append_batch(SHMQ_LOG_ACK_KERNEL, 1, 0), 0);
  arm(FAULT_SYNC_ERROR, EIO);
  cr_assert_eq(append_batch(SHMQ_LOG_ACK_DISK, 1, EIO), 1);
  cr_assert_eq(faults->happened, 1);
  cr_assert_eq(faults->syncs, 1, "a sync was tried again");
  cr_assert(it_said("stopped, reading back"));
  check_log();
  cr_assert_eq(append_batch(SHMQ_LOG_ACK_DISK, BATCH, 0), 0);
  kill_and_look();
}

/* What it recovers from cannot be read either: it says so, and answers nothing that it does not know. */
Test(daemon_faults, log_that_cannot_be_read_back)
{
  for (int i = 0; i < GOOD; i++) cr_assert_eq(append_batch(SHMQ_LOG_ACK_DISK, 1, 0), 0);
  arm(FAULT_WRITE_ERROR, EIO);
  shmq_future *f = append_later(SHMQ_LOG_ACK_DISK);
  fate[serial] = UNSURE;
  while (!faults->happened) continue;
  faults->armed = FAULT_READ_ERROR; /* too late is well: then it has been read back */
  cr_assert_eq(shmq_await(f, &r, PATIENCE), -EIO);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_UNKNOWN);
  shmq_future_free(f);
  faults->armed = FAULT_NONE;
  shmq_future *next = append_later(SHMQ_LOG_ACK_DISK);
  int rc = shmq_await(next, &r, PATIENCE);
  fate[serial] = rc ? NOT_THERE : ACKNOWLEDGED;
  number_of[serial] = r.value[0];
  if (rc) cr_assert_eq(r.executed, SHMQ_EXECUTED_NO, "%s", shmq_strerror(rc));
  if (rc) cr_assert(it_said("cannot be read back"));
  shmq_future_free(next);
  kill_and_look();
}

/* ---- kv: its snapshots ---- */

enum { KEYS = 40, VALUE_BYTES = 3000 };
static unsigned char value_of[KEYS];

static void put_keys(unsigned char value) {
  char data[2 + VALUE_BYTES];
  for (int key = 0; key < KEYS; key++) {
    memcpy(data, (char[]){'k', (char)key}, 2);
    memset(data + 2, value, VALUE_BYTES);
    cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_PUT, 2, 0, data, sizeof data, 0, &r), 0);
    value_of[key] = value;
  }
}

static void check_keys(void) {
  for (int key = 0; key < KEYS; key++) {
    const char name[] = {'k', (char)key};
    cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_GET, 0, 0, name, 2, VALUE_BYTES, &r), 0);
    cr_assert_eq(r.size, VALUE_BYTES);
    for (size_t i = 0; i < r.size; i++) cr_assert_eq(((unsigned char *)r.data)[i], value_of[key]);
  }
}

/* The time of the last snapshot that is in its place, 0: there is none. */
static int64_t snapshot_time(const char *name) {
  char path[160];
  struct stat st;
  snprintf(path, sizeof path, "%s/map/%s", d.dir, name);
  if (stat(path, &st)) return 0;
  return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

static void kill_and_check_keys(void) {
  shmq_client_close(client);
  shmqd_kill_all(&d);
  restart();
  connect_anew();
  check_keys();
}

/* A snapshot that fails costs nothing but itself, and the next one is taken. */
static void fault_under_snapshot(const char *suffix, enum fault fault, int error) {
  unsigned char value = 0;
  while (!snapshot_time("snapshot")) put_keys(++value);
  arm_for(suffix, fault, error);
  while (!faults->happened) put_keys(++value);
  if (fault != FAULT_WRITE_SHORT)
    while (!it_said("no snapshot: ")) nap_ms(1);
  check_keys();
  kill_and_check_keys();
  int64_t before = snapshot_time("snapshot");
  while (snapshot_time("snapshot") == before) put_keys(++value);
  while (snapshot_time("snapshot.tmp")) nap_ms(1); /* another may be under way */
  kill_and_check_keys();
}

Test(daemon_faults, snapshot_enospc)
{ fault_under_snapshot("/snapshot.tmp", FAULT_WRITE_TORN, ENOSPC); }
Test(daemon_faults, snapshot_eio)
{ fault_under_snapshot("/snapshot.tmp", FAULT_WRITE_ERROR, EIO); }
Test(daemon_faults, snapshot_short_write)
{ fault_under_snapshot("/snapshot.tmp", FAULT_WRITE_SHORT, 0); }
Test(daemon_faults, snapshot_sync_fails)
{ fault_under_snapshot("/snapshot.tmp", FAULT_SYNC_ERROR, EIO); }
Test(daemon_faults, snapshot_rename_fails)
{ fault_under_snapshot("/map", FAULT_RENAME_ERROR, ENOSPC); }
Test(daemon_faults, snapshot_directory_sync_fails)
{ fault_under_snapshot("/map", FAULT_SYNC_ERROR, EIO); }

/* A full disk is not kept full by what nobody will use. */
Test(daemon_faults, snapshot_that_failed_is_removed)
{
  arm_for("/snapshot.tmp", FAULT_WRITE_TORN, ENOSPC);
  for (unsigned char value = 1; !faults->happened; value++) put_keys(value);
  while (!it_said("no snapshot: ")) nap_ms(1);
  while (snapshot_time("snapshot.tmp")) nap_ms(1);
  check_keys();
}

/* The worker that cannot read it back says so and is started again; nothing is served from half of it. */
Test(daemon_faults, snapshot_that_cannot_be_read)
{
  for (unsigned char value = 1; !snapshot_time("snapshot"); value++) put_keys(value);
  arm_for("/snapshot", FAULT_READ_ERROR, EIO);
  shmqd_kill_worker(&d);
  check_keys();
  cr_assert_eq(faults->happened, 1);
  cr_assert(it_said("the snapshot cannot be read"));
  arm_for("/snapshot", FAULT_READ_SHORT, 0);
  shmqd_kill_worker(&d);
  check_keys();
  cr_assert_eq(faults->happened, 1);
}

/* ---- dir ---- */

static int put(const char *text) {
  char data[128];
  int n = snprintf(data, sizeof data, "file%s", text);
  return shmqd_ask(client, tree, SHMQ_DIR_PUT, 4, 0600, data, (size_t)n, 0, &r);
}

static void contents_are(const char *wanted) {
  char path[128], text[64] = "";
  snprintf(path, sizeof path, "%s/tree/file", d.dir);
  FILE *f = fopen(path, "r");
  cr_assert(f);
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  cr_assert_eq(n, strlen(wanted), "'%s' and not '%s'", text, wanted);
  cr_assert_str_eq(text, wanted);
}

static void nothing_else_is_there(void) {
  char path[128];
  snprintf(path, sizeof path, "%s/tree", d.dir);
  cr_assert_eq(count_entries(path), 3, "only . and .. and file");
}

Test(daemon_faults, a_put_is_whole_or_not)
{
  static const struct {
    enum fault fault;
    int error;
  } cases[] = {{FAULT_WRITE_ERROR, ENOSPC},
               {FAULT_WRITE_ERROR, EIO},
               {FAULT_WRITE_TORN, ENOSPC},
               {FAULT_WRITE_LATE, EIO},
               {FAULT_SYNC_ERROR, EIO}};
  cr_assert_eq(put("what was"), 0);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    arm(cases[i].fault, cases[i].error);
    cr_assert_eq(put("what shall be"), -cases[i].error, "case %zu", i);
    cr_assert_eq(faults->happened, 1);
    contents_are("what was");
    nothing_else_is_there();
  }
  arm(FAULT_WRITE_SHORT, 0);
  cr_assert_eq(put("what shall be"), 0);
  cr_assert_eq(faults->happened, 1);
  contents_are("what shall be");
}

static uint64_t open_file(void) {
  MUST(shmqd_ask(client, tree, SHMQ_DIR_OPEN, SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE, 0600, "file", 4,
                 0, &r));
  return r.value[0];
}
static int write_at(uint64_t handle, uint64_t offset, const char *text) {
  return shmqd_ask(client, tree, SHMQ_DIR_WRITE, handle, offset, text, strlen(text), 0, &r);
}

Test(daemon_faults, a_write_says_how_much_was_written)
{
  uint64_t handle = open_file();
  arm(FAULT_WRITE_SHORT, 0);
  cr_assert_eq(write_at(handle, 0, "12345678"), 0);
  cr_assert_eq(r.value[0], 4);
  contents_are("1234");
  cr_assert_eq(write_at(handle, 4, "5678"), 0);
  contents_are("12345678");
  for (int i = 0; i < 2; i++) {
    arm(FAULT_WRITE_ERROR, i ? ENOSPC : EIO);
    cr_assert_eq(write_at(handle, 8, "9"), i ? -ENOSPC : -EIO);
    cr_assert_eq(faults->happened, 1);
    contents_are("12345678");
  }
}

/* The kernel sends a signal with it. */
Test(daemon_faults, a_limit_of_file_sizes_is_an_error)
{
  const struct rlimit small = {.rlim_cur = 4, .rlim_max = RLIM_INFINITY};
  uint64_t handle = open_file();
  pid_t worker = shmqd_worker(&d);
  MUST(prlimit(worker, RLIMIT_FSIZE, &small, NULL));
  cr_assert_eq(write_at(handle, 4, "5"), -EFBIG);
  cr_assert_eq(put("too long"), -EFBIG);
  cr_assert_eq(shmqd_worker(&d), worker);
  MUST(prlimit(worker, RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}, NULL));
  cr_assert_eq(put("not too long"), 0);
}

Test(daemon_faults, a_sync_that_failed_is_told_once)
{
  uint64_t handle = open_file();
  cr_assert_eq(write_at(handle, 0, "text"), 0);
  arm(FAULT_SYNC_ERROR, EIO);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_SYNC, handle, 0, NULL, 0, 0, &r), -EIO);
  cr_assert_eq(faults->syncs, 1);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_SYNC, handle, 0, NULL, 0, 0, &r), 0);
}

Test(daemon_faults, a_read_that_fails_or_is_short)
{
  cr_assert_eq(put("12345678"), 0);
  arm(FAULT_READ_ERROR, EIO);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_GET, 0, 0, "file", 4, 100, &r), -EIO);
  cr_assert_eq(faults->happened, 1);
  arm(FAULT_READ_SHORT, 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_GET, 0, 0, "file", 4, 100, &r), 0);
  cr_assert_eq(faults->happened, 1);
  cr_assert_eq(r.size, 8);
  cr_assert_arr_eq(r.data, "12345678", 8);
}
