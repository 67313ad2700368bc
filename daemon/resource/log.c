/* SPDX-License-Identifier: Apache-2.0
 *
 * A log with group commit. Records are copied into a staging buffer; one batch is on its way to the disk,
 * and the next one is what arrives meanwhile.
 *
 *   READY -> WRITING [-> SYNCING] -> READY
 *   READY -> TURNING (a new segment) -> READY
 *
 * Any error of the disk stops the log: what is under way is answered UNKNOWN, nothing is tried again,
 * and the truth is read back from the files.
 */
#include "resource/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum log_state { LOG_READY, LOG_WRITING, LOG_SYNCING, LOG_TURNING, LOG_BROKEN };

struct batch {
  char *data; /* LOG_BATCH_MAX, aligned */
  size_t bytes;
  uint64_t first; /* number of its first record */
  uint64_t count;
  bool to_disk; /* somebody waits for the disk */
};

struct log {
  struct resource base;
  struct log_files files;
  struct log_keys keys;
  enum log_state state;
  struct batch batches[2];
  struct batch *filling, *flying;
  uint64_t next;    /* number of the next record */
  uint64_t written; /* records below are in the file */
  uint64_t synced;  /* records below are on the disk */
  uint64_t offset;  /* in the last segment, where the next batch goes */
  size_t flown;     /* bytes of the flying batch that are written */
  bool sync_wanted; /* somebody waits for the disk to have what is only written */
  struct io_op op;  /* write or sync of the flying batch; the turn to a new segment */
  struct io_op spare_op;
  bool making_spare;
  struct request *waiting, **waiting_end;     /* appended, not acknowledged yet */
  struct request *backlog, **backlog_end;     /* no room in the staging buffer */
  struct request *followers, **followers_end; /* wait for a record */
};

/* scratch of a request */
enum { APPEND_NUMBER, APPEND_ACK, APPEND_REPEATED, READ_NUMBER, READ_END };

static const struct param params[] = {
    {"path", PARAM_PATH, NULL, 0, 0, NULL, "the directory of the log; made if it is not there",
     PARAM_FIXED},
    {"segment_bytes", PARAM_BYTES, "16M", 2 << 20, INT64_C(1) << 40, NULL,
     "size of a file; each is zero-written before use", PARAM_FIXED},
    {"keys", PARAM_COUNT, "1048576", 0, 1 << 26, NULL,
     "idempotency keys remembered: a record is not appended twice under one of them",
     PARAM_FIXED},
    {0},
};

static struct io *io_of(const struct log *log) { return log->base.daemon->io; }

/* ---- lists of requests ---- */

static void put_request(struct request ***end, struct request *r) {
  r->next = NULL;
  **end = r;
  *end = &r->next;
}

/* ---- acknowledging ---- */

static bool acknowledged(const struct log *log, const struct request *r) {
  uint64_t number = r->scratch[APPEND_NUMBER];
  return r->scratch[APPEND_ACK] == SHMQ_LOG_ACK_DISK ? number < log->synced : number < log->written;
}

static void acknowledge(struct log *log) {
  struct request *list = log->waiting;
  log->waiting = NULL;
  log->waiting_end = &log->waiting;
  for (struct request *next; list; list = next) {
    next = list->next;
    if (acknowledged(log, list))
      request_value(list, list->scratch[APPEND_NUMBER], list->scratch[APPEND_REPEATED], NULL, 0);
    else
      put_request(&log->waiting_end, list);
  }
}

static void log_serve(struct request *r);

/* Requests that were put aside are served as if they came now. */
static void serve_again(struct request **list, struct request ***end) {
  struct request *first = *list;
  *list = NULL;
  *end = list;
  for (struct request *next; first; first = next) {
    next = first->next;
    log_serve(first);
  }
}

/* ---- errors ---- */

static int replay(void *ctx, const struct log_frame *frame) {
  struct log *log = ctx;
  if (!(frame->flags & SHMQ_LOG_KEYED)) return 0;
  return log_keys_add(&log->keys, &frame->key, frame->number);
}

static int recover(struct log *log) {
  log_keys_clear(&log->keys);
  int rc = log_files_recover(&log->files, replay, log, &log->next, &log->offset);
  if (!rc && log->files.count == 0) {
    rc = log_files_name_spare(&log->files, log->next);
    if (!rc) rc = log_files_adopt_spare(&log->files, log->next);
  }
  if (rc) return rc;
  log->written = log->synced = log->next;
  log->batches[0].bytes = log->batches[1].bytes = 0;
  log->batches[0].to_disk = log->batches[1].to_disk = log->sync_wanted = false;
  log->filling = &log->batches[0];
  log->flying = &log->batches[1];
  log->state = LOG_READY;
  return 0;
}

