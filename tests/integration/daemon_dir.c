/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `dir`: what it does, and what it refuses.
 */
#include <criterion/criterion.h>

#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static int tree;
static shmq_result r;

static void begin(void) {
  shmqd_new(&d);
  client = shmqd_client(&d);
  tree = shmq_resource(client, "tree");
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_dir, .init = begin, .fini = end, .timeout = 100);

static void local(char path[256], const char *name) {
  snprintf(path, 256, "%s/tree/%s", d.dir, name);
}

static void make_file(const char *name, const char *data, size_t size) {
  char path[256];
  local(path, name);
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  cr_assert_geq(fd, 0);
  cr_assert_eq(write(fd, data, size), (ssize_t)size);
  close(fd);
}

static int ask_path(uint16_t op, const char *path, size_t room) {
  return shmqd_ask(client, tree, op, 0, 0755, path, strlen(path), room, &r);
}

Test(daemon_dir, get_reads_a_file_in_place)
{
  make_file("a b\nc", "hello", 5);
  make_file("empty", "", 0);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, "a b\nc", 1000), 0);
  cr_assert_eq(r.size, 5);
  cr_assert_arr_eq(r.data, "hello", 5);
  cr_assert_eq(r.value[0], 5);
  cr_assert_eq(r.value[1], 0);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, "empty", 1000), 0);
  cr_assert_eq(r.size, 0);
}

Test(daemon_dir, a_file_longer_than_the_room_is_read_in_pieces)
{
  enum { SIZE = 300000, ROOM = 65536 };
  char *data = malloc(SIZE), *back = malloc(SIZE);
  for (int i = 0; i < SIZE; i++) data[i] = (char)(i * 31 >> 3);
  make_file("long", data, SIZE);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, "long", ROOM), 0);
  cr_assert_eq(r.value[0], SIZE);
  uint64_t handle = r.value[1], at = r.size;
  cr_assert_neq(handle, 0);
  memcpy(back, r.data, r.size);
  while (at < SIZE) {
    cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, at, NULL, 0, ROOM, &r), 0);
    cr_assert_gt(r.size, 0);
    memcpy(back + at, r.data, r.size);
    at += r.size;
  }
  cr_assert_eq(memcmp(data, back, SIZE), 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, at, NULL, 0, ROOM, &r), 0);
  cr_assert_eq(r.size, 0, "the end");
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_CLOSE, handle, 0, NULL, 0, 0, &r), 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, 0, NULL, 0, ROOM, &r), -EBADF);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_CLOSE, handle, 0, NULL, 0, 0, &r), -EBADF);
  free(data);
  free(back);
}

Test(daemon_dir, write_truncate_sync_and_stat)
{
  const char *name = "new";
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_OPEN,
                         SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE | SHMQ_DIR_EXCLUSIVE, 0640, name, 3, 0,
                         &r),
               0);
  uint64_t handle = r.value[0];
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_WRITE, handle, 10, "data", 4, 0, &r), 0);
  cr_assert_eq(r.value[0], 4);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_SYNC, handle, 0, NULL, 0, 0, &r), 0);
  cr_assert_eq(ask_path(SHMQ_DIR_STAT, name, 0), 0);
  shmq_dir_stat st;
  memcpy(&st, r.data, sizeof st);
  cr_assert_eq(st.size, 14);
  cr_assert(S_ISREG(st.mode));
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_TRUNCATE, handle, 12, NULL, 0, 0, &r), 0);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, name, 100), 0);
  cr_assert_eq(r.size, 12);
  cr_assert_eq(memcmp((char *)r.data + 10, "da", 2), 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_OPEN,
                         SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE | SHMQ_DIR_EXCLUSIVE, 0640, name, 3, 0,
                         &r),
               -EEXIST);
}

Test(daemon_dir, names_are_made_renamed_and_removed)
{
  cr_assert_eq(ask_path(SHMQ_DIR_MKDIR, "sub", 0), 0);
  cr_assert_eq(ask_path(SHMQ_DIR_MKDIR, "sub", 0), -EEXIST);
  make_file("sub/x", "1", 1);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_RENAME, 0, 0, "sub/x\0y", 7, 0, &r), 0);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, "sub/x", 10), -ENOENT);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, "y", 10), 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_UNLINK, 1, 0, "sub", 3, 0, &r), 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_UNLINK, 0, 0, "y", 1, 0, &r), 0);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_UNLINK, 0, 0, "y", 1, 0, &r), -ENOENT);
}

