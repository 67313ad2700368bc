/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `kv`: against a model, with the daemon killed again and again; what was acknowledged is there, and
 * nothing that has a gap before it.
 */
#include <criterion/criterion.h>
#include <sys/mman.h>

#include "shmq/resource.h"
#include "support/shmqd.h"

#define CONFIG                                                                         \
  "[daemon]\nrestart_first = 1ms\nrestart_most = 1ms\nrestart_failures = 0\n"          \
  "[kv:map]\npath = %s/map\nsegment_bytes = 2M\nsnapshot_bytes = 64K\nmax_bytes = 8M\n" \
  "[kv:fast]\npath = %s/fast\nack = kernel\nsegment_bytes = 2M\nsnapshot_bytes = 1M\n"

static struct shmqd d;
static shmq_client *client;
static int map, fast;
static shmq_result r;

static void connect_anew(void) {
  client = shmqd_client(&d);
  map = shmq_resource(client, "map");
  fast = shmq_resource(client, "fast");
}
static void begin(void) {
  shmqd_new_with(&d, CONFIG);
  connect_anew();
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_kv, .init = begin, .fini = end, .timeout = 200);

static void kill_and_restart(void) {
  shmq_client_close(client);
  shmqd_kill_all(&d);
  shmqd_start(&d);
  connect_anew();
}

static int put(const char *key, const char *value) {
  char data[512];
  int n = snprintf(data, sizeof data, "%s%s", key, value);
  return shmqd_ask(client, map, SHMQ_KV_PUT, strlen(key), 0, data, (size_t)n, 0, &r);
}
static int cas(const char *key, const char *value, uint64_t version) {
  char data[512];
  int n = snprintf(data, sizeof data, "%s%s", key, value);
  return shmqd_ask(client, map, SHMQ_KV_CAS, strlen(key), version, data, (size_t)n, 0, &r);
}
static int get(const char *key) {
  return shmqd_ask(client, map, SHMQ_KV_GET, 0, 0, key, strlen(key), 4096, &r);
}
static int add(const char *key, int64_t delta) {
  return shmqd_ask(client, map, SHMQ_KV_ADD, (uint64_t)delta, 0, key, strlen(key), 0, &r);
}
static int delete(const char *key, uint64_t version) {
  return shmqd_ask(client, map, SHMQ_KV_DELETE, 0, version, key, strlen(key), 0, &r);
}
static bool is(const char *value) {
  return r.size == strlen(value) && memcmp(r.data, value, r.size) == 0;
}

typedef void each_fn(const shmq_kv_entry *e, const char *key, const char *value, void *ctx);

/* Calls fn for everything below a prefix; returns how many. */
static int scan(int resource, const char *prefix, size_t room, each_fn *fn, void *ctx) {
  char data[4096];
  size_t n = strlen(prefix), last = 0;
  int count = 0;
  memcpy(data, prefix, n);
  do {
    cr_assert_eq(shmqd_ask(client, resource, SHMQ_KV_SCAN, n, 0, data, n + last, room, &r), 0);
    uint64_t entries = 0;
    for (size_t at = 0; at < r.size; count++, entries++) {
      shmq_kv_entry e;
      memcpy(&e, (char *)r.data + at, sizeof e);
      const char *key = (char *)r.data + at + sizeof e;
      if (fn) fn(&e, key, key + e.key_bytes, ctx);
      memcpy(data + n, key, e.key_bytes);
      last = e.key_bytes;
      at += sizeof e + ((e.key_bytes + e.value_bytes + 7u) & ~(size_t)7);
    }
    cr_assert_eq(entries, r.value[1]);
  } while (r.value[0]);
  return count;
}