/* Written, perhaps; on disk, perhaps. The files say what there really is. */
static void fail(struct log *log, int error) {
  say(SAY_ERROR, "[log:%s] %s: stopped, reading back", log->files.name, strerror(-error));
  struct request *list = log->waiting;
  log->waiting = NULL;
  log->waiting_end = &log->waiting;
  int rc = recover(log);
  if (rc) {
    log->state = LOG_BROKEN;
    say(SAY_ERROR, "[log:%s] cannot be read back: %s", log->files.name, strerror(-rc));
  }
  for (struct request *next; list; list = next) {
    next = list->next;
    request_fail(list, error, SHMQ_EXECUTED_UNKNOWN, "the log failed while this was written");
  }
  serve_again(&log->backlog, &log->backlog_end);
}

/* ---- a batch on its way ---- */

static uint64_t whole_blocks(uint64_t bytes) {
  return (bytes + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1);
}

static void batch_done(struct log *log) {
  log->flying->bytes = 0;
  log->flying->to_disk = false;
  log->sync_wanted = log->sync_wanted && log->synced < log->written;
  log->state = LOG_READY;
  acknowledge(log);
  serve_again(&log->backlog, &log->backlog_end);
  serve_again(&log->followers, &log->followers_end);
}

static void synced(struct io_op *op, int result) {
  struct log *log = op->buffer;
  if (result < 0) {
    fail(log, result);
    return;
  }
  log->synced = log->written;
  log->offset = whole_blocks(log->offset); /* what is on the disk is not written again */
  batch_done(log);
}

static int last_fd(const struct log *log) { return log->files.segments[log->files.count - 1].fd; }

static void sync_file(struct log *log) {
  log->state = LOG_SYNCING;
  log->sync_wanted = false;
  log->op = (struct io_op){.what = IO_SYNC, .fd = last_fd(log), .buffer = log, .done = synced};
  io_submit(io_of(log), &log->op);
}

static void all_written(struct log *log, bool durable) {
  struct batch *b = log->flying;
  int rc = log_files_mark(&log->files, b->first, log->offset);
  if (rc) {
    fail(log, rc);
    return;
  }
  log->offset += b->bytes;
  log->written = b->first + b->count;
  if (durable) log->synced = log->written;
  if (log->sync_wanted || (b->to_disk && !durable))
    sync_file(log);
  else
    batch_done(log);
}

static void write_rest(struct log *log);

static void wrote(struct io_op *op, int result) {
  struct log *log = (struct log *)((char *)op - offsetof(struct log, op));
  if (result <= 0) {
    fail(log, result < 0 ? result : -EIO);
    return;
  }
  log->flown += (size_t)result;
  if (log->flown < log->flying->bytes)
    write_rest(log);
  else
    all_written(log, op->flags & RWF_DSYNC);
}

/* What is wanted on the disk goes there past the page cache, and with everything before it there needs no
 * sync of its own (RWF_DSYNC). What is only to survive this process goes no further than the cache, so it
 * does not wait for the disk. */
static void write_rest(struct log *log) {
  struct batch *b = log->flying;
  const struct log_segment *s = &log->files.segments[log->files.count - 1];
  bool durable = b->to_disk && log->synced == b->first;
  log->state = LOG_WRITING;
  log->op = (struct io_op){.what = IO_WRITE,
                           .fd = b->to_disk && s->direct >= 0 ? s->direct : s->fd,
                           .flags = durable ? RWF_DSYNC : 0,
                           .buffer = b->data + log->flown,
                           .bytes = b->bytes - log->flown,
                           .offset = log->offset + log->flown,
                           .done = wrote};
  io_submit(io_of(log), &log->op);
}

/* ---- segments ---- */

static int make_spare(struct io_op *op) { return log_files_make_spare(op->buffer); }

static void spare_made(struct io_op *op, int result) {
  struct log *log = (struct log *)((char *)op - offsetof(struct log, spare_op));
  log->making_spare = false;
  if (result) say(SAY_WARNING, "[log:%s] no spare file: %s", log->files.name, strerror(-result));
}

/* Early enough to be there when the present segment is full. */
static void prepare_spare(struct log *log) {
  if (log->making_spare || log->files.spare >= 0 || log->offset < log->files.segment_bytes / 2)
    return;
  log->making_spare = true;
  log->spare_op = (struct io_op){
      .what = IO_CALL, .buffer = &log->files, .call = make_spare, .done = spare_made};
  io_submit(io_of(log), &log->spare_op);
}

/* What is in the old segment must be on the disk before anything is in the new one: the end of the log is
 * found in the last. */
static int name_spare(struct io_op *op) {
  struct log *log = (struct log *)((char *)op - offsetof(struct log, op));
  if (fdatasync(last_fd(log))) return -errno;
  return log_files_name_spare(&log->files, log->filling->first);
}

