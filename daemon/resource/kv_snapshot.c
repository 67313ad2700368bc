/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots: a file of all entries, written piece by piece under another name and renamed when it is whole and on
 * the disk. The log may then forget what is older.
 *
 *   NONE -> OPENING -> WRITING ... -> WAITING -> FINISHING -> NONE
 *              +----------+-- it failed --+----------+--> DISCARDING -> NONE
 *
 * WAITING: entries may be in the file whose records are not on the disk yet. If the machine stopped then, the map would
 * come back with a change that nobody was promised and without an older one, which is no state it ever had.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resource/crc32c.h"
#include "resource/kv.h"

#define SNAPSHOT_TEMP KV_SNAPSHOT_NAME ".tmp"

enum {
  PIECE_BYTES = 256 << 10,
  /* Records that stay in the log though a snapshot has them: a request that is delivered again is recognised by
   * its record (log_commit.c looks at no more). */
  KEEP_RECORDS = 65536,
};

static struct kv *kv_of(struct io_op *op) {
  return (struct kv *)((char *)op - offsetof(struct kv, snapshot.op));
}

static void call(struct kv *kv, int (*work)(struct io_op *), void (*done)(struct io_op *, int)) {
  kv->snapshot.op = (struct io_op){.what = IO_CALL, .call = work, .done = done};
  io_submit(kv->commit.io, &kv->snapshot.op);
}

static void ended(struct kv *kv) {
  free(kv->snapshot.buffer);
  kv->snapshot.buffer = NULL;
  kv->snapshot.state = SNAPSHOT_NONE;
}

/* On a helper thread. A disk may be full because of it. */
static int discard(struct io_op *op) {
  const struct kv *kv = kv_of(op);
  if (kv->snapshot.fd >= 0) close(kv->snapshot.fd);
  return unlinkat(kv->commit.files.directory, SNAPSHOT_TEMP, 0) && errno != ENOENT ? -errno : 0;
}

static void discarded(struct io_op *op, int result) {
  struct kv *kv = kv_of(op);
  if (result)
    say(SAY_WARNING, "[%s] %s: %s", kv->commit.label, SNAPSHOT_TEMP, strerror(-result));
  ended(kv);
}

/* The next try comes when as much has been logged again. */
static void give_up(struct kv *kv, int error) {
  struct kv_snapshot *s = &kv->snapshot;
  if (!s->spoilt)
    say(SAY_ERROR, "[%s] no snapshot: %s", kv->commit.label, strerror(-error));
  kv->logged = 0;
  s->state = SNAPSHOT_DISCARDING;
  call(kv, discard, discarded);
}

/* On a helper thread: whole, on the disk, in its place. */
static int finish(struct io_op *op) {
  const struct kv *kv = kv_of(op);
  const struct kv_snapshot *s = &kv->snapshot;
  int directory = kv->commit.files.directory;
  struct kv_snapshot_header h = {.magic = KV_SNAPSHOT_MAGIC,
                     .start = s->start,
                     .count = s->count,
                     .bytes = s->offset - sizeof h};
  h.crc = kv_snapshot_crc(s->crc, &h);
  ssize_t n = pwrite(s->fd, &h, sizeof h, 0);
  if (n != (ssize_t)sizeof h) return n < 0 ? -errno : -EIO;
  if (fsync(s->fd)) return -errno;
  if (renameat(directory, SNAPSHOT_TEMP, directory, KV_SNAPSHOT_NAME)) return -errno;
  return fsync(directory) ? -errno : 0;
}

static void finished(struct io_op *op, int result) {
  struct kv *kv = kv_of(op);
  struct kv_snapshot *s = &kv->snapshot;
  if (result) {
    give_up(kv, result);
    return;
  }
  close(s->fd);
  ended(kv);
  kv->start = s->start;
  if (s->start <= KEEP_RECORDS || kv->commit.state == LOG_TURNING) return;
  int rc = log_files_trim(&kv->commit.files, s->start - KEEP_RECORDS);
  if (rc) say(SAY_WARNING, "[%s] the log is not trimmed: %s", kv->commit.label, strerror(-rc));
}

