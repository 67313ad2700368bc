/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "os/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct flock one_byte(short type, uint32_t byte) {
  return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

int shmq__lock_try(int fd, uint32_t byte) {
  struct flock lock = one_byte(F_WRLCK, byte);
  int rc;
  do rc = fcntl(fd, F_OFD_SETLK, &lock);
  while (rc < 0 && errno == EINTR);
  if (rc == 0) return 0;
  return errno == EACCES ? -EAGAIN : -errno;
}

void shmq__lock_release(int fd, uint32_t byte) {
  struct flock lock = one_byte(F_UNLCK, byte);
  (void)fcntl(fd, F_OFD_SETLK, &lock);
}

int shmq__lock_is_held(int fd, uint32_t byte) {
  struct flock lock = one_byte(F_WRLCK, byte);
  if (fcntl(fd, F_OFD_GETLK, &lock) < 0) return -errno;
  return lock.l_type != F_UNLCK;
}
