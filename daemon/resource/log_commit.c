/* SPDX-License-Identifier: Apache-2.0
 *
 *   READY -> WRITING [-> SYNCING] -> READY
 *   READY -> TURNING (a new segment) -> READY
 *
 * Any error of the disk stops the log: what is under way is answered UNKNOWN, nothing is tried again,
 * and the truth is read back from the files.
 */
#include "resource/log_commit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A worker dies with at most two batches of records that are in the files and not acknowledged. */
enum { REQUESTS_KEPT = 4 * LOG_BATCH_MAX / sizeof(struct log_frame) };

/* ---- lists of requests ---- */

static void put_request(struct request ***end, struct request *r) {
  r->next = NULL;
  **end = r;
  *end = &r->next;
}

static struct request *take_all(struct request **list, struct request ***end) {
  struct request *first = *list;
  *list = NULL;
  *end = list;
  return first;
}

/* ---- acknowledging ---- */

static bool acknowledged(const struct log_commit *c, const struct request *r) {
  uint64_t number = r->scratch[COMMIT_NUMBER];
  return r->scratch[COMMIT_ACK] == SHMQ_LOG_ACK_DISK ? number < c->synced : number < c->written;
}

static void acknowledge(struct log_commit *c) {
  struct request *list = take_all(&c->waiting, &c->waiting_end);
  for (struct request *next; list; list = next) {
    next = list->next;
    if (acknowledged(c, list))
      c->user->acknowledged(list);
    else
      put_request(&c->waiting_end, list);
  }
}

/* Requests that were put off are served as if they came now. */
static void serve_backlog(struct log_commit *c) {
  struct request *list = take_all(&c->backlog, &c->backlog_end);
  for (struct request *next; list; list = next) {
    next = list->next;
    resource_serve(list);
  }
}

void log_commit_put_off(struct log_commit *c, struct request *r) {
  put_request(&c->backlog_end, r);
}

/* ---- errors ---- */

static int replay(void *ctx, const struct log_frame *frame) {
  struct log_commit *c = ctx;
  int rc = 0;
  if (frame->flags & SHMQ_LOG_KEYED) rc = log_keys_add(&c->keys, &frame->key, frame->number);
  if (frame->flags & LOG_REQUEST) rc = log_keys_add(&c->requests, &frame->key, frame->number);
  return rc || !c->user->replay ? rc : c->user->replay(c, frame);
}

static int recover(struct log_commit *c, bool failed) {
  log_keys_clear(&c->keys);
  log_keys_clear(&c->requests);
  int rc = c->user->forget ? c->user->forget(c) : 0;
  if (!rc) rc = log_files_recover(&c->files, failed, replay, c, &c->next, &c->offset);
  if (!rc && c->files.count == 0) {
    rc = log_files_name_spare(&c->files, c->next);
    if (!rc) rc = log_files_adopt_spare(&c->files, c->next);
  }
  if (rc) return rc;
  c->written = c->synced = c->next;
  c->batches[0].bytes = c->batches[1].bytes = 0;
  c->batches[0].to_disk = c->batches[1].to_disk = 0;
  c->sync_wanted = false;
  c->filling = &c->batches[0];
  c->flying = &c->batches[1];
  c->state = LOG_READY;
  return 0;
}

/* Written, perhaps; on disk, perhaps. The files say what there really is. */
static void fail(struct log_commit *c, int error) {
  say(SAY_ERROR, "[%s] %s: stopped, reading back", c->files.name, strerror(-error));
  struct request *list = take_all(&c->waiting, &c->waiting_end);
  linger_end(&c->linger);
  int rc = recover(c, true);
  if (rc) {
    c->state = LOG_BROKEN;
    say(SAY_ERROR, "[%s] cannot be read back: %s", c->files.name, strerror(-rc));
  }
  for (struct request *next; list; list = next) {
    next = list->next;
    request_fail(list, error, SHMQ_EXECUTED_UNKNOWN, "the log failed while this was written");
  }
  serve_backlog(c);
  if (c->user->advanced) c->user->advanced(c);
}

