/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of `dir`. dir.c answers what can be answered at once or by the ring; dir_job.c does
 * what may block on a helper thread; dir_path.c keeps every name below the root.
 */
#ifndef SHMQD_RESOURCE_DIR_H
#define SHMQD_RESOURCE_DIR_H

#include <limits.h>
#include <sys/stat.h>

#include "daemon.h"
#include "resource/mapped.h"

struct dir {
  struct resource base;
  int root; /* O_PATH */
  bool writable;
  bool cross_mounts;
  mode_t mode; /* of what is made */
  struct mapped *mapped;
};

/* ---- dir_path.c: thread-safe ---- */

/* Open below the root, a regular file or, with O_DIRECTORY, a directory. `cached`: only if that needs
 * no waiting, else -EAGAIN. Returns a descriptor or a negative errno. */
int dir_open_path(const struct dir *dir, const char *path, int flags, mode_t mode, bool cached,
                  struct stat *st);
/* The directory that holds the last component, and where in `path` that begins. */
int dir_open_parent(const struct dir *dir, const char *path, const char **leaf);

/* ---- dir_job.c ---- */

struct job;                          /* what a helper thread does for a request */
typedef int job_fn(struct job *job); /* on the helper: a value >= 0 or a negative errno */
typedef void job_done_fn(struct request *r, struct job *job, int result); /* answers */

struct job {
  const struct dir *dir;
  job_fn *work;
  job_done_fn *done;
  const char *path;  /* in text */
  const char *other; /* the second path of a rename */
  int flags;
  mode_t mode;
  bool once; /* not to be done again if a worker dies of it */
  uint64_t cursor;
  char *data; /* the payload or the room: the client's memory */
  size_t size;
  struct stat st;
  char temporary[64]; /* what a put is called until it is whole */
  char text[];
};

/* Make the job of a request; its payload's first text_bytes are copied as paths. Answers and returns NULL
 * when that cannot be. */
struct job *dir_job_new(struct request *r, size_t text_bytes, job_fn *work, job_done_fn *done);
void dir_job_start(struct request *r);

int dir_job_open(struct job *job);
int dir_job_list(struct job *job);
int dir_job_mkdir(struct job *job);
int dir_job_unlink(struct job *job);
int dir_job_rename(struct job *job);
int dir_job_put(struct job *job);
int dir_job_truncate(struct job *job);

#endif