static void turned(struct io_op *op, int result) {
  struct log *log = (struct log *)((char *)op - offsetof(struct log, op));
  if (!result) result = log_files_adopt_spare(&log->files, log->written);
  if (result) {
    fail(log, result);
    return;
  }
  log->synced = log->written;
  log->offset = 0;
  log->state = LOG_READY;
  acknowledge(log);
}

static void turn_segment(struct log *log) {
  if (log->making_spare) return;
  log->state = LOG_TURNING;
  log->op = (struct io_op){.what = IO_CALL, .call = name_spare, .done = turned};
  io_submit(io_of(log), &log->op);
}

/* ---- once a turn ---- */

/* A batch for the disk has blocks of its own; one for the page cache goes on where the last one ended. */
static void fly(struct log *log) {
  struct batch *b = log->filling;
  uint64_t offset = b->to_disk ? whole_blocks(log->offset) : log->offset;
  size_t bytes = b->to_disk ? whole_blocks(b->bytes) : b->bytes;
  if (offset + bytes > log->files.segment_bytes) {
    turn_segment(log);
    return;
  }
  memset(b->data + b->bytes, 0, bytes - b->bytes);
  b->bytes = bytes;
  log->offset = offset;
  log->filling = log->flying;
  log->flying = b;
  log->filling->count = 0;
  log->flown = 0;
  write_rest(log);
  prepare_spare(log);
}

static void log_turn(struct resource *resource) {
  struct log *log = (struct log *)resource;
  if (log->state != LOG_READY) return;
  if (log->filling->bytes)
    fly(log);
  else if (log->sync_wanted && log->synced < log->written)
    sync_file(log);
}

/* ---- append ---- */

static void wait_for_ack(struct log *log, struct request *r, uint64_t number, bool repeated) {
  uint64_t ack = r->scratch[APPEND_ACK];
  r->scratch[APPEND_NUMBER] = number;
  r->scratch[APPEND_REPEATED] = repeated;
  if (ack == SHMQ_LOG_ACK_MEMORY || acknowledged(log, r)) {
    request_value(r, number, repeated, NULL, 0);
    return;
  }
  if (ack == SHMQ_LOG_ACK_DISK && number < log->written) log->sync_wanted = true;
  if (ack == SHMQ_LOG_ACK_DISK && number >= log->written) {
    struct batch *b =
        log->filling->bytes && number >= log->filling->first ? log->filling : log->flying;
    if (b == log->filling)
      b->to_disk = true;
    else
      log->sync_wanted = true;
  }
  put_request(&log->waiting_end, r);
}

static void stage(struct log *log, struct request *r, const shmq_id *key, size_t skip) {
  size_t bytes = r->in.size - skip;
  struct batch *b = log->filling;
  if (b->bytes == 0) {
    b->first = log->next;
    b->count = 0;
  }
  struct log_frame *frame = (struct log_frame *)(b->data + b->bytes);
  *frame = (struct log_frame){.magic = LOG_MAGIC, .bytes = (uint32_t)bytes, .number = log->next};
  if (key) {
    frame->key = *key;
    frame->flags = SHMQ_LOG_KEYED;
  }
  size_t total = log_frame_bytes(bytes);
  memset((char *)frame + total - 8, 0, 8);
  memcpy(frame + 1, (char *)r->in.data + skip, bytes);
  log_frame_seal(frame);
  b->bytes += total;
  b->count++;
  wait_for_ack(log, r, log->next++, false);
}

static void serve_append(struct log *log, struct request *r) {
  bool keyed = request_arg(r, 1) & SHMQ_LOG_KEYED;
  size_t skip = keyed ? sizeof(shmq_id) : 0;
  shmq_id key;
  uint64_t number;

  r->scratch[APPEND_ACK] = request_arg(r, 0);
  if (r->in.size < skip || request_arg(r, 0) > SHMQ_LOG_ACK_DISK) {
    request_error(r, -EINVAL, NULL);
    return;
  }
  size_t total = log_frame_bytes(r->in.size - skip);
  if (total > LOG_BATCH_MAX) {
    request_error(r, -EMSGSIZE, "the record is longer than a batch");
    return;
  }
  if (keyed) memcpy(&key, r->in.data, sizeof key);
  if (keyed && log_keys_find(&log->keys, &key, &number)) {
    wait_for_ack(log, r, number, true);
    return;
  }
  if (log->filling->bytes + total > LOG_BATCH_MAX) {
    put_request(&log->backlog_end, r);
    return;
  }
  if (keyed && log_keys_add(&log->keys, &key, log->next)) {
    request_error(r, -ENOMEM, NULL);
    return;
  }
  stage(log, r, keyed ? &key : NULL, skip);
}

/* ---- reading ---- */

