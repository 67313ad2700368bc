/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory tree. Contents go straight between the file and the client's arena: copied from where the file is mapped,
 * read where the page cache has them (RWF_NOWAIT, no hop), else by the ring. Names that are cached are opened at
 * once, others on a helper thread.
 */
#include "resource/dir.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static const struct param params[] = {
    {"path", PARAM_PATH, NULL, 0, 0, NULL, "the root; nothing above it can be named",
     PARAM_FIXED},
    {"rights", PARAM_CHOICE, "read", 0, 0, "read|write", "whether clients may change it",
     PARAM_LIVE},
    {"cross_mounts", PARAM_FLAG, "no", 0, 0, NULL,
     "whether names may lead into other file systems", PARAM_LIVE},
    {"mapped", PARAM_BYTES, "64M", 0, INT64_C(1) << 50, NULL,
     "how much of the files that are read again and again is kept mapped and locked in memory; 0: nothing", PARAM_FIXED},
    RIGHTS_PARAM,
    SHARD_PARAM,
    {0},
};

/* What was under way when a worker died, and cannot be done again as if nothing had happened. What only looks has done
 * nothing, but its payload may have been overwritten by a part of the answer. */
static void answer_begun(struct request *r) {
  bool looks = r->in.header.op == SHMQ_DIR_GET || r->in.header.op == SHMQ_DIR_LIST;
  request_restarted(r, -ERESTART, looks ? SHMQ_EXECUTED_NO : SHMQ_EXECUTED_UNKNOWN,
                    "the daemon's worker died while this was under way");
}

static void handle_error(struct request *r, int rc) {
  if (rc == -ESTALE)
    request_restarted(r, rc, SHMQ_EXECUTED_NO, "the handle died with the daemon's last worker");
  else
    request_error(r, rc, NULL);
}

/* ---- reading ---- */

/* scratch of a request that reads */
enum { READ_DONE, READ_WANTED, READ_SIZE, READ_HANDLE, READ_OWN, READ_OFFSET };

static struct request *request_of(struct io_op *op) {
  return (struct request *)((char *)op - offsetof(struct request, op));
}

/* Whose is the descriptor now? A GET closes its own, unless there is more to read than fits. */
static void finish_read(struct request *r, int rc) {
  int64_t handle = 0;
  if (r->scratch[READ_OWN]) {
    bool more = !rc && r->scratch[READ_SIZE] > r->scratch[READ_DONE] &&
                r->scratch[READ_DONE] == r->scratch[READ_WANTED];
    if (more) handle = handle_add(r, r->op.fd);
    if (!more || handle < 0) close(r->op.fd);
    if (handle < 0) rc = (int)handle;
  } else {
    handle_release(r, r->scratch[READ_HANDLE]);
  }
  if (rc)
    request_error(r, rc, NULL);
  else if (r->scratch[READ_OWN])
    request_in_place(r, r->scratch[READ_SIZE], (uint64_t)handle, r->scratch[READ_DONE]);
  else
    request_in_place(r, r->scratch[READ_DONE], 0, r->scratch[READ_DONE]);
}

static void read_done(struct io_op *op, int result);

static void submit_read(struct request *r, void (*done)(struct io_op *, int)) {
  r->op.what = IO_READ;
  r->op.flags = 0;
  r->op.buffer = (char *)r->in.data + r->scratch[READ_DONE];
  r->op.bytes = r->scratch[READ_WANTED] - r->scratch[READ_DONE];
  r->op.offset = r->scratch[READ_OFFSET] + r->scratch[READ_DONE];
  r->op.done = done;
  io_submit(r->resource->shard->io, &r->op);
}

/* What is mapped through a handle, NULL: nothing is. */
static struct mapped_file *file_of(const struct request *r, uint64_t handle) {
  void **own = handle_own(r, handle);
  return own ? *own : NULL;
}

/* The page cache had something there. A GET reads once. */
static void seen(struct request *r, uint64_t offset) {
  struct mapped_file *file = r->scratch[READ_OWN] ? NULL : file_of(r, r->scratch[READ_HANDLE]);
  if (file) mapped_seen(file, r->op.fd, offset);
}