Test(daemon_kv, each_operation)
{
  cr_assert_eq(get("a"), -ENOENT);
  cr_assert_eq(put("a", "one"), 0);
  uint64_t version = r.value[0];
  cr_assert_eq(get("a"), 0);
  cr_assert(is("one"));
  cr_assert_eq(r.value[0], version);
  cr_assert_eq(r.value[1], 3);

  cr_assert_eq(cas("a", "two", version + 1), -ESTALE);
  cr_assert_eq(r.error_class, SHMQ_CLASS_CONFLICT);
  cr_assert_eq(cas("a", "two", 0), -EEXIST);
  cr_assert_eq(cas("b", "two", version), -ENOENT);
  cr_assert_eq(cas("a", "two", version), 0);
  cr_assert_gt(r.value[0], version);
  cr_assert_eq(cas("a", "three", version), -ESTALE);
  cr_assert_eq(cas("b", "", 0), 0);
  cr_assert_eq(get("b"), 0);
  cr_assert_eq(r.size, 0);

  cr_assert_eq(add("n", 5), 0);
  cr_assert_eq(add("n", -7), 0);
  cr_assert_eq((int64_t)r.value[1], -2);
  cr_assert_eq(get("n"), 0);
  cr_assert(is("-2"));
  cr_assert_eq(add("a", 1), -EINVAL);
  cr_assert_eq(add("b", 1), -EINVAL);
  cr_assert_eq(put("big", "9223372036854775807"), 0);
  cr_assert_eq(add("big", 1), -ERANGE);
  cr_assert_eq(add("big", -1), 0);
  cr_assert_eq(put("trailing", "12x"), 0);
  cr_assert_eq(add("trailing", 1), -EINVAL);

  cr_assert_eq(get("a"), 0);
  version = r.value[0];
  cr_assert_eq(delete("a", version + 1), -ESTALE);
  cr_assert_eq(delete("a", version), 0);
  cr_assert_eq(delete("a", 0), -ENOENT);
  cr_assert_eq(get("a"), -ENOENT);
  cr_assert_eq(delete("b", 0), 0);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_STATUS, 0, 0, NULL, 0, 0, &r), 0);
  cr_assert_eq(r.value[0], 3);
}

static void in_order(const shmq_kv_entry *e, const char *key, const char *value, void *ctx) {
  char expected[32];
  int i = (*(int *)ctx)++;
  snprintf(expected, sizeof expected, "key-%03d", i);
  cr_assert_eq(e->key_bytes, strlen(expected));
  cr_assert_eq(memcmp(key, expected, e->key_bytes), 0);
  cr_assert_eq((int)e->value_bytes, i % 50);
  for (uint32_t k = 0; k < e->value_bytes; k++) cr_assert_eq(value[k], 'v');
}

Test(daemon_kv, a_scan_is_in_order_and_goes_on_at_its_cursor)
{
  enum { KEYS = 300 };
  char key[32], value[64];
  memset(value, 'v', sizeof value);
  for (int i = 0; i < KEYS; i++) {
    int k = i * 77 % KEYS;
    snprintf(key, sizeof key, "key-%03d", k);
    value[k % 50] = 0;
    cr_assert_eq(put(key, value), 0);
    value[k % 50] = 'v';
  }
  cr_assert_eq(put("kex", ""), 0);
  cr_assert_eq(put("kez", ""), 0);
  for (size_t room = 80; room < 65000; room *= 25) {
    int next = 0;
    cr_assert_eq(scan(map, "key-", room, in_order, &next), KEYS);
  }
  cr_assert_eq(scan(map, "", 500, NULL, NULL), KEYS + 2);
  cr_assert_eq(scan(map, "key-1", 500, NULL, NULL), 100);
  cr_assert_eq(scan(map, "nothing", 500, NULL, NULL), 0);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_SCAN, 0, 0, NULL, 0, 8, &r), -EMSGSIZE);
}

/* ---- a model ---- */

enum { MODEL_KEYS = 40 };
struct model {
  char value[MODEL_KEYS][300];
  bool there[MODEL_KEYS];
  uint64_t version[MODEL_KEYS];
  int found;
};

/* A key is a letter and a number; the value follows at once. */
static int number_of(const shmq_kv_entry *e, const char *key) {
  int number = 0;
  for (uint32_t i = 1; i < e->key_bytes; i++) number = 10 * number + key[i] - '0';
  return number;
}