static int run_read(struct io_op *op) {
  struct request *r = (struct request *)((char *)op - offsetof(struct request, op));
  struct log_place *place = r->memory;
  size_t filled;
  int rc = log_read(place, r->scratch[READ_NUMBER], r->scratch[READ_END], r->in.data, r->in.room,
                    &filled);
  return rc ? rc : (int)filled;
}

static void read_ran(struct io_op *op, int result) {
  struct request *r = (struct request *)((char *)op - offsetof(struct request, op));
  if (result < 0)
    request_error(r, result, NULL);
  else
    request_in_place(r, 0, 0, (size_t)result);
}

static void serve_read(struct log *log, struct request *r) {
  uint64_t number = request_arg(r, 0);
  if (number >= log->written) {
    if (r->in.header.op == SHMQ_LOG_FOLLOW)
      put_request(&log->followers_end, r);
    else
      request_error(r, -ENODATA, "no such record yet");
    return;
  }
  struct log_place *place = malloc(sizeof *place);
  int rc = place ? log_files_locate(&log->files, number, place) : -ENOMEM;
  r->memory = place;
  if (rc) {
    request_error(r, rc, rc == -ENODATA ? "that record was trimmed" : NULL);
    return;
  }
  r->scratch[READ_NUMBER] = number;
  r->scratch[READ_END] = log->written;
  r->op = (struct io_op){.what = IO_CALL, .call = run_read, .done = read_ran};
  io_submit(io_of(log), &r->op);
}

static void serve_trim(struct log *log, struct request *r) {
  int rc = log->state == LOG_TURNING ? -EAGAIN : log_files_trim(&log->files, request_arg(r, 0));
  if (rc)
    request_error(r, rc, NULL);
  else
    request_value(r, log->files.segments[0].first, 0, NULL, 0);
}

/* ---- the table ---- */

static void log_serve(struct request *r) {
  struct log *log = (struct log *)r->resource;
  uint16_t op = r->in.header.op;
  if (log->state == LOG_BROKEN) {
    request_fail(r, -EIO, SHMQ_EXECUTED_NO, "the log is damaged");
    return;
  }
  switch (op) {
  case SHMQ_LOG_APPEND: serve_append(log, r); return;
  case SHMQ_LOG_READ:
  case SHMQ_LOG_FOLLOW: serve_read(log, r); return;
  case SHMQ_LOG_TRIM: serve_trim(log, r); return;
  case SHMQ_LOG_STATUS:
    request_value(r, log->files.segments[0].first, log->written, NULL, 0);
    return;
  default: request_error(r, -EOPNOTSUPP, "no such operation");
  }
}

/* Followers belong to their session; everybody else gets an answer soon. */
static void log_leave(struct resource *resource, struct session *session) {
  struct log *log = (struct log *)resource;
  struct request *list = log->followers;
  log->followers = NULL;
  log->followers_end = &log->followers;
  for (struct request *next; list; list = next) {
    next = list->next;
    if (list->session == session)
      request_error(list, -ECANCELED, NULL);
    else
      put_request(&log->followers_end, list);
  }
}

static bool log_idle(const struct resource *resource) {
  const struct log *log = (const struct log *)resource;
  bool busy = log->waiting || log->backlog || log->making_spare || log->filling->bytes;
  return log->state == LOG_BROKEN || (log->state == LOG_READY && !busy);
}

static void log_close(struct resource *resource) {
  struct log *log = (struct log *)resource;
  log_keys_free(&log->keys);
  log_files_close(&log->files);
  free(log->batches[0].data);
  free(log->batches[1].data);
}

static int log_open(struct resource *resource) {
  struct log *log = (struct log *)resource;
  const char *path = section_text(resource->section, "path");
  log->waiting_end = &log->waiting;
  log->backlog_end = &log->backlog;
  log->followers_end = &log->followers;
  log->files.directory = log->files.spare = -1;
  log_keys_init(&log->keys, (size_t)section_number(resource->section, "keys"));
  for (int i = 0; i < 2; i++) log->batches[i].data = aligned_alloc(LOG_BLOCK, LOG_BATCH_MAX);

  int rc = log->batches[0].data && log->batches[1].data ? 0 : -ENOMEM;
  uint64_t bytes = (uint64_t)section_number(resource->section, "segment_bytes");
  bytes = (bytes + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1);
  if (!rc) rc = log_files_open(&log->files, path, bytes, resource->section->name);
  if (!rc) rc = recover(log);
  if (!rc) return 0;
  say(SAY_ERROR, "[log:%s] %s: %s", resource->section->name, path, strerror(-rc));
  log_close(resource);
  return rc;
}

const struct resource_kind log_kind = {.section = {"log", true, params, "Records, in order", true},
                                       .bytes = sizeof(struct log),
                                       .open = log_open,
                                       .serve = log_serve,
                                       .turn = log_turn,
                                       .leave = log_leave,
                                       .idle = log_idle,
                                       .close = log_close};
