/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "os/object.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "shmq/shmq.h"

int shmq__object_path(const char *name, char out[SHMQ__PATH_MAX]) {
  if (!name) return -EINVAL;
  size_t n = strlen(name);
  if (n == 0 || name[0] == '.' || strchr(name, '/')) return -EINVAL;
  if (n > SHMQ_NAME_MAX) return -ENAMETOOLONG;
  snprintf(out, SHMQ__PATH_MAX, "/%s%s", SHMQ__PREFIX, name);
  return 0;
}

int shmq__object_open(const char *path, bool writable) {
  int fd = shm_open(path, writable ? O_RDWR : O_RDONLY, 0);
  return fd < 0 ? -errno : fd;
}

int shmq__object_create(const char *path, mode_t mode) {
  int fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL, mode & 0600);
  return fd < 0 ? -errno : fd;
}

int shmq__object_memfd(const char *name) {
  int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  return fd < 0 ? -errno : fd;
}

int shmq__object_seal(int fd) {
  return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ? -errno : 0;
}

int shmq__object_reopen(int fd) {
  char path[40];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int again = open(path, O_RDWR | O_CLOEXEC);
  return again < 0 ? -errno : again;
}

int shmq__object_unlink(const char *path) { return shm_unlink(path) < 0 ? -errno : 0; }

int shmq__object_status(int fd, struct shmq__object_status *out) {
  struct stat st;
  if (fstat(fd, &st) < 0) return -errno;
  *out = (struct shmq__object_status){.bytes = (uint64_t)st.st_size,
                                      .device = st.st_dev,
                                      .inode = st.st_ino,
                                      .links = (unsigned)st.st_nlink,
                                      .mode = st.st_mode & 07777,
                                      .uid = st.st_uid,
                                      .gid = st.st_gid};
  return 0;
}

static uint64_t room(int fd) {
  struct statvfs vfs;
  if (fstatvfs(fd, &vfs) < 0) return 0;
  return (uint64_t)vfs.f_bavail * vfs.f_frsize;
}

int shmq__object_allocate(int fd, uint64_t bytes, uint64_t *available) {
  int rc;
  if (ftruncate(fd, 0) < 0) return -errno;
  *available = room(fd);
  do rc = posix_fallocate(fd, 0, (off_t)bytes);
  while (rc == EINTR);
  return -rc;
}

int shmq__object_set_mode(int fd, mode_t mode) { return fchmod(fd, mode) < 0 ? -errno : 0; }

void *shmq__object_map(int fd, uint64_t bytes, bool writable) {
  int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  void *memory = mmap(NULL, bytes, protection, MAP_SHARED, fd, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

void shmq__object_unmap(void *memory, uint64_t bytes) { (void)munmap(memory, bytes); }

ssize_t shmq__object_read(int fd, void *out, size_t bytes, uint64_t offset) {
  ssize_t n;
  do n = pread(fd, out, bytes, (off_t)offset);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

void shmq__object_close(int fd) {
  if (fd >= 0) (void)close(fd);
}

int shmq__random(void *out, size_t bytes) {
  unsigned char *p = out;
  while (bytes > 0) {
    ssize_t n = getrandom(p, bytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    p += n;
    bytes -= (size_t)n;
  }
  return 0;
}