static void compare(const shmq_kv_entry *e, const char *key, const char *value, void *ctx) {
  struct model *m = ctx;
  int i = number_of(e, key);
  cr_assert_lt(i, MODEL_KEYS);
  cr_assert(m->there[i]);
  cr_assert_eq(e->version, m->version[i]);
  cr_assert_eq(e->value_bytes, strlen(m->value[i]));
  cr_assert_eq(memcmp(value, m->value[i], e->value_bytes), 0);
  m->found++;
}

static void must_equal(struct model *m) {
  int count = 0;
  m->found = 0;
  for (int i = 0; i < MODEL_KEYS; i++) count += m->there[i];
  cr_assert_eq(scan(map, "", 2000, compare, m), count);
  cr_assert_eq(m->found, count);
}

static void change_one(struct model *m, unsigned *seed) {
  char key[16], value[300];
  int i = rand_r(seed) % MODEL_KEYS, size = rand_r(seed) % 290, rc, expected = 0;
  uint64_t version = rand_r(seed) % 3 ? m->version[i] : (uint64_t)rand_r(seed) % 100;
  snprintf(key, sizeof key, "k%02d", i);
  memset(value, 'a' + rand_r(seed) % 26, sizeof value);
  value[size] = 0;
  switch (rand_r(seed) % 4) {
  case 0: rc = put(key, value); break;
  case 1:
    rc = cas(key, value, version);
    if (m->there[i]) expected = !version ? -EEXIST : version == m->version[i] ? 0 : -ESTALE;
    else expected = version ? -ENOENT : 0;
    break;
  case 2:
    rc = delete(key, version);
    expected = !m->there[i] ? -ENOENT : version && version != m->version[i] ? -ESTALE : 0;
    if (!expected) m->there[i] = false, m->version[i] = 0;
    cr_assert_eq(rc, expected);
    return;
  default:
    rc = add(key, size);
    expected = m->there[i] && !(m->value[i][0] >= '0' && m->value[i][0] <= '9') ? -EINVAL : 0;
    if (!expected) snprintf(value, sizeof value, "%d", size + (m->there[i] ? atoi(m->value[i]) : 0));
  }
  cr_assert_eq(rc, expected, "%d and not %d", rc, expected);
  if (rc) return;
  m->there[i] = true;
  m->version[i] = r.value[0];
  memcpy(m->value[i], value, sizeof value);
}

Test(daemon_kv, it_is_what_the_model_is_also_after_each_kill)
{
  static struct model m;
  unsigned seed = 1;
  for (int round = 0; round < 12; round++) {
    for (int i = 0; i < 150; i++) change_one(&m, &seed);
    must_equal(&m);
    kill_and_restart();
    must_equal(&m);
  }
  char path[160];
  snprintf(path, sizeof path, "%s/map/snapshot", d.dir);
  cr_assert_eq(access(path, F_OK), 0, "so much was logged that there is one");
}

/* ---- killed in the middle of much ---- */

/* Each child puts ITS-000001, ITS-000002 and so on, several at a time, and tells how far it was acknowledged. */
static void put_numbered(int resource, char name, _Atomic int *acknowledged) {
  enum { DEPTH = 8 };
  shmq_client *c = shmqd_client(&d);
  shmq_future *f[DEPTH] = {NULL};
  shmq_result mine;
  for (int i = 1;; i++) {
    char data[64];
    int n = snprintf(data, sizeof data, "%c-%06dvalue %d", name, i, i);
    struct iovec part = {data, (size_t)n};
    shmq_ask a = {.resource = (uint16_t)resource,
                  .op = SHMQ_KV_PUT,
                  .value = {8, 0},
                  .parts = &part,
                  .part_count = 1};
    shmq_future **at = &f[i % DEPTH];
    if (*at && shmq_await(*at, &mine, PATIENCE)) _exit(0);
    if (*at) *acknowledged = i - DEPTH;
    shmq_future_free(*at);
    if (shmq_request(c, &a, PATIENCE, at)) _exit(0);
  }
}

