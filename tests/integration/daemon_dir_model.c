/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's `dir` in lockstep with the same calls on another directory: the same errnos, contents and trees.
 */
#include <criterion/criterion.h>

#include "support/shmqd.h"

static struct shmqd d;
static shmq_client *client;
static int tree;
static shmq_result r;

static void begin(void) {
  char path[128];
  shmqd_new(&d);
  snprintf(path, sizeof path, "%s/twin", d.dir);
  cr_assert_eq(mkdir(path, 0700), 0);
  client = shmqd_client(&d);
  tree = shmq_resource(client, "tree");
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_dir_model, .init = begin, .fini = end, .timeout = 200);

static const char *const names[] = {"a",   "b",     "d",     "e",       "d/a",     "d/b",
                                    "d/e", "d/e/a", "d/e/f", "d/e/f/a", "a/under", "none/x"};
enum { NAMES = sizeof names / sizeof *names, SIZE_MAX_HERE = 20000 };

static unsigned seed = 7;
static int below(int n) { return rand_r(&seed) % n; }

static void twin(char path[256], const char *name) {
  snprintf(path, 256, "%s/twin/%s", d.dir, name);
}

static int ask(uint16_t op, uint64_t v0, uint64_t v1, const void *data, size_t size, size_t room) {
  return shmqd_ask(client, tree, op, v0, v1, data, size, room, &r);
}

static void same(int daemon, int here, const char *what, const char *name) {
  cr_assert_eq(daemon, here, "%s %s: %d and not %d", what, name, daemon, here);
}

static int result(int rc) { return rc < 0 ? -errno : 0; }

static void try_mkdir(const char *name) {
  char path[256];
  mode_t mode = below(2) ? 0755 : 0700;
  twin(path, name);
  same(ask(SHMQ_DIR_MKDIR, 0, mode, name, strlen(name), 0), result(mkdir(path, mode)), "mkdir", name);
}

static void try_unlink(const char *name, bool directory) {
  char path[256];
  twin(path, name);
  same(ask(SHMQ_DIR_UNLINK, directory, 0, name, strlen(name), 0),
       result(directory ? rmdir(path) : unlink(path)), directory ? "rmdir" : "unlink", name);
}

static void try_rename(const char *from, const char *to) {
  char old[256], new[256], both[256];
  int n = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
  twin(old, from);
  twin(new, to);
  same(ask(SHMQ_DIR_RENAME, 0, 0, both, (size_t)n, 0), result(rename(old, new)), "rename", from);
}

static void fill(char *data, int size) {
  char first = (char)('a' + below(26));
  for (int i = 0; i < size; i++) data[i] = (char)(first + i % 7);
}

/* As put does it: a whole file, and then its name. */
static int put_here(const char *name, const char *data, int size) {
  char path[256], temp[256], *slash;
  twin(path, name);
  snprintf(temp, sizeof temp, "%s", path);
  slash = strrchr(temp, '/');
  snprintf(slash + 1, sizeof temp - (size_t)(slash + 1 - temp), ".temporary");
  int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL, 0640);
  if (fd < 0) return -errno;
  cr_assert_eq(write(fd, data, (size_t)size), size);
  close(fd);
  int rc = result(rename(temp, path));
  if (rc) unlink(temp);
  return rc;
}

static void try_put(const char *name) {
  static char data[SIZE_MAX_HERE + 256];
  int n = (int)strlen(name), size = below(SIZE_MAX_HERE);
  memcpy(data, name, (size_t)n);
  fill(data + n, size);
  same(ask(SHMQ_DIR_PUT, (uint64_t)n, 0640, data, (size_t)(n + size), 0),
       put_here(name, data + n, size), "put", name);
}