/* ---- a batch on its way ---- */

static uint64_t whole_blocks(uint64_t bytes) {
  return (bytes + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1);
}

static void batch_done(struct log_commit *c) {
  if (c->flying->to_disk)
    linger_begin(&c->linger, c->flying->to_disk + c->filling->to_disk, shmq_now_ns() - c->left_ns);
  c->flying->bytes = 0;
  c->flying->to_disk = 0;
  c->sync_wanted = c->sync_wanted && c->synced < c->written;
  c->state = LOG_READY;
  acknowledge(c);
  serve_backlog(c);
  if (c->user->advanced) c->user->advanced(c);
}

static void synced(struct io_op *op, int result) {
  struct log_commit *c = op->buffer;
  if (result < 0) {
    fail(c, result);
    return;
  }
  c->synced = c->written;
  c->offset = whole_blocks(c->offset); /* what is on the disk is not written again */
  batch_done(c);
}

static int last_fd(const struct log_commit *c) { return c->files.segments[c->files.count - 1].fd; }

static void sync_file(struct log_commit *c) {
  c->state = LOG_SYNCING;
  c->sync_wanted = false;
  c->op = (struct io_op){.what = IO_SYNC, .fd = last_fd(c), .buffer = c, .done = synced};
  io_submit(c->io, &c->op);
}

static void all_written(struct log_commit *c, bool durable) {
  struct log_batch *b = c->flying;
  int rc = log_files_mark(&c->files, b->first, c->offset);
  if (rc) {
    fail(c, rc);
    return;
  }
  c->offset += b->bytes;
  c->written = b->first + b->count;
  if (durable) c->synced = c->written;
  if (c->sync_wanted || (b->to_disk && !durable))
    sync_file(c);
  else
    batch_done(c);
}

static void write_rest(struct log_commit *c);

static void wrote(struct io_op *op, int result) {
  struct log_commit *c = (struct log_commit *)((char *)op - offsetof(struct log_commit, op));
  if (result <= 0) {
    fail(c, result < 0 ? result : -EIO);
    return;
  }
  c->flown += (size_t)result;
  if (c->flown < c->flying->bytes)
    write_rest(c);
  else
    all_written(c, op->flags & RWF_DSYNC);
}

/* What is wanted on the disk goes there past the page cache, and with everything before it there needs no
 * sync of its own (RWF_DSYNC). What is only to survive this process goes no further than the cache, so it
 * does not wait for the disk. */
static void write_rest(struct log_commit *c) {
  struct log_batch *b = c->flying;
  const struct log_segment *s = &c->files.segments[c->files.count - 1];
  bool durable = b->to_disk && c->synced == b->first;
  c->state = LOG_WRITING;
  c->op = (struct io_op){.what = IO_WRITE,
                         .fd = b->to_disk && s->direct >= 0 ? s->direct : s->fd,
                         .flags = durable ? RWF_DSYNC : 0,
                         .buffer = b->data + c->flown,
                         .bytes = b->bytes - c->flown,
                         .offset = c->offset + c->flown,
                         .done = wrote};
  io_submit(c->io, &c->op);
}

/* ---- segments ---- */

static int make_spare(struct io_op *op) { return log_files_make_spare(op->buffer); }

static void spare_made(struct io_op *op, int result) {
  struct log_commit *c = (struct log_commit *)((char *)op - offsetof(struct log_commit, spare_op));
  c->making_spare = false;
  if (result) say(SAY_WARNING, "[%s] no spare file: %s", c->files.name, strerror(-result));
}

/* Early enough to be there when the present segment is full. */
static void prepare_spare(struct log_commit *c) {
  if (c->making_spare || c->files.spare >= 0 || c->offset < c->files.segment_bytes / 2) return;
  c->making_spare = true;
  c->spare_op =
      (struct io_op){.what = IO_CALL, .buffer = &c->files, .call = make_spare, .done = spare_made};
  io_submit(c->io, &c->spare_op);
}

/* What is in the old segment must be on the disk before anything is in the new one: the end of the log is
 * found in the last. */
