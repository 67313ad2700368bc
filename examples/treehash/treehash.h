/* SPDX-License-Identifier: Apache-2.0
 *
 * treehash: SHA-256 of every file of a tree, by processes that may be killed.
 *
 *   lister ---- queue of names ----> workers ---- requests ----> shmqd, which owns the tree and the log
 *
 * The parent starts all of them, kills workers at random moments, replaces them, and compares the log
 * with what sha256sum(1) says at the end.
 */
#ifndef TREEHASH_H
#define TREEHASH_H

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { WORKERS_MAX = 256, HASH_BYTES = 32, NAME_MAX_BYTES = PATH_MAX };

/* What a worker tells the progress bar; in memory shared with the parent, each on its own line. */
struct worker_stats {
  _Alignas(64) _Atomic uint64_t files;
  _Atomic uint64_t bytes;
};

struct treehash {
  const char *tree;
  char run[PATH_MAX / 2]; /* temporary: the daemon's socket, its log, sha256sum's output */
  char socket[PATH_MAX];
  char queue[64]; /* of names */
  unsigned workers, kills;
  uint64_t ack; /* enum shmq_log_ack */
  bool keep, quiet;
  struct worker_stats *stats; /* one a worker */
};

/* The name of a file relative to the tree goes through the queue as it is, without a NUL. A record
 * of the log is HASH "  " NAME, or "unreadable:ERRNO  " NAME. */
#define UNREADABLE "unreadable:"

int run_lister(const struct treehash *t);
int run_worker(const struct treehash *t, unsigned index);

/* ---- children.c ---- */
pid_t start_daemon(const struct treehash *t, const char *program);
int stop_daemon(pid_t pid);
/* Fork and run fn(t, index) with the parent's death as a signal. */
pid_t start_child(const struct treehash *t, int (*fn)(const struct treehash *, unsigned),
                  unsigned index);

/* ---- progress.c ---- */
struct progress {
  bool terminal;
  unsigned columns;
  int64_t begun_ns, shown_ns;
};
void progress_begin(struct progress *p, const struct treehash *t);
void progress_show(struct progress *p, const struct treehash *t, uint64_t done, uint64_t total,
                   bool listed);
/* A line of its own above the bar. */
void progress_say(struct progress *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void progress_end(struct progress *p);

/* ---- compare.c ---- */
struct verdict {
  uint64_t files, bytes, unreadable;
  uint64_t missing, duplicate, mismatched;
  double sha256sum_seconds;
};
/* Read the log through the daemon, run sha256sum over the same tree, compare. 0 or a negative errno. */
int compare(const struct treehash *t, struct verdict *verdict);

#endif
