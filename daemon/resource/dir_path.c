/* SPDX-License-Identifier: Apache-2.0
 *
 * Names below a root. The kernel resolves them (openat2), so there is no moment between a check
 * and a use in which a component could be exchanged. Refused: whatever leads out or through a link
 * (-EXDEV, -ELOOP), other mounts unless configured, and whatever is neither a file nor a directory.
 */
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "resource/dir.h"

static int sys_openat2(int at, const char *path, struct open_how *how) {
  long fd = syscall(SYS_openat2, at, path, how, sizeof *how);
  return fd < 0 ? -errno : (int)fd;
}

static uint64_t resolve_flags(const struct dir *dir, bool cached) {
  uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  if (!dir->cross_mounts) resolve |= RESOLVE_NO_XDEV;
  return cached ? resolve | RESOLVE_CACHED : resolve;
}

/* O_NONBLOCK: opening a FIFO or a device must not wait; what was opened is looked at afterwards. */
int dir_open_path(const struct dir *dir, const char *path, int flags, mode_t mode, bool cached,
                  struct stat *st) {
  if (!(flags & O_PATH)) flags |= O_NOCTTY | O_NONBLOCK;
  struct open_how how = {.flags = (uint64_t)flags | O_CLOEXEC,
                         .mode = flags & O_CREAT ? mode & 07777 : 0,
                         .resolve = resolve_flags(dir, cached)};
  int fd = sys_openat2(dir->root, *path ? path : ".", &how);
  if (fd < 0) return fd == -EINVAL && cached ? -EAGAIN : fd;
  int rc = fstat(fd, st) ? -errno : 0;
  if (!rc && !(flags & O_PATH)) {
    bool wanted = flags & O_DIRECTORY ? S_ISDIR(st->st_mode) : S_ISREG(st->st_mode);
    if (!wanted) rc = S_ISDIR(st->st_mode) ? -EISDIR : -EACCES;
  }
  if (!rc) return fd;
  close(fd);
  return rc;
}

int dir_open_parent(const struct dir *dir, const char *path, const char **leaf) {
  char parent[PATH_MAX];
  struct stat st;
  const char *slash = strrchr(path, '/');
  size_t n = slash ? (size_t)(slash - path) : 0;
  *leaf = slash ? slash + 1 : path;
  if (!**leaf || strcmp(*leaf, ".") == 0 || strcmp(*leaf, "..") == 0) return -EINVAL;
  if (slash == path) return -EXDEV;
  if (n >= sizeof parent) return -ENAMETOOLONG;
  memcpy(parent, path, n);
  parent[n] = 0;
  return dir_open_path(dir, n ? parent : ".", O_RDONLY | O_DIRECTORY, 0, false, &st);
}