/* What the page cache has, now; the rest by the ring; until there is enough, or the file ends. */
static void read_on(struct request *r) {
  while (r->scratch[READ_DONE] < r->scratch[READ_WANTED]) {
    struct iovec part = {.iov_base = (char *)r->in.data + r->scratch[READ_DONE],
                         .iov_len = r->scratch[READ_WANTED] - r->scratch[READ_DONE]};
    off_t at = (off_t)(r->scratch[READ_OFFSET] + r->scratch[READ_DONE]);
    ssize_t n = preadv2(r->op.fd, &part, 1, at, RWF_NOWAIT);
    if (n < 0 && errno != EAGAIN && errno != EOPNOTSUPP) {
      finish_read(r, -errno);
      return;
    }
    if (n < 0) {
      submit_read(r, read_done);
      return;
    }
    if (n == 0) break;
    r->scratch[READ_DONE] += (uint64_t)n;
    seen(r, (uint64_t)at);
  }
  finish_read(r, 0);
}

static void read_done(struct io_op *op, int result) {
  struct request *r = request_of(op);
  if (result > 0) r->scratch[READ_DONE] += (uint64_t)result;
  if (result > 0)
    read_on(r);
  else
    finish_read(r, result);
}

/* ---- reading past the page cache ---- */

enum { DIRECT_ALIGN = 512 }; /* of memory; no device asks for more */

static void direct_done(struct io_op *op, int result) {
  struct request *r = request_of(op);
  if (result > 0) r->scratch[READ_DONE] = (uint64_t)result;
  finish_read(r, result < 0 ? result : 0);
}

/* The room begins anew where the device can write; the answer says where that is. One read: a short one has met the
 * file's end. Never tried at once: RWF_NOWAIT does not keep the kernel from waiting for the device. */
static void read_direct(struct request *r) {
  size_t skip = -(uintptr_t)r->in.data & (DIRECT_ALIGN - 1);
  if (r->in.room < 2 * DIRECT_ALIGN) {
    finish_read(r, -EINVAL);
    return;
  }
  r->scratch[READ_WANTED] = (r->in.room - DIRECT_ALIGN) & ~(uint64_t)(DIRECT_ALIGN - 1);
  r->in.data = (char *)r->in.data + skip;
  r->in.room -= skip;
  r->in.header.data_offset += (uint32_t)skip;
  submit_read(r, direct_done);
}

/* From where the file is mapped, if it is: nothing is held, nothing waits. Not through a handle that may write: a program that
 * is still held so after its CLOSE could not be run (ETXTBSY). */
static bool copy_mapped(struct request *r, uint64_t handle, int fd, uint64_t offset) {
  void **own = handle_own(r, handle);
  if (handle_flags(r, handle) & (O_DIRECT | O_ACCMODE)) return false;
  if (!*own) mapped_file_add(((struct dir *)r->resource)->mapped, r->session, own);
  ssize_t n = *own ? mapped_read(*own, fd, r->in.data, r->in.room, offset) : -EAGAIN;
  if (n >= 0) request_in_place(r, (uint64_t)n, 0, (size_t)n);
  return n >= 0;
}

static void serve_read(struct request *r) {
  uint64_t handle = request_arg(r, 0), offset = request_arg(r, 1);
  int fd = handle_fd(r, handle);
  if (fd < 0 || offset > INT64_MAX) {
    handle_error(r, fd < 0 ? fd : -EINVAL);
    return;
  }
  if (copy_mapped(r, handle, fd, offset)) return;
  handle_hold(r, handle);
  r->op.fd = fd;
  memcpy(r->scratch, (uint64_t[]){0, r->in.room, 0, handle, 0, offset}, sizeof r->scratch);
  if (handle_flags(r, handle) & O_DIRECT)
    read_direct(r);
  else
    read_on(r);
}

/* ---- opening ---- */

