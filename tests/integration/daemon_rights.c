/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may do what, and how much of it: clients of several users and groups. Needs root, to be them.
 */
#include <criterion/criterion.h>
#include <grp.h>
#include <pthread.h>

#include "support/shmqd.h"

enum { ANN = 61001, BOB = 61002, EVE = 61009, CREW = 62001, OTHERS = 62009 };

static const char allowed[] =
    "[daemon]\naccess = all\nuid_sessions = 4\nuid_operations = 100\nuid_handles = 200\nuid_bytes = 8M\n"
    "[dir:shared]\npath = %s/tree\nrights = write\nallow = uid:61001 r, uid:61002 wr, gid:62001 r\n"
    "[dir:fixed]\npath = %s/tree\nallow = all rw\n"
    "[log:audit]\npath = %s/audit\nallow = all w, gid:62001 r, uid:61002 a\n";
static struct shmqd d;

static void begin(void) {
  if (geteuid() != 0) return;
  shmqd_new_with(&d, allowed);
  MUST(chmod(d.dir, 0755));
  char path[128];
  snprintf(path, sizeof path, "%s/tree/file", d.dir);
  FILE *file = fopen(path, "w");
  fputs("hello", file);
  fclose(file);
}
static void end(void) {
  if (!d.pid) return;
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  shmqd_remove(&d);
}
TestSuite(daemon_rights, .init = begin, .fini = end, .timeout = 200);

