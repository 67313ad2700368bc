/* SPDX-License-Identifier: Apache-2.0
 *
 * Group commit into the files of a log, for every resource that promises to keep what it acknowledges.
 * Records are copied into a staging buffer; one batch is on its way to the disk, and the next one is what
 * arrives meanwhile. A request waits in here until its record is where it was wanted.
 */
#ifndef SHMQD_RESOURCE_LOG_COMMIT_H
#define SHMQD_RESOURCE_LOG_COMMIT_H

#include <sys/uio.h>

#include "resource/linger.h"
#include "resource/log.h"

struct log_commit;

/* What the resource adds. A struct log_commit stands in the resource's struct. */
struct log_commit_user {
  /* The files are about to be read from their beginning: forget what they said. May be NULL. */
  int (*forget)(struct log_commit *commit);
  /* A record of them, in order. May be NULL. */
  int (*replay)(struct log_commit *commit, const struct log_frame *frame);
  /* What the request waited for has come: answer it. */
  void (*acknowledged)(struct request *r);
  /* There is more in the files than before, or, after an error, perhaps less. May be NULL. */
  void (*advanced)(struct log_commit *commit);
};

enum log_state { LOG_READY, LOG_WRITING, LOG_SYNCING, LOG_TURNING, LOG_BROKEN };

struct log_batch {
  char *data; /* LOG_BATCH_MAX, aligned */
  size_t bytes;
  uint64_t first; /* number of its first record */
  uint64_t count;
  uint64_t to_disk; /* how many wait for the disk */
};

struct log_commit {
  const struct log_commit_user *user;
  struct io *io;
  char label[64]; /* KIND:NAME, for messages */
  struct log_files files;
  struct log_keys keys;
  struct log_keys
      requests; /* of the last records before this worker: what may be delivered again */
  enum log_state state;
  struct log_batch batches[2];
  struct log_batch *filling, *flying;
  uint64_t next;    /* number of the next record */
  uint64_t written; /* records below are in the file */
  uint64_t synced;  /* records below are on the disk */
  uint64_t offset;  /* in the last segment, where the next batch goes */
  size_t flown;     /* bytes of the flying batch that are written */
  bool sync_wanted; /* somebody waits for the disk to have what is only written */
  struct io_op op;  /* write or sync of the flying batch; the turn to a new segment */
  struct io_op spare_op;
  bool making_spare;
  struct linger linger; /* the filling batch, for those that the flying one answers */
  int64_t left_ns;      /* when that one left */
  struct request *waiting, **waiting_end; /* appended, not acknowledged yet */
  struct request *backlog, **backlog_end; /* no room in the staging buffer */
};

/* scratch of a request that waits here; the rest is the resource's */
enum { COMMIT_NUMBER, COMMIT_ACK, COMMIT_REPEATED, COMMIT_SCRATCH };

/* Blocks: reads everything there is. After an error it need not be closed. */
int log_commit_open(struct log_commit *commit, const struct log_commit_user *user,
                    const struct resource *resource, const char *path, uint64_t segment_bytes,
                    size_t keys);
void log_commit_close(struct log_commit *commit);
void log_commit_turn(struct log_commit *commit);
bool log_commit_idle(const struct log_commit *commit);
/* Have everything appended so far on the disk soon, though nobody waits for it. */
void log_commit_sync(struct log_commit *commit);

/* Append a record for the request, which is acknowledged once, now or later; or fails. With a key that
 * was recorded before it waits for that record, with COMMIT_REPEATED set; so does, without a key, a request that was
 * recorded before a worker died of it. Returns the record's number; 0: it was put
 * off and comes again through its resource's `serve`; or a negative errno, and the request is the caller's. */
int64_t log_commit_append(struct log_commit *commit, struct request *r, enum shmq_log_ack ack,
                          const shmq_id *key, const struct iovec *parts, int count);
/* The request was recorded before a worker died of it: it waits for that record, with COMMIT_REPEATED set. For what
 * must know it before it makes the record. */
bool log_commit_repeated(struct log_commit *commit, struct request *r, enum shmq_log_ack ack);
/* Is there room for a record of so many bytes without putting it off? */
bool log_commit_room(const struct log_commit *commit, size_t record_bytes);
/* Have the request come again when there is room. */
void log_commit_put_off(struct log_commit *commit, struct request *r);
/* Acknowledge the request when that record is as safe as it wants. */
void log_commit_wait(struct log_commit *commit, struct request *r, enum shmq_log_ack ack,
                     uint64_t number, bool repeated);

#endif