/* Entries behind the cursor, until the piece is full; the last one may make it longer than others. */
static int fill(struct kv *kv) {
  struct kv_snapshot *s = &kv->snapshot;
  size_t room = PIECE_BYTES;
  struct kv_entry *e = kv_map_from(&kv->map, s->cursor, s->cursor_bytes, s->count > 0);
  s->filled = s->written = 0;
  for (; e; e = kv_map_next(e)) {
    shmq_kv_entry head = {e->version, e->key_bytes, e->value_bytes};
    size_t bytes = sizeof head + e->key_bytes + e->value_bytes;
    if (s->filled && bytes > room - s->filled) break;
    if (bytes > room) {
      char *bigger = realloc(s->buffer, room = bytes);
      if (!bigger) return -ENOMEM;
      s->buffer = bigger;
    }
    memcpy(s->buffer + s->filled, &head, sizeof head);
    memcpy(s->buffer + s->filled + sizeof head, e->data, bytes - sizeof head);
    s->filled += bytes;
    s->count++;
    memcpy(s->cursor, e->key, e->key_bytes);
    s->cursor_bytes = e->key_bytes;
  }
  s->all = !e;
  s->crc = crc32c(s->crc, s->buffer, s->filled);
  return 0;
}

static void write_rest(struct kv *kv);

static void next_piece(struct kv *kv) {
  struct kv_snapshot *s = &kv->snapshot;
  int rc = s->spoilt ? -ECANCELED : fill(kv);
  if (rc) {
    give_up(kv, rc);
    return;
  }
  if (s->filled) {
    write_rest(kv);
    return;
  }
  s->end = kv->commit.next;
  s->state = SNAPSHOT_WAITING;
}

static void wrote(struct io_op *op, int result) {
  struct kv *kv = kv_of(op);
  struct kv_snapshot *s = &kv->snapshot;
  if (result <= 0) {
    give_up(kv, result ? result : -EIO);
    return;
  }
  s->written += (size_t)result;
  s->offset += (size_t)result;
  if (s->written < s->filled)
    write_rest(kv);
  else
    next_piece(kv);
}

static void write_rest(struct kv *kv) {
  struct kv_snapshot *s = &kv->snapshot;
  s->op = (struct io_op){.what = IO_WRITE,
                         .fd = s->fd,
                         .buffer = s->buffer + s->written,
                         .bytes = s->filled - s->written,
                         .offset = s->offset,
                         .done = wrote};
  io_submit(kv->commit.io, &s->op);
}

static int open_temp(struct io_op *op) {
  struct kv *kv = kv_of(op);
  kv->snapshot.fd = openat(kv->commit.files.directory, SNAPSHOT_TEMP,
                           O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  return kv->snapshot.fd < 0 ? -errno : 0;
}

static void opened(struct io_op *op, int result) {
  struct kv *kv = kv_of(op);
  if (result) {
    give_up(kv, result);
    return;
  }
  kv->snapshot.state = SNAPSHOT_WRITING;
  next_piece(kv);
}

static void begin(struct kv *kv) {
  struct kv_snapshot *s = &kv->snapshot;
  *s = (struct kv_snapshot){.state = SNAPSHOT_OPENING,
                            .fd = -1,
                            .start = kv->commit.next,
                            .offset = sizeof(struct kv_snapshot_header),
                            .buffer = malloc(PIECE_BYTES)};
  kv->logged = 0;
  if (s->buffer)
    call(kv, open_temp, opened);
  else
    give_up(kv, -ENOMEM);
}

void kv_snapshot_turn(struct kv *kv) {
  struct kv_snapshot *s = &kv->snapshot;
  if (s->state == SNAPSHOT_NONE && kv->logged > kv->snapshot_bytes) begin(kv);
  if (s->state != SNAPSHOT_WAITING) return;
  if (s->spoilt) {
    give_up(kv, -ECANCELED);
  } else if (kv->commit.synced < s->end) {
    log_commit_sync(&kv->commit);
  } else {
    s->state = SNAPSHOT_FINISHING;
    call(kv, finish, finished);
  }
}