static void start_get(struct request *r, int fd, const struct stat *st) {
  request_begin(r); /* the path is overwritten by what is read */
  uint64_t size = (uint64_t)st->st_size;
  r->op.fd = fd;
  uint64_t wanted = size < r->in.room ? size : r->in.room;
  memcpy(r->scratch, (uint64_t[]){0, wanted, size, 0, 1, 0}, sizeof r->scratch);
  read_on(r);
}

static void opened(struct request *r, int fd, const struct stat *st) {
  if (r->in.header.op == SHMQ_DIR_GET) {
    start_get(r, fd, st);
    return;
  }
  int64_t handle = handle_add(r, fd);
  if (handle < 0) {
    close(fd);
    request_error(r, (int)handle, "too many open files in this session");
    return;
  }
  request_value(r, (uint64_t)handle, (uint64_t)st->st_size, NULL, 0);
}

static void open_job_done(struct request *r, struct job *job, int result) {
  if (result < 0)
    request_error(r, result, NULL);
  else
    opened(r, result, &job->st);
}

static int open_flags(const struct request *r, int *flags) {
  uint64_t wanted = r->in.header.op == SHMQ_DIR_OPEN ? request_arg(r, 0) : 0;
  if (wanted == SHMQ_DIR_DIRECT) {
    *flags = O_RDONLY | O_DIRECT;
    return 0;
  }
  if (wanted &
      ~(uint64_t)(SHMQ_DIR_WRITABLE | SHMQ_DIR_CREATE | SHMQ_DIR_EXCLUSIVE | SHMQ_DIR_TRUNC))
    return -EINVAL;
  if (wanted && !((const struct dir *)r->resource)->writable) return -EROFS;
  if (wanted && !request_may(r, RIGHT_WRITE)) return -EACCES;
  *flags = (wanted ? O_RDWR : O_RDONLY) | (wanted & SHMQ_DIR_CREATE ? O_CREAT : 0) |
           (wanted & SHMQ_DIR_EXCLUSIVE ? O_EXCL : 0) | (wanted & SHMQ_DIR_TRUNC ? O_TRUNC : 0);
  return 0;
}

static void serve_open(struct request *r) {
  char path[PATH_MAX];
  struct stat st;
  int flags;
  int rc = open_flags(r, &flags);
  if (!rc) rc = request_text(r, path, sizeof path);
  if (rc < 0) {
    request_error(r, rc, NULL);
    return;
  }
  bool simple = !(flags & (O_CREAT | O_TRUNC));
  rc = simple ? dir_open_path((struct dir *)r->resource, path, flags, 0, true, &st) : -EAGAIN;
  if (rc >= 0) {
    opened(r, rc, &st);
    return;
  }
  if (rc != -EAGAIN) {
    request_error(r, rc, NULL);
    return;
  }
  struct job *job = dir_job_new(r, r->in.size, dir_job_open, open_job_done);
  if (!job) return;
  job->flags = flags;
  job->once = flags & O_EXCL;
  job->mode = (mode_t)request_arg(r, 1) & 0777;
  dir_job_start(r);
}

static void serve_close(struct request *r) {
  struct mapped_file *file = file_of(r, request_arg(r, 0));
  if (file) mapped_file_forget(file);
  int rc = handle_close(r, request_arg(r, 0));
  if (rc && rc != -ESTALE) /* that is closed */
    request_error(r, rc, NULL);
  else
    request_value(r, 0, 0, NULL, 0);
}

/* ---- looking ---- */

static void stat_done(struct request *r, struct job *job, int result) {
  if (result < 0) {
    request_error(r, result, NULL);
    return;
  }
  close(result);
  const struct stat *st = &job->st;
  shmq_dir_stat s = {.size = (uint64_t)st->st_size,
                     .mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec,
                     .inode = st->st_ino,
                     .mode = st->st_mode,
                     .links = (uint32_t)st->st_nlink,
                     .uid = st->st_uid,
                     .gid = st->st_gid};
  request_value(r, 0, 0, &s, sizeof s);
}

