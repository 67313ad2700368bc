/* SPDX-License-Identifier: Apache-2.0
 *
 * Snapshots: a file of all entries, written piece by piece under another name and renamed when it is whole and on
 * the disk. The log may then forget what is older.
 *
 *   NONE -> OPENING -> WRITING ... -> WAITING -> FINISHING -> NONE
 *
 * WAITING: entries may be in the file whose records are not on the disk yet. If the machine stopped then, the map would
 * come back with a change that nobody was promised and without an older one, which is no state it ever had.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resource/crc32c.h"
#include "resource/kv.h"

#define SNAPSHOT_NAME "snapshot"
#define SNAPSHOT_TEMP "snapshot.tmp"
#define SNAPSHOT_MAGIC UINT64_C(0x31504e5356514853) /* "SHQVSNP1" */

enum {
  PIECE_BYTES = 256 << 10,
  /* Records that stay in the log though a snapshot has them: a request that is delivered again is recognised by
   * its record (log_commit.c looks at no more). */
  KEEP_RECORDS = 65536,
};

struct header {
  uint64_t magic;
  uint64_t start;
  uint64_t count;
  uint64_t bytes; /* of the entries behind the header */
  uint32_t crc;   /* of the entries, then of the fields above */
  uint32_t reserved;
};

static uint32_t header_crc(uint32_t crc, const struct header *h) {
  return crc32c(crc, h, offsetof(struct header, crc));
}

/* ---- loading ---- */

static int load_entry(struct kv *kv, const char **at, size_t *left) {
  shmq_kv_entry e;
  if (*left < sizeof e) return -EBADMSG;
  memcpy(&e, *at, sizeof e);
  *at += sizeof e;
  *left -= sizeof e;
  if (e.key_bytes > SHMQ_KV_KEY_MAX || *left < (size_t)e.key_bytes + e.value_bytes)
    return -EBADMSG;
  struct kv_entry *entry = kv_entry_new(*at, e.key_bytes, e.value_bytes);
  if (!entry) return -ENOMEM;
  memcpy(kv_entry_value(entry), *at + e.key_bytes, e.value_bytes);
  entry->version = e.version;
  kv_map_put(&kv->map, entry);
  *at += e.key_bytes + e.value_bytes;
  *left -= e.key_bytes + e.value_bytes;
  return 0;
}

static int load_from(struct kv *kv, const char *data, size_t bytes) {
  struct header h;
  if (bytes < sizeof h) return -EBADMSG;
  memcpy(&h, data, sizeof h);
  data += sizeof h;
  bytes -= sizeof h;
  if (h.magic != SNAPSHOT_MAGIC || h.reserved || h.bytes != bytes ||
      h.crc != header_crc(crc32c(0, data, bytes), &h))
    return -EBADMSG;
  int rc = 0;
  for (uint64_t i = 0; i < h.count && !rc; i++) rc = load_entry(kv, &data, &bytes);
  kv->start = h.start;
  return rc ? rc : bytes ? -EBADMSG : 0;
}

int kv_snapshot_load(struct kv *kv) {
  struct stat st;
  int fd = openat(kv->commit.files.directory, SNAPSHOT_NAME, O_RDONLY | O_CLOEXEC);
  kv->start = 0;
  if (fd < 0) return errno == ENOENT ? 0 : -errno;
  int rc = fstat(fd, &st) ? -errno : st.st_size == 0 ? -EBADMSG : 0;
  size_t bytes = rc ? 0 : (size_t)st.st_size;
  void *data = rc ? MAP_FAILED : mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
  if (!rc && data == MAP_FAILED) rc = -errno;
  close(fd);
  if (rc) return rc;
  rc = load_from(kv, data, bytes);
  munmap(data, bytes);
  if (rc == -EBADMSG) say(SAY_ERROR, "[%s] the snapshot is damaged", kv->commit.label);
  return rc;
}

/* ---- taking one ---- */

static struct kv *kv_of(struct io_op *op) {
  return (struct kv *)((char *)op - offsetof(struct kv, snapshot.op));
}

static void give_up(struct kv *kv, int error) {
  struct kv_snapshot *s = &kv->snapshot;
  if (!s->spoilt)
    say(SAY_WARNING, "[%s] no snapshot: %s", kv->commit.label, strerror(-error));
  if (s->fd >= 0) close(s->fd);
  free(s->buffer);
  s->buffer = NULL;
  s->state = SNAPSHOT_NONE;
  kv->logged = 0; /* the next try comes when as much has been logged again */
}

static void call(struct kv *kv, int (*work)(struct io_op *), void (*done)(struct io_op *, int)) {
  kv->snapshot.op = (struct io_op){.what = IO_CALL, .call = work, .done = done};
  io_submit(kv->commit.io, &kv->snapshot.op);
}

/* On a helper thread: whole, on the disk, in its place. */
static int finish(struct io_op *op) {
  const struct kv *kv = kv_of(op);
  const struct kv_snapshot *s = &kv->snapshot;
  int directory = kv->commit.files.directory;
  struct header h = {.magic = SNAPSHOT_MAGIC,
                     .start = s->start,
                     .count = s->count,
                     .bytes = s->offset - sizeof h};
  h.crc = header_crc(s->crc, &h);
  if (pwrite(s->fd, &h, sizeof h, 0) != (ssize_t)sizeof h) return -EIO;
  if (fsync(s->fd)) return -errno;
  if (renameat(directory, SNAPSHOT_TEMP, directory, SNAPSHOT_NAME)) return -errno;
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
  free(s->buffer);
  s->buffer = NULL;
  s->state = SNAPSHOT_NONE;
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
                            .offset = sizeof(struct header),
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