static int name_spare(struct io_op *op) {
  struct log_commit *c = (struct log_commit *)((char *)op - offsetof(struct log_commit, op));
  if (fdatasync(last_fd(c))) return -errno;
  return log_files_name_spare(&c->files, c->filling->first);
}

static void turned(struct io_op *op, int result) {
  struct log_commit *c = (struct log_commit *)((char *)op - offsetof(struct log_commit, op));
  if (!result) result = log_files_adopt_spare(&c->files, c->written);
  if (result) {
    fail(c, result);
    return;
  }
  c->synced = c->written;
  c->offset = 0;
  c->state = LOG_READY;
  acknowledge(c);
}

static void turn_segment(struct log_commit *c) {
  if (c->making_spare) return;
  c->state = LOG_TURNING;
  c->op = (struct io_op){.what = IO_CALL, .call = name_spare, .done = turned};
  io_submit(c->io, &c->op);
}

/* ---- once a turn ---- */

/* A batch for the disk has blocks of its own; one for the page cache goes on where the last one ended. */
static void fly(struct log_commit *c) {
  struct log_batch *b = c->filling;
  uint64_t offset = b->to_disk ? whole_blocks(c->offset) : c->offset;
  size_t bytes = b->to_disk ? whole_blocks(b->bytes) : b->bytes;
  if (offset + bytes > c->files.segment_bytes) {
    turn_segment(c);
    return;
  }
  memset(b->data + b->bytes, 0, bytes - b->bytes);
  b->bytes = bytes;
  c->offset = offset;
  c->filling = c->flying;
  c->flying = b;
  c->filling->count = 0;
  c->flown = 0;
  c->left_ns = shmq_now_ns();
  linger_end(&c->linger);
  write_rest(c);
  prepare_spare(c);
}

/* Who waits for the disk would wait for two flights; nobody else is to wait for them. */
static bool may_leave(const struct log_commit *c) {
  const struct log_batch *b = c->filling;
  return !b->to_disk || c->backlog || c->sync_wanted || !linger_wants(&c->linger, b->to_disk);
}

void log_commit_turn(struct log_commit *c) {
  if (c->state != LOG_READY) return;
  if (c->filling->bytes && may_leave(c))
    fly(c);
  else if (c->sync_wanted && c->synced < c->written)
    sync_file(c);
}

void log_commit_sync(struct log_commit *c) {
  if (c->filling->bytes && !c->filling->to_disk) c->filling->to_disk = 1;
  c->sync_wanted = true;
}

bool log_commit_idle(const struct log_commit *c) {
  bool busy = c->waiting || c->backlog || c->making_spare || c->filling->bytes;
  return c->state == LOG_BROKEN || (c->state == LOG_READY && !busy);
}

/* ---- append ---- */

void log_commit_wait(struct log_commit *c, struct request *r, enum shmq_log_ack ack,
                     uint64_t number, bool repeated) {
  r->scratch[COMMIT_NUMBER] = number;
  r->scratch[COMMIT_ACK] = ack;
  r->scratch[COMMIT_REPEATED] = repeated;
  if (ack == SHMQ_LOG_ACK_MEMORY || acknowledged(c, r)) {
    c->user->acknowledged(r);
    return;
  }
  if (ack == SHMQ_LOG_ACK_DISK) {
    if (number >= c->written && c->filling->bytes && number >= c->filling->first)
      c->filling->to_disk++;
    else
      c->sync_wanted = true;
  }
  put_request(&c->waiting_end, r);
}

bool log_commit_room(const struct log_commit *c, size_t record_bytes) {
  return c->filling->bytes + log_frame_bytes(record_bytes) <= LOG_BATCH_MAX;
}

/* What tells a record from all others, if it is asked for again: its key, or the request that brought it. */
struct record_name {
  shmq_id id;
  uint32_t flags; /* the frame's */
};

static struct record_name name_of(const struct log_commit *c, const struct request *r,
                                  const shmq_id *key) {
  struct record_name name = {.flags = key && c->keys.most ? SHMQ_LOG_KEYED : LOG_REQUEST};
  if (name.flags == SHMQ_LOG_KEYED)
    name.id = *key;
  else
    shmq_incoming_id(&r->in, &name.id);
  return name;
}

