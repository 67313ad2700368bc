/* SPDX-License-Identifier: Apache-2.0
 *
 * Ways out of the daemon's `dir`: each of a list of names under each operation that takes one, names that change in the
 * middle, other mounts, and what is no file. None leads out, nothing outside is touched.
 */
#include <criterion/criterion.h>
#include <sys/sysmacros.h>

#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static int tree, all;
static shmq_result r;

static void make(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", d.dir, name);
  FILE *file = fopen(path, "w");
  cr_assert(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

static void make_link(const char *name, const char *to) {
  char path[256];
  snprintf(path, sizeof path, "%s/tree/%s", d.dir, name);
  cr_assert_eq(symlink(to, path), 0);
}

static void must_be_intact(void) {
  char path[256], text[64] = "";
  snprintf(path, sizeof path, "%s/outside/secret", d.dir);
  FILE *file = fopen(path, "r");
  cr_assert(file && fgets(text, sizeof text, file), "it is there");
  fclose(file);
  cr_assert_str_eq(text, "secret");
  snprintf(path, sizeof path, "[ \"$(ls %s/outside)\" = secret ]", d.dir);
  cr_assert_eq(system(path), 0, "and nothing else is");
}

static void begin(void) {
  char path[256];
  shmqd_new_with(&d, "[dir:all]\npath = /\nrights = write\n");
  snprintf(path, sizeof path, "%s/outside", d.dir);
  cr_assert_eq(mkdir(path, 0700), 0);
  snprintf(path, sizeof path, "%s/tree/sub", d.dir);
  cr_assert_eq(mkdir(path, 0700), 0);
  make("outside/secret", "secret");
  make("tree/f", "inside");
  client = shmqd_client(&d);
  tree = shmq_resource(client, "tree");
  all = shmq_resource(client, "all");
}
static void end(void) {
  must_be_intact();
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_dir_escape, .init = begin, .fini = end, .timeout = 200);

static int ask(int resource, uint16_t op, uint64_t v0, const void *data, size_t size) {
  return shmqd_ask(client, resource, op, v0, 0644, data, size, 1000, &r);
}

/* All that takes a name; what would make something would make it outside. */
static void must_refuse(int resource, const char *name, size_t n) {
  static const uint16_t ops[] = {SHMQ_DIR_GET, SHMQ_DIR_LIST, SHMQ_DIR_MKDIR, SHMQ_DIR_UNLINK};
  char data[512];
  for (unsigned i = 0; i < sizeof ops / sizeof *ops; i++)
    cr_assert_lt(ask(resource, ops[i], 0, name, n), 0, "%d '%.*s'", ops[i], (int)n, name);
  cr_assert_lt(ask(resource, SHMQ_DIR_UNLINK, 1, name, n), 0, "rmdir '%.*s'", (int)n, name);
  for (unsigned flags = 0; flags < 8; flags += 1 + 2 * (flags == 1))
    cr_assert_lt(ask(resource, SHMQ_DIR_OPEN, flags, name, n), 0, "open '%.*s'", (int)n, name);
  memcpy(data, name, n);
  memcpy(data + n, "overwritten", 11);
  cr_assert_lt(ask(resource, SHMQ_DIR_PUT, n, data, n + 11), 0, "put '%.*s'", (int)n, name);
  memcpy(data, "f", 2);
  memcpy(data + 2, name, n);
  cr_assert_lt(ask(resource, SHMQ_DIR_RENAME, 0, data, n + 2), 0, "rename to '%.*s'", (int)n, name);
  memcpy(data, name, n);
  memcpy(data + n, "\0stolen", 7);
  cr_assert_lt(ask(resource, SHMQ_DIR_RENAME, 0, data, n + 7), 0, "rename of '%.*s'", (int)n, name);
}

Test(daemon_dir_escape, sixty_names_lead_nowhere)
{
  make_link("up", "..");
  make_link("out", "../outside");
  make_link("sub/out", "../../outside");
  make_link("etc", "/etc");
  make_link("proc", "/proc/self/root");
  make_link("fd", "/proc/self/fd/3");
  make_link("cwd", "/proc/self/cwd");
  make_link("loop", "loop");
  make_link("ping", "pong");
  make_link("pong", "ping");
  make_link("here", ".");
  make_link("far", "here/here/up");
  static const char *const escapes[] = {
      "../outside/secret", "../outside", "../outside/new", "..//outside/secret", ".././outside/secret",
      "./../outside/secret", "sub/../../outside/secret", "sub/../../outside/new", "sub/./../../outside/secret",
      "sub//..//..//outside/secret", "sub/../sub/../../outside/secret", "../tree/../outside/secret",
      "../../../../../../../../etc/passwd", "../../../../../../../../etc/new", "nothing/../../outside/secret",
      "f/../../outside/secret", "/etc/passwd", "/etc/new", "//etc/passwd", "///etc//passwd", "/", "//", "/.", "/..",
      "/proc/self/root/etc/passwd", "/dev/null", "/dev/shm", "/proc/self/fd/3", "..", "../", "../..", "../.",
      "sub/../..", "up/outside/secret", "up/outside/new", "up/tree/f", "up/..", "up/new", "out/secret", "out/new", "out/.",
      "out/../outside/secret", "sub/out/secret", "sub/out/new", "etc/passwd", "etc/new", "etc/ssl/certs", "proc/etc/passwd",
      "proc/etc/new", "proc/proc/self/environ", "fd/x", "fd/secret", "cwd/x", "cwd/etc", "loop/x", "ping/x",
      "pong/ping/x", "far/outside/secret", "far/outside/new", "here/up/outside/secret", "here/f", "here/new",
      "here/../outside/secret", "up/./outside/./secret", "out//secret"};
  enum { COUNT = sizeof escapes / sizeof *escapes };
  cr_assert_geq(COUNT, 60);
  for (int i = 0; i < COUNT; i++) must_refuse(tree, escapes[i], strlen(escapes[i]));
  must_refuse(tree, "f\0/../../outside/secret", 23);
  must_refuse(tree, "sub\0", 4);
  must_refuse(tree, "../outside/secret\0", 18);
  cr_assert_eq(ask(tree, SHMQ_DIR_GET, 0, "f", 1), 0);
  cr_assert_eq(memcmp(r.data, "inside", 6), 0);
}

/* The tree of everything has other mounts in it, which cross_mounts = no forbids. */
Test(daemon_dir_escape, other_mounts_are_not_entered)
{
  static const char *const names[] = {"proc/self/status", "proc/self/root/etc/passwd", "proc/1/mem", "dev/null",
                                      "dev/zero", "dev/shm", "dev/pts/ptmx", "sys/kernel", "proc/sys/kernel/panic"};
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
    size_t n = strlen(names[i]);
    cr_assert_lt(ask(all, SHMQ_DIR_GET, 0, names[i], n), 0, "%s", names[i]);
    cr_assert_lt(ask(all, SHMQ_DIR_OPEN, SHMQ_DIR_WRITABLE, names[i], n), 0, "%s", names[i]);
    cr_assert_lt(ask(all, SHMQ_DIR_LIST, 0, names[i], n), 0, "%s", names[i]);
  }
}

Test(daemon_dir_escape, what_is_no_file_is_not_opened_and_waits_for_nobody)
{
  const struct {
    const char *name;
    mode_t type;
    dev_t device;
  } nodes[] = {{"fifo", S_IFIFO, 0}, {"zero", S_IFCHR, makedev(1, 5)}, {"disk", S_IFBLK, makedev(7, 0)}, {"socket", S_IFSOCK, 0}};
  char path[256];
  for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
    snprintf(path, sizeof path, "%s/tree/%s", d.dir, nodes[i].name);
    if (mknod(path, nodes[i].type | 0600, nodes[i].device)) continue; /* devices are root's to make */
    size_t n = strlen(nodes[i].name);
    cr_assert_lt(ask(tree, SHMQ_DIR_GET, 0, nodes[i].name, n), 0, "%s", nodes[i].name);
    cr_assert_lt(ask(tree, SHMQ_DIR_OPEN, 0, nodes[i].name, n), 0, "%s", nodes[i].name);
    cr_assert_lt(ask(tree, SHMQ_DIR_OPEN, SHMQ_DIR_WRITABLE, nodes[i].name, n), 0, "%s", nodes[i].name);
    cr_assert_lt(ask(tree, SHMQ_DIR_LIST, 0, nodes[i].name, n), 0, "%s", nodes[i].name);
  }
}