static void next_of_name(const shmq_kv_entry *e, const char *key, const char *value, void *ctx) {
  char expected[64];
  int *next = ctx;
  int n = snprintf(expected, sizeof expected, "%06dvalue %d", *next, *next);
  cr_assert_eq((int)(e->key_bytes + e->value_bytes), n + 2, "%.8s and not %s", key, expected);
  cr_assert_eq(memcmp(key + 2, expected, (size_t)n), 0);
  (void)value;
  ++*next;
}

static void kill_in_the_middle(const char *name) {
  enum { CHILDREN = 3 };
  _Atomic int *done = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t pids[CHILDREN];
  int resource = shmq_resource(client, name);
  shmq_client_close(client);
  for (int c = 0; c < CHILDREN; c++) {
    pids[c] = fork();
    if (pids[c]) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    put_numbered(resource, (char)('a' + c), &done[c]);
  }
  for (int c = 0; c < CHILDREN; c++)
    while (done[c] < 1000) nap_ms(1);
  shmqd_kill_all(&d);
  for (int c = 0; c < CHILDREN; c++) waitpid(pids[c], NULL, 0);
  shmqd_start(&d);
  connect_anew();
  for (int c = 0; c < CHILDREN; c++) {
    char prefix[3] = {(char)('a' + c), '-', 0};
    int next = 1;
    scan(resource, prefix, 60000, next_of_name, &next);
    cr_assert_gt(next, done[c], "what was acknowledged is there");
    cr_assert_leq(next, done[c] + 1 + 8, "and no more than was asked for");
  }
  munmap((void *)(uintptr_t)done, 4096);
}

Test(daemon_kv, a_kill_keeps_what_was_acknowledged_on_the_disk) { kill_in_the_middle("map"); }
Test(daemon_kv, a_kill_keeps_what_was_acknowledged_in_the_kernel) { kill_in_the_middle("fast"); }

/* Adds ones to its own counter, several at a time, until it is told to stop; tells how many were added. */
static void add_ones(int resource, char name, const _Atomic int *stop, _Atomic int *added) {
  enum { DEPTH = 8 };
  shmq_client *c = shmqd_client(&d);
  shmq_future *f[DEPTH] = {NULL};
  shmq_result mine;
  struct iovec part = {&name, 1};
  shmq_ask a = {.resource = (uint16_t)resource,
                .op = SHMQ_KV_ADD,
                .value = {1, 0},
                .parts = &part,
                .part_count = 1};
  for (int i = 0, left = 0; left < DEPTH; i++) {
    shmq_future **at = &f[i % DEPTH];
    if (*at) {
      (void)shmq_await(*at, &mine, PATIENCE);
      if (mine.executed == SHMQ_EXECUTED_UNKNOWN) _exit(1);
      *added += mine.executed == SHMQ_EXECUTED_YES;
    }
    shmq_future_free(*at);
    *at = NULL;
    if (*stop)
      left++;
    else
      MUST(shmq_request(c, &a, PATIENCE, at));
  }
  _exit(0);
}

Test(daemon_kv, a_killed_worker_adds_nothing_twice)
{
  enum { CHILDREN = 3, KILLS = 8 };
  _Atomic int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pid_t pids[CHILDREN];
  for (int c = 0; c < CHILDREN; c++) {
    pids[c] = fork();
    if (pids[c]) continue;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    add_ones(map, (char)('a' + c), &shared[CHILDREN], &shared[c]);
  }
  for (int k = 0, before[CHILDREN] = {0}; k < KILLS; k++) {
    while (!all_went_on(shared, before, CHILDREN, 50)) nap_ms(1);
    shmqd_kill_worker(&d);
  }
  shared[CHILDREN] = 1;
  for (int c = 0; c < CHILDREN; c++) {
    int status;
    waitpid(pids[c], &status, 0);
    cr_assert_eq(status, 0);
    char key[2] = {(char)('a' + c), 0}, expected[24];
    cr_assert_eq(get(key), 0);
    snprintf(expected, sizeof expected, "%d", shared[c]);
    cr_assert(is(expected), "%.*s and not %s", (int)r.size, (char *)r.data, expected);
  }
  munmap((void *)(uintptr_t)shared, 4096);
}