static bool recorded(const struct log_commit *c, const struct request *r,
                     const struct record_name *name, uint64_t *number) {
  if (name->flags == SHMQ_LOG_KEYED) return log_keys_find(&c->keys, &name->id, number);
  return r->in.attempts > 1 && log_keys_find(&c->requests, &name->id, number);
}

bool log_commit_repeated(struct log_commit *c, struct request *r, enum shmq_log_ack ack) {
  struct record_name name = name_of(c, r, NULL);
  uint64_t number;
  if (!recorded(c, r, &name, &number)) return false;
  log_commit_wait(c, r, ack, number, true);
  return true;
}

static uint64_t stage(struct log_commit *c, const struct record_name *name,
                      const struct iovec *parts, int count, size_t bytes) {
  struct log_batch *b = c->filling;
  if (b->bytes == 0) {
    b->first = c->next;
    b->count = 0;
  }
  struct log_frame *frame = (struct log_frame *)(b->data + b->bytes);
  *frame = (struct log_frame){.magic = LOG_MAGIC,
                              .bytes = (uint32_t)bytes,
                              .number = c->next,
                              .key = name->id,
                              .flags = name->flags};
  size_t total = log_frame_bytes(bytes);
  memset((char *)frame + total - 8, 0, 8);
  char *to = (char *)(frame + 1);
  for (int i = 0; i < count; to += parts[i++].iov_len)
    if (parts[i].iov_len) memcpy(to, parts[i].iov_base, parts[i].iov_len);
  log_frame_seal(frame);
  b->bytes += total;
  b->count++;
  return c->next++;
}

int64_t log_commit_append(struct log_commit *c, struct request *r, enum shmq_log_ack ack,
                          const shmq_id *key, const struct iovec *parts, int count) {
  struct record_name name = name_of(c, r, key);
  uint64_t number;
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  if (log_frame_bytes(bytes) > LOG_BATCH_MAX) return -EMSGSIZE;
  if (recorded(c, r, &name, &number)) {
    log_commit_wait(c, r, ack, number, true);
    return (int64_t)number;
  }
  if (!log_commit_room(c, bytes)) {
    log_commit_put_off(c, r);
    return 0;
  }
  int rc = name.flags == SHMQ_LOG_KEYED ? log_keys_add(&c->keys, &name.id, c->next) : 0;
  if (rc) return rc;
  number = stage(c, &name, parts, count, bytes);
  log_commit_wait(c, r, ack, number, false);
  return (int64_t)number;
}

/* ---- open and close ---- */

void log_commit_close(struct log_commit *c) {
  linger_end(&c->linger);
  log_keys_free(&c->keys);
  log_keys_free(&c->requests);
  log_files_close(&c->files);
  free(c->batches[0].data);
  free(c->batches[1].data);
}

int log_commit_open(struct log_commit *c, const struct log_commit_user *user,
                    const struct resource *resource, const char *path, uint64_t segment_bytes,
                    size_t keys) {
  *c = (struct log_commit){.user = user, .io = resource->shard->io};
  snprintf(c->label, sizeof c->label, "%s:%s", resource->kind->section.name,
           resource->section->name);
  linger_open(&c->linger, resource->shard);
  c->waiting_end = &c->waiting;
  c->backlog_end = &c->backlog;
  c->files.directory = c->files.spare = -1;
  log_keys_init(&c->keys, keys);
  log_keys_init(&c->requests, REQUESTS_KEPT);
  for (int i = 0; i < 2; i++) c->batches[i].data = aligned_alloc(LOG_BLOCK, LOG_BATCH_MAX);
  int rc = c->batches[0].data && c->batches[1].data ? 0 : -ENOMEM;
  if (!rc) rc = log_files_open(&c->files, path, whole_blocks(segment_bytes), c->label);
  if (!rc) rc = recover(c, false);
  if (rc) log_commit_close(c);
  return rc;
}
