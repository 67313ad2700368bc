/* SPDX-License-Identifier: Apache-2.0
 *
 * Between the daemon and the kernel: linked with --wrap, so that the daemon's own sources are what is shipped.
 */
#include "support/faults.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io.h"

void __real_io_submit(struct io *io, struct io_op *op);
ssize_t __real_write(int fd, const void *data, size_t bytes);
ssize_t __real_pwrite(int fd, const void *data, size_t bytes, off_t offset);
ssize_t __real_pread(int fd, void *data, size_t bytes, off_t offset);
ssize_t __real_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_renameat(int from, const char *old, int to, const char *new);

static struct faults *faults(void) {
  static struct faults *shared, none;
  if (shared) return shared;
  const char *path = getenv("TEST_FAULTS");
  int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
  void *p =
      fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  return shared = p == MAP_FAILED ? &none : p;
}

static bool is_file(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
}

static bool has_suffix(const char *text, size_t bytes, const char *suffix) {
  size_t n = strlen(suffix);
  return n <= bytes && memcmp(text + bytes - n, suffix, n) == 0;
}

static bool is_concerned(int fd, const char *suffix) {
  char link[64], path[PATH_MAX];
  if (!*suffix) return true;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path);
  return n > 0 && has_suffix(path, (size_t)n, suffix);
}

/* Does one from `first` to `last` happen now? */
static enum fault strikes(int fd, enum fault first, enum fault last) {
  struct faults *f = faults();
  int armed = f->armed;
  if (armed < (int)first || armed > (int)last) return FAULT_NONE;
  if (!is_file(fd) || !is_concerned(fd, f->suffix)) return FAULT_NONE;
  if (atomic_fetch_sub(&f->after, 1) > 0) return FAULT_NONE;
  if (!atomic_compare_exchange_strong(&f->armed, &armed, FAULT_NONE)) return FAULT_NONE;
  f->happened++;
  return (enum fault)armed;
}
static enum fault write_strikes(int fd) { return strikes(fd, FAULT_WRITE_SHORT, FAULT_WRITE_LATE); }
static enum fault read_strikes(int fd) { return strikes(fd, FAULT_READ_SHORT, FAULT_READ_ERROR); }

/* In whole blocks where there are some: what bypasses the page cache must stay aligned. */
static size_t half(size_t bytes) {
  return bytes >= 8192 ? bytes / 2 & ~(size_t)4095 : (bytes + 1) / 2;
}

static ssize_t failed(void) {
  errno = faults()->error;
  return -1;
}

/* ---- what the ring or the helpers do ---- */

static int fail(struct io_op *op) {
  (void)op;
  return -faults()->error;
}
static int write_half_and_fail(struct io_op *op) {
  (void)!__real_pwrite(op->fd, op->buffer, half(op->bytes), (off_t)op->offset);
  return -faults()->error;
}
static int write_and_fail(struct io_op *op) {
  (void)!__real_pwrite(op->fd, op->buffer, op->bytes, (off_t)op->offset);
  return -faults()->error;
}

static enum fault strikes_op(const struct io_op *op) {
  switch (op->what) {
  case IO_WRITE: return write_strikes(op->fd);
  case IO_READ: return read_strikes(op->fd);
  case IO_SYNC: faults()->syncs++; return strikes(op->fd, FAULT_SYNC_ERROR, FAULT_SYNC_ERROR);
  default: return FAULT_NONE;
  }
}

void __wrap_io_submit(struct io *io, struct io_op *op) {
  enum fault fault = strikes_op(op);
  if (fault == FAULT_WRITE_SHORT || fault == FAULT_READ_SHORT) {
    op->bytes = half(op->bytes);
  } else if (fault != FAULT_NONE) {
    op->what = IO_CALL;
    op->call = fault == FAULT_WRITE_TORN   ? write_half_and_fail
               : fault == FAULT_WRITE_LATE ? write_and_fail
                                           : fail;
  }
  __real_io_submit(io, op);
}

/* ---- what helpers call themselves ---- */

static ssize_t do_write(int fd, const void *data, size_t bytes, off_t offset) {
  return offset < 0 ? __real_write(fd, data, bytes) : __real_pwrite(fd, data, bytes, offset);
}

static ssize_t faulty_write(int fd, const void *data, size_t bytes, off_t offset) {
  switch (write_strikes(fd)) {
  case FAULT_WRITE_SHORT: return do_write(fd, data, half(bytes), offset);
  case FAULT_WRITE_ERROR: return failed();
  case FAULT_WRITE_TORN: (void)!do_write(fd, data, half(bytes), offset); return failed();
  case FAULT_WRITE_LATE: (void)!do_write(fd, data, bytes, offset); return failed();
  default: return do_write(fd, data, bytes, offset);
  }
}

ssize_t __wrap_write(int fd, const void *data, size_t bytes) {
  return faulty_write(fd, data, bytes, -1);
}
ssize_t __wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset) {
  return faulty_write(fd, data, bytes, offset);
}

ssize_t __wrap_pread(int fd, void *data, size_t bytes, off_t offset) {
  enum fault fault = read_strikes(fd);
  if (fault == FAULT_READ_ERROR) return failed();
  return __real_pread(fd, data, fault ? half(bytes) : bytes, offset);
}

ssize_t __wrap_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
  enum fault fault = read_strikes(fd);
  if (fault == FAULT_READ_ERROR) return failed();
  if (!fault || count != 1) return __real_preadv2(fd, parts, count, offset, flags);
  const struct iovec part = {.iov_base = parts->iov_base, .iov_len = half(parts->iov_len)};
  return __real_preadv2(fd, &part, 1, offset, flags);
}

static bool sync_strikes(int fd) {
  return strikes(fd, FAULT_SYNC_ERROR, FAULT_SYNC_ERROR) != FAULT_NONE;
}
int __wrap_fsync(int fd) { return sync_strikes(fd) ? (int)failed() : __real_fsync(fd); }
int __wrap_fdatasync(int fd) { return sync_strikes(fd) ? (int)failed() : __real_fdatasync(fd); }

/* By the directory that it goes to. */
int __wrap_renameat(int from, const char *old, int to, const char *new) {
  if (strikes(to, FAULT_RENAME_ERROR, FAULT_RENAME_ERROR) != FAULT_NONE) return (int)failed();
  return __real_renameat(from, old, to, new);
}
