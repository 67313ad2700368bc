/* SPDX-License-Identifier: Apache-2.0
 *
 * What may block: it runs on a helper thread, touches its job and the file system, and nothing of
 * the daemon's.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "resource/dir.h"

/* ---- jobs ---- */

static int run(struct io_op *op) {
  struct job *job = op->buffer;
  if (job->once) request_begin((struct request *)((char *)op - offsetof(struct request, op)));
  return job->work(job);
}

static void done(struct io_op *op, int result) {
  struct job *job = op->buffer;
  struct request *r = (struct request *)((char *)op - offsetof(struct request, op));
  job->done(r, job, result);
}

/* A path ends where the payload does; only a rename's two are separated by a NUL. */
static int copy_text(struct job *job, const struct request *r, size_t text_bytes, job_fn *work) {
  memcpy(job->text, r->in.data, text_bytes);
  size_t first = strlen(job->text);
  if (first == text_bytes) return 0;
  return work == dir_job_rename && first + 1 + strlen(job->text + first + 1) == text_bytes
             ? 0
             : -EINVAL;
}

struct job *dir_job_new(struct request *r, size_t text_bytes, job_fn *work, job_done_fn *finish) {
  if (text_bytes > 2 * PATH_MAX || text_bytes > r->in.size) {
    request_error(r, text_bytes > r->in.size ? -EINVAL : -ENAMETOOLONG, NULL);
    return NULL;
  }
  struct job *job = calloc(1, sizeof *job + text_bytes + 1);
  int rc = job ? copy_text(job, r, text_bytes, work) : -ENOMEM;
  if (rc) {
    free(job);
    request_error(r, rc, NULL);
    return NULL;
  }
  job->dir = (const struct dir *)r->resource;
  job->work = work;
  job->done = finish;
  job->path = job->text;
  r->memory = job;
  return job;
}

void dir_job_start(struct request *r) {
  r->op = (struct io_op){.what = IO_CALL, .buffer = r->memory, .call = run, .done = done};
  io_submit(r->resource->shard->io, &r->op);
}

/* ---- the work ---- */

int dir_job_open(struct job *job) {
  return dir_open_path(job->dir, job->path, job->flags, job->mode, false, &job->st);
}

struct dirent_raw {
  uint64_t inode;
  int64_t next;
  unsigned short bytes;
  unsigned char type;
  char name[];
};

static char type_letter(unsigned char type) {
  switch (type) {
  case DT_REG: return 'f';
  case DT_DIR: return 'd';
  case DT_LNK: return 'l';
  case DT_FIFO: return 'p';
  case DT_SOCK: return 's';
  case DT_CHR: return 'c';
  case DT_BLK: return 'b';
  default: return '?';
  }
}

/* Append what fits. Returns false when the room is full: the cursor then stands before that entry. */
static bool add_entry(struct job *job, const struct dirent_raw *e, size_t room) {
  if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0) return true;
  size_t n = strlen(e->name) + 1;
  if (job->size + 1 + n > room) return false;
  job->data[job->size++] = type_letter(e->type);
  memcpy(job->data + job->size, e->name, n);
  job->size += n;
  return true;
}

/* Entries from the cursor on. The cursor is the directory's own, so it survives changes as readdir does. */
static int list_from(struct job *job, int fd, size_t room) {
  _Alignas(8) char raw[8192];
  bool full = false;
  if (job->cursor && lseek(fd, (off_t)job->cursor, SEEK_SET) < 0) return -errno;
  while (!full) {
    long n = syscall(SYS_getdents64, fd, raw, sizeof raw);
    if (n < 0) return -errno;
    if (n == 0) job->cursor = 0;
    if (n == 0) return 0;
    for (long at = 0; at < n && !full;) {
      const struct dirent_raw *e = (const struct dirent_raw *)(raw + at);
      full = !add_entry(job, e, room);
      if (!full) job->cursor = (uint64_t)e->next;
      at += e->bytes;
    }
  }
  return job->size ? 0 : -EMSGSIZE;
}

int dir_job_list(struct job *job) {
  size_t room = job->size;
  int fd = dir_open_path(job->dir, job->path, O_RDONLY | O_DIRECTORY, 0, false, &job->st);
  if (fd < 0) return fd;
  job->size = 0;
  int rc = list_from(job, fd, room);
  close(fd);
  return rc;
}

int dir_job_mkdir(struct job *job) {
  const char *leaf;
  int at = dir_open_parent(job->dir, job->path, &leaf);
  if (at < 0) return at;
  int rc = mkdirat(at, leaf, job->mode & 0777) ? -errno : 0;
  close(at);
  return rc;
}

int dir_job_unlink(struct job *job) {
  const char *leaf;
  int at = dir_open_parent(job->dir, job->path, &leaf);
  if (at < 0) return at;
  int rc = unlinkat(at, leaf, job->flags ? AT_REMOVEDIR : 0) ? -errno : 0;
  close(at);
  return rc;
}

int dir_job_rename(struct job *job) {
  const char *from, *to;
  int from_at = dir_open_parent(job->dir, job->path, &from);
  if (from_at < 0) return from_at;
  int to_at = dir_open_parent(job->dir, job->other, &to);
  int rc = to_at < 0 ? to_at : renameat(from_at, from, to_at, to) ? -errno : 0;
  if (to_at >= 0) close(to_at);
  close(from_at);
  return rc;
}

int dir_job_truncate(struct job *job) {
  return ftruncate(job->flags, (off_t)job->cursor) ? -errno : 0;
}

static int write_all(int fd, const char *data, size_t size) {
  while (size) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    data += n;
    size -= (size_t)n;
  }
  return 0;
}

/* A new file under a name of its own, complete and on disk before it takes the place of the old. The name is the
 * request's: what a worker that died has left is removed when the request is delivered again. */
static int put_into(struct job *job, int at, const char *leaf) {
  const char *name = job->temporary;
  if (unlinkat(at, name, 0) && errno != ENOENT) return -errno;
  int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, job->mode & 0777);
  if (fd < 0) return -errno;
  int rc = write_all(fd, job->data, job->size);
  if (!rc && fsync(fd)) rc = -errno;
  if (close(fd) && !rc) rc = -errno;
  if (!rc && renameat(at, name, at, leaf)) rc = -errno;
  if (rc)
    unlinkat(at, name, 0);
  else if (fsync(at))
    rc = -errno;
  return rc;
}

int dir_job_put(struct job *job) {
  const char *leaf;
  int at = dir_open_parent(job->dir, job->path, &leaf);
  if (at < 0) return at;
  int rc = put_into(job, at, leaf);
  close(at);
  return rc;
}