static void serve_stat(struct request *r) {
  struct job *job = dir_job_new(r, r->in.size, dir_job_open, stat_done);
  if (!job) return;
  job->flags = O_PATH | O_NOFOLLOW;
  dir_job_start(r);
}

static void list_done(struct request *r, struct job *job, int result) {
  if (result < 0)
    request_error(r, result, NULL);
  else
    request_in_place(r, job->cursor, 0, job->size);
}

static void serve_list(struct request *r) {
  struct job *job = dir_job_new(r, r->in.size, dir_job_list, list_done);
  if (!job) return;
  job->once = true; /* the path is overwritten by what is listed */
  job->cursor = request_arg(r, 0);
  job->data = r->in.data;
  job->size = r->in.room;
  dir_job_start(r);
}

/* ---- changing ---- */

static void wrote(struct io_op *op, int result) {
  struct request *r = request_of(op);
  handle_release(r, r->scratch[READ_HANDLE]);
  if (result < 0)
    request_error(r, result, NULL);
  else
    request_value(r, (uint64_t)result, 0, NULL, 0);
}

static void serve_handle_io(struct request *r, enum io_what what) {
  uint64_t handle = request_arg(r, 0), offset = what == IO_WRITE ? request_arg(r, 1) : 0;
  int fd = handle_fd(r, handle);
  if (fd < 0 || offset > INT64_MAX) {
    handle_error(r, fd < 0 ? fd : -EINVAL);
    return;
  }
  request_begin(r); /* it cannot be done again: the handle would be gone */
  handle_hold(r, handle);
  r->scratch[READ_HANDLE] = handle;
  r->op = (struct io_op){.what = what,
                         .fd = fd,
                         .buffer = r->in.data,
                         .bytes = r->in.size,
                         .offset = offset,
                         .done = wrote};
  io_submit(r->resource->shard->io, &r->op);
}

static void serve_write(struct request *r) { serve_handle_io(r, IO_WRITE); }
static void serve_sync(struct request *r) { serve_handle_io(r, IO_SYNC); }

static void changed(struct request *r, struct job *job, int result) {
  if (job->work == dir_job_truncate) handle_release(r, r->scratch[READ_HANDLE]);
  if (result < 0)
    request_error(r, result, NULL);
  else
    request_value(r, 0, 0, NULL, 0);
}

static void serve_truncate(struct request *r) {
  uint64_t handle = request_arg(r, 0);
  int fd = handle_fd(r, handle);
  if (fd < 0 || request_arg(r, 1) > INT64_MAX) {
    handle_error(r, fd < 0 ? fd : -EINVAL);
    return;
  }
  struct job *job = dir_job_new(r, 0, dir_job_truncate, changed);
  if (!job) return;
  handle_hold(r, handle);
  r->scratch[READ_HANDLE] = handle;
  job->once = true;
  job->flags = fd;
  job->cursor = request_arg(r, 1);
  dir_job_start(r);
}

static void serve_name(struct request *r, job_fn *work) {
  struct job *job = dir_job_new(r, r->in.size, work, changed);
  if (!job) return;
  job->once = true;
  job->mode = (mode_t)request_arg(r, 1);
  job->flags = request_arg(r, 0) != 0;
  dir_job_start(r);
}

static void serve_mkdir(struct request *r) { serve_name(r, dir_job_mkdir); }
static void serve_unlink(struct request *r) { serve_name(r, dir_job_unlink); }

static void serve_rename(struct request *r) {
  struct job *job = dir_job_new(r, r->in.size, dir_job_rename, changed);
  if (!job) return;
  size_t first = strlen(job->text) + 1;
  if (first >= r->in.size) {
    request_error(r, -EINVAL, "a rename needs two paths");
    return;
  }
  job->once = true;
  job->other = job->text + first;
  dir_job_start(r);
}