Test(daemon_dir, put_replaces_a_file_as_one)
{
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_PUT, 4, 0600, i ? "filesecond" : "filefirst",
                           i ? 10 : 9, 0, &r),
                 0);
    cr_assert_eq(ask_path(SHMQ_DIR_GET, "file", 100), 0);
    cr_assert_eq(r.size, i ? 6 : 5);
    cr_assert_arr_eq(r.data, i ? "second" : "first", r.size);
  }
  cr_assert_eq(ask_path(SHMQ_DIR_LIST, "", 4096), 0);
  cr_assert_eq(r.size, 6, "no temporary file is left");
}

Test(daemon_dir, a_listing_goes_on_at_its_cursor)
{
  enum { FILES = 500 };
  static char seen[FILES];
  char name[32];
  uint64_t cursor = 0;
  int n = 0;
  for (int i = 0; i < FILES; i++) {
    snprintf(name, sizeof name, "file-%d", i);
    make_file(name, "", 0);
  }
  do {
    cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_LIST, cursor, 0, NULL, 0, 1000, &r), 0);
    for (char *p = r.data; p < (char *)r.data + r.size; p += strlen(p) + 1, n++) {
      int i;
      cr_assert_eq(*p, 'f');
      cr_assert_eq(sscanf(p + 1, "file-%d", &i), 1);
      cr_assert_eq(seen[i]++, 0);
    }
    cursor = r.value[0];
  } while (cursor);
  cr_assert_eq(n, FILES);
}

/* Everything that leads out of the tree, or at what is no file. */
Test(daemon_dir, what_leads_out_of_the_root_is_refused)
{
  static const char *const escapes[] = {"..",
                                        "../",
                                        "../tree/f",
                                        "../../etc/passwd",
                                        "sub/../../f",
                                        "sub/../..",
                                        "/",
                                        "//",
                                        "/etc/passwd",
                                        "/proc/self/root/etc/passwd",
                                        "./../f",
                                        "sub/./../../x",
                                        "link",
                                        "link/passwd",
                                        "deep/link/passwd",
                                        "sub/link",
                                        "selflink",
                                        "selflink/f",
                                        "uplink",
                                        "uplink/log",
                                        "abslink",
                                        "fifo",
                                        "sub/fifo",
                                        "socket",
                                        ".",
                                        "sub",
                                        "sub/",
                                        "f/",
                                        "f/x",
                                        "f/..",
                                        "nothing",
                                        "nothing/x",
                                        "",
                                        "link/",
                                        "uplink/..",
                                        "magic",
                                        "magic/etc/passwd",
                                        "....",
                                        ".../x",
                                        "dangling",
                                        "dangling/x",
                                        "loop",
                                        "loop/x"};
  char path[256];
  make_file("f", "inside", 6);
  cr_assert_eq(ask_path(SHMQ_DIR_MKDIR, "sub", 0), 0);
  cr_assert_eq(ask_path(SHMQ_DIR_MKDIR, "deep", 0), 0);
  static const char *const links[][2] = {{"link", "/etc"},
                                         {"deep/link", "/etc"},
                                         {"sub/link", "../f"},
                                         {"selflink", "."},
                                         {"uplink", ".."},
                                         {"abslink", "/etc/passwd"},
                                         {"magic", "/proc/self/root"},
                                         {"dangling", "nowhere"},
                                         {"loop", "loop"}};
  for (unsigned i = 0; i < sizeof links / sizeof links[0]; i++) {
    local(path, links[i][0]);
    cr_assert_eq(symlink(links[i][1], path), 0);
  }
  local(path, "fifo");
  cr_assert_eq(mkfifo(path, 0600), 0);
  local(path, "sub/fifo");
  cr_assert_eq(mkfifo(path, 0600), 0);
  static const uint16_t ops[] = {SHMQ_DIR_GET, SHMQ_DIR_OPEN};
  for (unsigned o = 0; o < 2; o++)
    for (unsigned i = 0; i < sizeof escapes / sizeof escapes[0]; i++)
      cr_assert_lt(ask_path(ops[o], escapes[i], 1000), 0, "'%s'", escapes[i]);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_GET, 0, 0, "f\0x", 3, 100, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_STAT, 0, 0, "f\0x", 3, 100, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_PUT, 3, 0600, "../data", 7, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_PUT, 7, 0600, "../new!data", 11, 0, &r), -EXDEV);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_RENAME, 0, 0, "f\0../f", 6, 0, &r), -EXDEV);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_UNLINK, 0, 0, "..", 2, 0, &r), -EINVAL);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_MKDIR, 0, 0700, "../new", 6, 0, &r), -EXDEV);
  cr_assert_eq(ask_path(SHMQ_DIR_GET, "f", 100), 0);
  cr_assert_arr_eq(r.data, "inside", 6);
}