/* ---- snapshots ---- */

static void put_many(int count) {
  enum { DEPTH = 32 };
  shmq_future *f[DEPTH] = {NULL};
  for (int i = 0; i < count + DEPTH; i++) {
    char data[128];
    int n = snprintf(data, sizeof data, "k%05d%d and some more of it", i % 1000, i);
    struct iovec part = {data, (size_t)n};
    shmq_ask a = {.resource = (uint16_t)fast,
                  .op = SHMQ_KV_PUT,
                  .value = {6, 0},
                  .parts = &part,
                  .part_count = 1};
    shmq_future **at = &f[i % DEPTH];
    if (*at) cr_assert_eq(shmq_await(*at, &r, PATIENCE), 0);
    shmq_future_free(*at);
    *at = NULL;
    if (i < count) cr_assert_eq(shmq_request(client, &a, PATIENCE, at), 0);
  }
}

static void latest(const shmq_kv_entry *e, const char *key, const char *value, void *ctx) {
  char expected[64];
  int i = *(int *)ctx - 1000 + number_of(e, key);
  int n = snprintf(expected, sizeof expected, "%d and some more of it", i);
  cr_assert_eq((int)e->value_bytes, n);
  cr_assert_eq(memcmp(value, expected, (size_t)n), 0);
}

Test(daemon_kv, snapshots_let_the_log_forget)
{
  char path[160];
  int count = 80000;
  put_many(count);
  snprintf(path, sizeof path, "%s/fast/%020d.log", d.dir, 1);
  for (; access(path, F_OK) == 0; count += 10000) put_many(10000); /* until the first segment has gone */
  int last = count == 80000 ? 80000 : 10000;
  cr_assert_eq(scan(fast, "", 60000, latest, &last), 1000);
  kill_and_restart();
  cr_assert_eq(scan(fast, "", 60000, latest, &last), 1000);
}

Test(daemon_kv, a_damaged_snapshot_is_refused)
{
  static struct model m;
  unsigned seed = 2;
  char path[160], byte;
  snprintf(path, sizeof path, "%s/map/snapshot", d.dir);
  while (access(path, F_OK)) change_one(&m, &seed);
  shmq_client_close(client);
  shmqd_kill_all(&d);
  int fd = open(path, O_RDWR);
  for (int at = 0; at < 200; at += 13) {
    cr_assert_eq(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
    cr_assert_not(shmqd_try(&d, true), "byte %d", at);
    cr_assert_eq(shmqd_stop(&d, SIGKILL), 1);
    byte ^= 1;
    cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
  }
  close(fd);
  shmqd_start(&d);
  connect_anew();
  must_equal(&m);
}

Test(daemon_kv, bad_requests_are_refused)
{
  static char huge[60000];
  memset(huge, 'x', sizeof huge);
  cr_assert_eq(put("", "x"), -EINVAL);
  cr_assert_eq(get(""), -EINVAL);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_PUT, 10, 0, "short", 5, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_PUT, UINT64_MAX, 0, "short", 5, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_PUT, 1025, 0, huge, 2000, 0, &r), -ENAMETOOLONG);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_GET, 0, 0, huge, 1025, 0, &r), -ENAMETOOLONG);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_SCAN, 3, 0, "ab", 2, 100, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, map, 99, 0, 0, NULL, 0, 0, &r), -EOPNOTSUPP);
  int rc = 0, n = 0;
  for (; rc == 0 && n < 1000; n++) {
    snprintf(huge, 9, "%08d", n);
    rc = shmqd_ask(client, map, SHMQ_KV_PUT, 8, 0, huge, sizeof huge, 0, &r);
  }
  cr_assert_eq(rc, -EDQUOT);
  cr_assert_eq(r.executed, SHMQ_EXECUTED_NO);
  cr_assert_eq(scan(map, "", 65000, NULL, NULL), n - 1);
  cr_assert_eq(delete("00000000", 0), 0);
  cr_assert_eq(shmqd_ask(client, map, SHMQ_KV_PUT, 8, 0, huge, sizeof huge, 0, &r), 0);
}