/* Another process exchanges a directory and a link that leads out, as fast as it can. */
static void exchange_for_ever(void) {
  char one[256], other[256];
  snprintf(one, sizeof one, "%s/tree/swap", d.dir);
  snprintf(other, sizeof other, "%s/tree/swapped", d.dir);
  for (;;) syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2u /* RENAME_EXCHANGE */);
}

Test(daemon_dir_escape, a_link_made_in_the_middle_leads_nowhere)
{
  char path[256];
  int seen[2] = {0};
  snprintf(path, sizeof path, "%s/tree/swap", d.dir);
  cr_assert_eq(mkdir(path, 0700), 0);
  make("tree/swap/secret", "inside");
  make_link("swapped", "../outside");
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    exchange_for_ever();
  }
  for (int i = 0; i < 300 || !seen[0] || !seen[1]; i++) {
    int rc = ask(tree, SHMQ_DIR_GET, 0, "swap/secret", 11);
    seen[rc == 0]++;
    if (rc == 0) cr_assert_eq(memcmp(r.data, "inside", 6), 0);
    ask(tree, SHMQ_DIR_PUT, 11, "swap/secretinside", 17);
    ask(tree, SHMQ_DIR_MKDIR, 0, "swap/new", 8);
    ask(tree, SHMQ_DIR_UNLINK, 1, "swap/new", 8);
    ask(tree, SHMQ_DIR_RENAME, 0, "swap/secret\0swapped/stolen", 26);
    ask(tree, SHMQ_DIR_RENAME, 0, "swapped/stolen\0swap/secret", 26);
    ask(tree, SHMQ_DIR_PUT, 11, "swap/secretinside", 17);
  }
  stop_server(pid);
}