Test(daemon_dir, open_files_are_limited)
{
  make_file("f", "", 0);
  int rc = 0, n = 0;
  while ((rc = ask_path(SHMQ_DIR_OPEN, "f", 0)) == 0) n++;
  cr_assert_eq(rc, -EMFILE);
  cr_assert_eq(n, 64);
}

Test(daemon_dir, many_requests_at_once)
{
  enum { MANY = 3000 };
  make_file("f", "0123456789", 10);
  struct iovec part = {(void *)(uintptr_t) "f", 1};
  shmq_ask a = {
      .resource = (uint16_t)tree, .op = SHMQ_DIR_GET, .parts = &part, .part_count = 1, .room = 100};
  shmq_future *f[8] = {NULL};
  for (int i = 0; i < MANY; i++) {
    if (f[i % 8]) {
      cr_assert_eq(shmq_await(f[i % 8], &r, PATIENCE), 0);
      cr_assert_eq(r.size, 10);
      shmq_future_free(f[i % 8]);
    }
    cr_assert_eq(shmq_request(client, &a, PATIENCE, &f[i % 8]), 0);
  }
  for (int i = 0; i < 8; i++) shmq_future_free(f[i]);
}

/* The page cache has something else than the disk is asked for only in what is not written back, so the file is synced. */
Test(daemon_dir, a_direct_handle_reads_past_the_page_cache)
{
  enum { PAGE = 4096, PAGES = 5 };
  char data[PAGES * PAGE + 100], path[256];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 131 >> 7);
  make_file("direct", data, sizeof data);
  local(path, "direct");
  int fd = open(path, O_RDONLY | O_DIRECT);
  if (fd < 0) cr_skip("this file system has no O_DIRECT");
  cr_assert_eq(fsync(fd), 0);
  close(fd);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_OPEN, SHMQ_DIR_DIRECT | SHMQ_DIR_WRITABLE, 0, "direct", 6, 0, &r),
               -EINVAL, "for reading only");
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_OPEN, SHMQ_DIR_DIRECT, 0, "direct", 6, 0, &r), 0);
  uint64_t handle = r.value[0];
  for (size_t at = 0; at < sizeof data; at += PAGE) {
    size_t left = sizeof data - at < PAGE ? sizeof data - at : PAGE;
    cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, at, NULL, 0, PAGE + 512, &r), 0);
    cr_assert_eq(r.size, left);
    cr_assert_eq((uintptr_t)r.data % 512, 0, "read where it lies");
    cr_assert_arr_eq((char *)r.data, data + at, left);
  }
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, 100, NULL, 0, PAGE + 512, &r), -EINVAL, "the offset");
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, 0, NULL, 0, 512, &r), -EINVAL, "the room");
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_CLOSE, handle, 0, NULL, 0, 0, &r), 0);
}

Test(daemon_dir, where_paths_cannot_be_walked_it_does_not_start)
{
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0);
  setenv("TEST_FORBID_OPENAT2", "1", 1);
  cr_assert_not(shmqd_try(&d, true), "ready");
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 1);
  unsetenv("TEST_FORBID_OPENAT2");
  shmqd_start(&d);
  client = shmqd_client(&d);
}