/* In a process that is that user, in one further group if it is not 0; what `run` returns is the exit status. */
static int as(uid_t uid, gid_t gid, gid_t further, int (*run)(const void *), const void *ctx) {
  int status;
  pid_t pid = fork();
  if (pid == 0) {
    alarm(60);
    if (setgroups(further ? 1 : 0, &further) || setgid(gid) || setuid(uid)) _exit(125);
    _exit(run(ctx));
  }
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

enum what { GET, LIST, PUT, OPEN_TO_WRITE, APPEND, READ, TRIM };

static int ask(shmq_client *c, const char *resource, enum what what, shmq_result *r) {
  int number = shmq_resource(c, resource);
  if (number < 0) return number;
  switch (what) {
  case GET: return shmqd_ask(c, number, SHMQ_DIR_GET, 0, 0, "file", 4, 100, r);
  case LIST: return shmqd_ask(c, number, SHMQ_DIR_LIST, 0, 0, "", 0, 4096, r);
  case PUT: return shmqd_ask(c, number, SHMQ_DIR_PUT, 3, 0644, "newtext", 7, 0, r);
  case OPEN_TO_WRITE:
    return shmqd_ask(c, number, SHMQ_DIR_OPEN, SHMQ_DIR_WRITABLE, 0, "file", 4, 0, r);
  case APPEND: return shmqd_ask(c, number, SHMQ_LOG_APPEND, SHMQ_LOG_ACK_MEMORY, 0, "x", 1, 0, r);
  case READ: return shmqd_ask(c, number, SHMQ_LOG_READ, 1, 0, NULL, 0, 4096, r);
  case TRIM: return shmqd_ask(c, number, SHMQ_LOG_TRIM, 1, 0, NULL, 0, 0, r);
  }
  return -EINVAL;
}

struct wish {
  const char *resource;
  enum what what;
};

/* 0: it was done; 1: refused as it must be; 2: something else. */
static int try_it(const void *ctx) {
  const struct wish *w = ctx;
  shmq_result r;
  shmq_client *c = shmqd_client(&d);
  int rc = ask(c, w->resource, w->what, &r);
  bool refused =
      rc == -EACCES && r.error_class == SHMQ_CLASS_AUTH && r.executed == SHMQ_EXECUTED_NO;
  if (rc && !refused) fprintf(stderr, "%s %d: %s\n", w->resource, (int)w->what, shmq_strerror(rc));
  shmq_client_close(c);
  return rc == 0 ? 0 : refused ? 1 : 2;
}

Test(daemon_rights, users_and_groups_get_what_they_are_allowed)
{
  static const struct {
    uid_t uid;
    gid_t gid, further;
    struct wish wish;
    int refused;
  } cases[] = {
      {ANN, OTHERS, 0, {"shared", GET}, 0},
      {ANN, OTHERS, 0, {"shared", LIST}, 0},
      {ANN, OTHERS, 0, {"shared", PUT}, 1},
      {ANN, OTHERS, 0, {"shared", OPEN_TO_WRITE}, 1},
      {BOB, OTHERS, 0, {"shared", PUT}, 0},
      {BOB, OTHERS, 0, {"shared", OPEN_TO_WRITE}, 0},
      {EVE, OTHERS, 0, {"shared", GET}, 1},
      {EVE, CREW, 0, {"shared", GET}, 0}, /* by its group */
      {EVE, CREW, 0, {"shared", PUT}, 1},
      {EVE, OTHERS, CREW, {"shared", GET}, 0}, /* by another of its groups */
      {EVE, OTHERS, 0, {"tree", GET}, 1},      /* has no `allow` */
      {0, 0, 0, {"tree", GET}, 0},
      {EVE, OTHERS, 0, {"audit", APPEND}, 0},
      {EVE, OTHERS, 0, {"audit", READ}, 1},
      {EVE, OTHERS, CREW, {"audit", READ}, 0},
      {EVE, OTHERS, CREW, {"audit", TRIM}, 1},
      {BOB, OTHERS, 0, {"audit", TRIM}, 0},
      {BOB, OTHERS, 0, {"audit", READ}, 1},
      {BOB, OTHERS, 0, {"audit", APPEND}, 0}, /* two rules together */
  };
  if (geteuid() != 0) cr_skip_test("not root");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    cr_assert_eq(as(cases[i].uid, cases[i].gid, cases[i].further, try_it, &cases[i].wish),
                 cases[i].refused, "case %zu", i);
}

/* A tree that is served for reading is, to those who may write as well. */
static int write_fixed(const void *unused) {
  shmq_result r;
  (void)unused;
  shmq_client *c = shmqd_client(&d);
  int rc = ask(c, "fixed", PUT, &r);
  shmq_client_close(c);
  return rc == -EROFS ? 0 : 1;
}
Test(daemon_rights, the_trees_own_rights_count_as_well)
{
  if (geteuid() != 0) cr_skip_test("not root");
  cr_assert_eq(as(EVE, OTHERS, 0, write_fixed, NULL), 0);
}

/* A session that is there when the rules change. */
static int until_refused(const void *ctx) {
  shmq_result r;
  int rc = 0;
  shmq_client *c = shmqd_client(&d);
  if (ask(c, "shared", GET, &r)) return 1;
  if (write(*(const int *)ctx, "", 1) != 1) return 2;
  while ((rc = ask(c, "shared", GET, &r)) == 0) nap_ms(1);
  shmq_client_close(c);
  return rc == -EACCES ? 0 : 3;
}
static void *take_it_away(void *ctx) {
  char path[128], text[2048] = "", byte;
  if (read(*(int *)ctx, &byte, 1) != 1) abort();
  snprintf(path, sizeof path, "%s/shmqd.conf", d.dir);
  FILE *file = fopen(path, "r+");
  if (fread(text, 1, sizeof text - 1, file) == 0) abort();
  memcpy(strstr(text, "uid:61001 r"), "uid:61001 w", 11);
  rewind(file);
  fputs(text, file);
  fclose(file);
  kill(d.pid, SIGHUP);
  return NULL;
}
Test(daemon_rights, a_reload_takes_rights_away)
{
  int told[2];
  pthread_t thread;
  if (geteuid() != 0) cr_skip_test("not root");
  MUST(pipe(told));
  pthread_create(&thread, NULL, take_it_away, &told[0]);
  cr_assert_eq(as(ANN, OTHERS, 0, until_refused, &told[1]), 0);
  pthread_join(thread, NULL);
}

/* The last word counts, also when it is said while an earlier one is being tried. */
Test(daemon_rights, reloads_on_the_heels_of_each_other)
{
  char path[128], text[2048] = "";
  const struct wish get = {"shared", GET};
  if (geteuid() != 0) cr_skip_test("not root");
  snprintf(path, sizeof path, "%s/shmqd.conf", d.dir);
  FILE *file = fopen(path, "r");
  cr_assert_gt(fread(text, 1, sizeof text - 1, file), 0);
  fclose(file);
  for (int round = 0, rc; round < 10; round++) {
    for (int last = 0; last < 2; last++, usleep(300)) {
      char *right = strstr(text, "uid:61001 ") + strlen("uid:61001 ");
      *right = (round + last) % 2 ? 'r' : 'w';
      file = fopen(path, "r+");
      fputs(text, file);
      fclose(file);
      kill(d.pid, SIGHUP);
    }
    int refused = round % 2; /* it ends with 'r' in even rounds */
    while ((rc = as(ANN, OTHERS, 0, try_it, &get)) == !refused) nap_ms(20);
    cr_assert_eq(rc, refused, "round %d", round);
  }
}

/* ---- the worker's own ---- */

static void status_line(pid_t pid, const char *key, char *to, size_t room) {
  char path[64], line[1024];
  size_t n = strlen(key);
  snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
  FILE *file = fopen(path, "r");
  *to = 0;
  while (file && fgets(line, sizeof line, file))
    if (strncmp(line, key, n) == 0 && line[n] == ':')
      snprintf(to, room, "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
  if (file) fclose(file);
}

Test(daemon_rights, the_worker_has_given_up_what_it_does_not_need, .init = NULL)
{
  gid_t further[] = {CREW, OTHERS};
  char text[256];
  bool root = geteuid() == 0;
  if (root) MUST(setgroups(2, further));
  shmqd_new_with(&d, "");
  pid_t worker = shmqd_worker(&d);
  status_line(worker, "NoNewPrivs", text, sizeof text);
  cr_assert_eq(atoi(text), 1);
  if (root) status_line(worker, "Groups", text, sizeof text);
  if (root) cr_assert_eq(strspn(text, " \t"), strlen(text), "groups '%s'", text);
  static const char *const sets[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"};
  status_line(getpid(), "CapBnd", text, sizeof text);
  unsigned long long kept = strtoull(text, NULL, 16) & 0x400a; /* CAP_DAC_OVERRIDE, FOWNER, IPC_LOCK */
  for (int i = 0; i < 5; i++) {
    bool some = i == 1 || i == 2 || i == 3;
    if (i == 3 && !root) continue;
    status_line(worker, sets[i], text, sizeof text);
    cr_assert_eq(strtoull(text, NULL, 16), some && root ? kept : 0, "%s %s", sets[i], text);
  }
}

/* ---- how much ---- */

static int connect_with(shmq_client **c, uint32_t credits, uint32_t blocks, uint32_t block_bytes) {
  const shmq_session_options o = {.credits = credits, .blocks = blocks, .block_bytes = block_bytes};
  return shmq_client_connect(c, d.socket, &o, 0);
}

/* The daemon notices the end of a session a little later than its client. */
static int connect_soon(shmq_client **c, const uint32_t *w) {
  int rc;
  while ((rc = connect_with(c, w[0], w[1], w[2])) == -EUSERS || rc == -EDQUOT) nap_ms(1);
  return rc;
}

static const uint32_t small[] = {1, 1, 4096};

static int as_another(const void *unused) {
  shmq_client *c;
  (void)unused;
  return connect_with(&c, 1, 1, 4096) ? 1 : 0;
}

static int too_many_sessions(const void *unused) {
  shmq_client *c[4], *fifth;
  (void)unused;
  for (int i = 0; i < 4; i++)
    if (connect_with(&c[i], 1, 1, 4096)) return 1;
  if (connect_with(&fifth, 1, 1, 4096) != -EUSERS) return 2;
  shmq_client_close(c[0]);
  return connect_soon(&c[0], small) ? 3 : 0;
}

/* One of that size fits and two do not; its share goes with it. */
static int too_much(const void *ctx) {
  const uint32_t *w = ctx;
  shmq_client *c, *more;
  for (int round = 0; round < 3; round++) {
    if (connect_soon(&c, w)) return 1;
    if (connect_with(&more, w[0], w[1], w[2]) != -EDQUOT) return 2;
    if (connect_soon(&more, small)) return 3;
    shmq_client_close(more);
    shmq_client_close(c);
  }
  return 0;
}

static int too_many_handles(const void *unused) {
  shmq_client *c[3], *fourth;
  (void)unused;
  for (int i = 0; i < 3; i++)
    if (connect_with(&c[i], 1, 1, 4096)) return 1;
  return connect_with(&fourth, 1, 1, 4096) == -EDQUOT ? 0 : 2; /* 4 times 64 of 200 */
}

Test(daemon_rights, a_user_has_quotas_and_others_have_their_own)
{
  static const uint32_t operations[] = {64, 1, 4096}, bytes[] = {1, 6, 1 << 20};
  if (geteuid() != 0) cr_skip_test("not root");
  cr_assert_eq(as(ANN, OTHERS, 0, too_much, operations), 0);
  cr_assert_eq(as(ANN, OTHERS, 0, too_much, bytes), 0);
  cr_assert_eq(as(BOB, OTHERS, 0, too_many_handles, NULL), 0);
  cr_assert_eq(as(EVE, OTHERS, 0, as_another, NULL), 0);
}

Test(daemon_rights, sessions_of_a_user_are_counted)
{
  char path[128];
  int rc;
  if (geteuid() != 0) cr_skip_test("not root");
  /* Handles would be short first. */
  snprintf(path, sizeof path, "%s/shmqd.conf", d.dir);
  FILE *file = fopen(path, "a");
  fputs("[daemon]\nhandles = 10\n", file);
  fclose(file);
  kill(d.pid, SIGHUP);
  for (int i = 0; (rc = as(ANN, OTHERS, 0, too_many_sessions, NULL)) && i < 100; i++) nap_ms(20);
  cr_assert_eq(rc, 0);
}
