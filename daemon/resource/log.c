/* SPDX-License-Identifier: Apache-2.0
 *
 * A log: append with the acknowledgement that is wanted, read by number, follow, trim. How records get
 * into the files is log_commit.c.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resource/log_commit.h"
#include "wait_list.h"

struct log {
  struct resource base;
  struct log_commit commit;
  struct request *readers, **readers_end; /* wait for a record that is on its way */
  struct wait_list followers;             /* wait for somebody to append */
};

/* scratch of a request that reads */
enum { READ_NUMBER, READ_END };

static const struct param params[] = {
    {"path", PARAM_PATH, NULL, 0, 0, NULL, "the directory of the log; made if it is not there",
     PARAM_FIXED},
    {"segment_bytes", PARAM_BYTES, "16M", 2 << 20, INT64_C(1) << 40, NULL,
     "size of a file; each is zero-written before use", PARAM_FIXED},
    {"keys", PARAM_COUNT, "1048576", 0, 1 << 26, NULL,
     "idempotency keys remembered: a record is not appended twice under one of them",
     PARAM_FIXED},
    RIGHTS_PARAM,
    SHARD_PARAM,
    {0},
};

static struct log *log_of(struct log_commit *c) {
  return (struct log *)((char *)c - offsetof(struct log, commit));
}

/* ---- append ---- */

static void acknowledged(struct request *r) {
  request_value(r, r->scratch[COMMIT_NUMBER], r->scratch[COMMIT_REPEATED], NULL, 0);
}

static void serve_append(struct request *r) {
  struct log *log = (struct log *)r->resource;
  bool keyed = request_arg(r, 1) & SHMQ_LOG_KEYED;
  size_t skip = keyed ? sizeof(shmq_id) : 0;
  shmq_id key;
  if (r->in.size < skip || request_arg(r, 0) > SHMQ_LOG_ACK_DISK) {
    request_error(r, -EINVAL, NULL);
    return;
  }
  if (keyed) memcpy(&key, r->in.data, sizeof key);
  struct iovec record = {(char *)r->in.data + skip, r->in.size - skip};
  int64_t rc = log_commit_append(&log->commit, r, (enum shmq_log_ack)request_arg(r, 0),
                                 keyed ? &key : NULL, &record, 1);
  if (rc < 0)
    request_error(r, (int)rc, rc == -EMSGSIZE ? "the record is longer than a batch" : NULL);
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

static void wait_for_record(struct log *log, struct request *r) {
  if (r->in.header.op == SHMQ_LOG_FOLLOW) {
    wait_list_add(&log->followers, r);
    return;
  }
  r->next = NULL;
  *log->readers_end = r;
  log->readers_end = &r->next;
}

static void serve_read(struct request *r) {
  struct log *log = (struct log *)r->resource;
  uint64_t number = request_arg(r, 0);
  if (log->commit.state == LOG_BROKEN) {
    request_error(r, -EIO, "the log is damaged");
    return;
  }
  if (number >= log->commit.written) {
    if (r->in.header.op == SHMQ_LOG_FOLLOW || number < log->commit.next)
      wait_for_record(log, r);
    else
      request_error(r, -ENODATA, "no such record yet");
    return;
  }
  struct log_place *place = malloc(sizeof *place);
  int rc = place ? log_files_locate(&log->commit.files, number, place) : -ENOMEM;
  r->memory = place;
  if (rc) {
    request_error(r, rc, rc == -ENODATA ? "that record was trimmed" : NULL);
    return;
  }
  r->scratch[READ_NUMBER] = number;
  r->scratch[READ_END] = log->commit.written;
  r->op = (struct io_op){.what = IO_CALL, .call = run_read, .done = read_ran};
  io_submit(log->base.shard->io, &r->op);
}

static void serve_trim(struct request *r) {
  struct log *log = (struct log *)r->resource;
  int rc = log->commit.state == LOG_TURNING
               ? -EAGAIN
               : log_files_trim(&log->commit.files, request_arg(r, 0));
  if (rc)
    request_error(r, rc, NULL);
  else
    request_value(r, log->commit.files.segments[0].first, 0, NULL, 0);
}

static void serve_status(struct request *r) {
  const struct log_commit *commit = &((struct log *)r->resource)->commit;
  request_value(r, commit->files.segments[0].first, commit->written, NULL, 0);
}

static struct request *take_readers(struct log *log) {
  struct request *list = log->readers;
  log->readers = NULL;
  log->readers_end = &log->readers;
  return list;
}

/* One that waits for a later record goes to the end of the list, behind those that there were. */
static void serve_followers(struct log *log) {
  struct request *r;
  for (unsigned n = log->followers.count; n && (r = wait_list_take(&log->followers)); n--)
    serve_read(r);
}

static void advanced(struct log_commit *commit) {
  struct log *log = log_of(commit);
  struct request *list = take_readers(log);
  for (struct request *next; list; list = next) {
    next = list->next;
    serve_read(list);
  }
  serve_followers(log);
}

/* ---- the table ---- */

static const struct operation operations[] = {{SHMQ_LOG_APPEND, RIGHT_WRITE, serve_append},
                                              {SHMQ_LOG_READ, RIGHT_READ, serve_read},
                                              {SHMQ_LOG_FOLLOW, RIGHT_READ, serve_read},
                                              {SHMQ_LOG_TRIM, RIGHT_ADMIN, serve_trim},
                                              {SHMQ_LOG_STATUS, RIGHT_READ, serve_status},
                                              {0}};

static int log_admit(const struct resource *resource, const struct operation *o, const char **why) {
  (void)o;
  if (((const struct log *)resource)->commit.state != LOG_BROKEN) return 0;
  *why = "the log is damaged";
  return -EIO;
}

static void log_turn(struct resource *resource) {
  log_commit_turn(&((struct log *)resource)->commit);
}

/* Readers belong to their session; everybody else gets an answer soon. */
static void log_leave(struct resource *resource, struct session *session) {
  struct log *log = (struct log *)resource;
  wait_list_leave(&log->followers, session);
  struct request *list = take_readers(log);
  for (struct request *next; list; list = next) {
    next = list->next;
    if (list->session == session)
      request_error(list, -ECANCELED, NULL);
    else
      wait_for_record(log, list);
  }
}

static bool log_idle(const struct resource *resource) {
  return log_commit_idle(&((const struct log *)resource)->commit);
}

static void log_close(struct resource *resource) {
  wait_list_close(&((struct log *)resource)->followers);
  log_commit_close(&((struct log *)resource)->commit);
}

static int log_open(struct resource *resource) {
  static const struct log_commit_user user = {.acknowledged = acknowledged, .advanced = advanced};
  struct log *log = (struct log *)resource;
  const char *path = section_text(resource->section, "path");
  log->readers_end = &log->readers;
  wait_list_open(&log->followers, resource->shard);
  int rc = log_commit_open(&log->commit, &user, resource, path,
                           (uint64_t)section_number(resource->section, "segment_bytes"),
                           (size_t)section_number(resource->section, "keys"));
  if (rc) say(SAY_ERROR, "[log:%s] %s: %s", resource->section->name, path, strerror(-rc));
  return rc;
}

const struct resource_kind log_kind = {.section = {"log", true, params, "Records, in order", true, NULL},
                                       .bytes = sizeof(struct log),
                                       .open = log_open,
                                       .operations = operations,
                                       .admit = log_admit,
                                       .turn = log_turn,
                                       .leave = log_leave,
                                       .idle = log_idle,
                                       .close = log_close};