static int open_here(const char *name, unsigned flags) {
  char path[256];
  struct stat st;
  twin(path, name);
  int fd = open(path, (flags ? O_RDWR : O_RDONLY) | (flags & SHMQ_DIR_CREATE ? O_CREAT : 0) |
                          (flags & SHMQ_DIR_EXCLUSIVE ? O_EXCL : 0) |
                          (flags & SHMQ_DIR_TRUNC ? O_TRUNC : 0), 0600);
  if (fd < 0) return -errno;
  if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) return fd;
  close(fd);
  return -EISDIR; /* the daemon opens files only */
}

static void try_file(const char *name) {
  static char data[SIZE_MAX_HERE], back[SIZE_MAX_HERE];
  static const unsigned choices[] = {0, SHMQ_DIR_WRITABLE, SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE,
                                     SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE | SHMQ_DIR_EXCLUSIVE,
                                     SHMQ_DIR_WRITABLE | SHMQ_DIR_TRUNC};
  unsigned flags = choices[below(5)];
  int fd = open_here(name, flags);
  same(ask(SHMQ_DIR_OPEN, flags, 0600, name, strlen(name), 0), fd < 0 ? fd : 0, "open", name);
  if (fd < 0) return;
  uint64_t handle = r.value[0];
  for (int i = below(4); i >= 0; i--) {
    int at = below(SIZE_MAX_HERE), size = below(5000);
    fill(data, size);
    ssize_t n = pwrite(fd, data, (size_t)size, at);
    int here = n < 0 ? -errno : 0;
    int rc = ask(SHMQ_DIR_WRITE, handle, (uint64_t)at, data, (size_t)size, 0);
    same(rc, here, "write", name);
    if (!rc) cr_assert_eq((ssize_t)r.value[0], n);
    if (below(3) == 0) {
      int length = below(SIZE_MAX_HERE);
      here = result(ftruncate(fd, length));
      same(ask(SHMQ_DIR_TRUNCATE, handle, (uint64_t)length, NULL, 0, 0), here, "truncate", name);
    }
    at = below(SIZE_MAX_HERE);
    n = pread(fd, back, 5000, at);
    cr_assert_eq(ask(SHMQ_DIR_READ, handle, (uint64_t)at, NULL, 0, 5000), 0);
    cr_assert_eq((ssize_t)r.size, n);
    cr_assert_eq(memcmp(r.data, back, r.size), 0);
  }
  cr_assert_eq(ask(SHMQ_DIR_CLOSE, handle, 0, NULL, 0, 0), 0);
  close(fd);
}

static void try_stat(const char *name) {
  char path[256];
  struct stat st;
  shmq_dir_stat s;
  twin(path, name);
  int here = result(lstat(path, &st));
  same(ask(SHMQ_DIR_STAT, 0, 0, name, strlen(name), 0), here, "stat", name);
  if (here) return;
  memcpy(&s, r.data, sizeof s);
  cr_assert_eq(s.mode, st.st_mode);
  cr_assert_eq(s.links, st.st_nlink);
  if (S_ISREG(st.st_mode)) cr_assert_eq((off_t)s.size, st.st_size);
}

static void must_be_the_same_tree(void) {
  char command[512];
  snprintf(command, sizeof command,
           "cd %s && diff -r tree twin && for t in tree twin; do (cd $t && find . -printf '%%p %%y %%m %%n\\n' "
           "| sort >../$t.list); done && cmp tree.list twin.list",
           d.dir);
  cr_assert_eq(system(command), 0);
}

Test(daemon_dir_model, it_does_what_the_calls_do)
{
  for (int i = 0; i < 1500; i++) {
    const char *name = names[below(NAMES)];
    switch (below(8)) {
    case 0: try_mkdir(name); break;
    case 1: try_unlink(name, false); break;
    case 2: try_unlink(name, true); break;
    case 3: try_rename(name, names[below(NAMES)]); break;
    case 4: try_put(name); break;
    case 5: try_stat(name); break;
    default: try_file(name);
    }
    if (i % 250 == 249) must_be_the_same_tree();
  }
}