static void serve_put(struct request *r) {
  struct job *job = dir_job_new(r, request_arg(r, 0), dir_job_put, changed);
  shmq_id id;
  uint64_t session;
  if (!job) return;
  shmq_incoming_id(&r->in, &id);
  memcpy(&session, id.segment, sizeof session);
  snprintf(job->temporary, sizeof job->temporary, ".shmqd-put.%016" PRIx64 ".%" PRIx64, session,
           id.position);
  job->mode = (mode_t)request_arg(r, 1);
  job->data = (char *)r->in.data + request_arg(r, 0);
  job->size = r->in.size - request_arg(r, 0);
  dir_job_start(r);
}

/* ---- the table ---- */

static const struct operation operations[] = {{SHMQ_DIR_GET, RIGHT_READ, serve_open},
                                              {SHMQ_DIR_OPEN, RIGHT_READ, serve_open},
                                              {SHMQ_DIR_CLOSE, RIGHT_READ, serve_close},
                                              {SHMQ_DIR_READ, RIGHT_READ, serve_read},
                                              {SHMQ_DIR_STAT, RIGHT_READ, serve_stat},
                                              {SHMQ_DIR_LIST, RIGHT_READ, serve_list},
                                              {SHMQ_DIR_WRITE, RIGHT_WRITE, serve_write},
                                              {SHMQ_DIR_SYNC, RIGHT_WRITE, serve_sync},
                                              {SHMQ_DIR_TRUNCATE, RIGHT_WRITE, serve_truncate},
                                              {SHMQ_DIR_MKDIR, RIGHT_WRITE, serve_mkdir},
                                              {SHMQ_DIR_UNLINK, RIGHT_WRITE, serve_unlink},
                                              {SHMQ_DIR_RENAME, RIGHT_WRITE, serve_rename},
                                              {SHMQ_DIR_PUT, RIGHT_WRITE, serve_put},
                                              {0}};

static int dir_admit(const struct resource *resource, const struct operation *o, const char **why) {
  if (o->right == RIGHT_READ || ((const struct dir *)resource)->writable) return 0;
  *why = "this tree is served for reading only";
  return -EROFS;
}

static void dir_changed(struct resource *resource) {
  struct dir *dir = (struct dir *)resource;
  dir->writable = section_number(resource->section, "rights") == 1;
  dir->cross_mounts = section_number(resource->section, "cross_mounts");
}

/* A filter of system calls may forbid it (systemd's RestrictSUIDSGID= does): now is the time to say so. */
static int try_walking(const struct dir *dir) {
  struct stat st;
  int fd = dir_open_path(dir, ".", O_PATH | O_DIRECTORY, 0, false, &st);
  if (fd >= 0) close(fd);
  return fd < 0 ? fd : 0;
}

static int dir_open(struct resource *resource) {
  struct dir *dir = (struct dir *)resource;
  const char *path = section_text(resource->section, "path");
  dir_changed(resource);
  dir->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int rc = dir->root < 0 ? -errno : try_walking(dir);
  if (!rc)
    rc = mapped_open(&dir->mapped, resource->shard,
                     (uint64_t)section_number(resource->section, "mapped"));
  if (!rc) return 0;
  say(SAY_ERROR, "[dir:%s] %s: %s", resource->section->name, path,
      rc == -ENOSYS ? "openat2, which walks its paths, is missing or forbidden" : strerror(-rc));
  if (dir->root >= 0) close(dir->root);
  return rc;
}

static void dir_leave(struct resource *resource, struct session *session) {
  mapped_leave(((struct dir *)resource)->mapped, session);
}

static bool dir_idle(const struct resource *resource) {
  return mapped_is_idle(((const struct dir *)resource)->mapped);
}

static void dir_close(struct resource *resource) {
  struct dir *dir = (struct dir *)resource;
  mapped_close(dir->mapped);
  close(dir->root);
}

const struct resource_kind dir_kind = {.section = {"dir", true, params, "A directory tree", true, NULL},
                                       .bytes = sizeof(struct dir),
                                       .open = dir_open,
                                       .operations = operations,
                                       .admit = dir_admit,
                                       .begun = answer_begun,
                                       .leave = dir_leave,
                                       .idle = dir_idle,
                                       .changed = dir_changed,
                                       .close = dir_close};
