/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers, at the speed of who asked. Nobody waits for a slow reader: what cannot be sent now is tried again after
 * the next group. A long answer comes from a connection of its own, which sees the database as it was when
 * the answer began while the others go on writing.
 */
#include <errno.h>
#include <string.h>

#include "owner.h"

enum { PARTS_AT_ONCE = 16 };

const char row_too_long[] = "a row is longer than the service's longest message";

/* ---- connections for long answers ---- */

static int take_reader(struct owner *o, struct connection **out) {
  for (int i = 0; i < READERS_MAX; i++) {
    struct connection *c = &o->readers[i];
    if (o->reader_taken[i]) continue;
    int code = c->db ? SQLITE_OK : connection_open(c, o->path, false);
    if (code) {
      connection_close(c);
      return code;
    }
    o->reader_taken[i] = true;
    *out = c;
    return connection_do(c, "BEGIN");
  }
  return SQLITE_BUSY;
}

static void give_reader(struct owner *o, struct request *r) {
  if (!r->reader) return;
  run_end(&r->run);
  connection_do(r->reader, "COMMIT");
  r->reader->current = NULL;
  o->reader_taken[r->reader - o->readers] = false;
  r->reader = NULL;
}

/* Returns false while all of them are taken. */
static bool start_long(struct owner *o, struct request *r) {
  int code = take_reader(o, &r->reader);
  if (code == SQLITE_BUSY && !r->reader) return false;
  if (code) {
    failure_set(&r->failure, code, sqlite3_errstr(code));
    return true;
  }
  run_begin(&r->run, r->reader, r->incoming.header.op, r->data, r->incoming.size);
  return true;
}

static void read_on(struct owner *o, struct request *r) {
  if (r->run_done || r->answer.size - r->sent > o->part) return;
  r->answer.size -= r->sent;
  memmove(r->answer.data, r->answer.data + r->sent, r->answer.size);
  r->sent = 0;
  r->reader->current = &r->incoming;
  enum run_state state = run_some(&r->run, &r->answer, o->part);
  r->reader->current = NULL;
  r->run_done = state != RUN_MORE;
  r->failure = r->run.failure;
}

/* ---- sending ---- */

static int send_error(struct request *r) {
  struct failure *f = &r->failure;
  if (f->status == -ECANCELED && r->incoming.header.deadline_ns <= shmq_now_ns()) {
    f->status = -ETIMEDOUT;
    f->error_class = SHMQ_CLASS_TIMEOUT;
  }
  shmq_answer answer = {.status = f->status,
                        .error_class = f->error_class,
                        .executed = f->executed,
                        .code = f->code,
                        .domain = f->code ? "sqlite" : NULL,
                        .text = f->code ? f->text : NULL};
  return shmq_reply_answer(&r->incoming, &answer);
}

/* As many whole records as fit; of text, as many bytes. 0: not even one. */
static size_t fitting(const struct request *r, size_t limit) {
  const unsigned char *from = r->answer.data + r->sent;
  struct sql_reader reader = {.at = from, .end = r->answer.data + r->answer.size};
  if (r->incoming.header.op == SQL_TEXT) return limit;
  size_t whole = 0;
  enum sql_kind kind;
  uint32_t count;
  struct sql_value value;
  while (sql_next_record(&reader, &kind, &count)) {
    while (count-- && sql_next_value(&reader, &value)) continue;
    if ((size_t)(reader.at - from) > limit) break;
    whole = (size_t)(reader.at - from);
  }
  return whole;
}

bool answer_fits(const struct owner *o, const struct request *r) {
  struct sql_reader reader = {.at = r->answer.data, .end = r->answer.data + r->answer.size};
  const unsigned char *from = reader.at;
  enum sql_kind kind;
  uint32_t count;
  struct sql_value value;
  if (r->incoming.header.op == SQL_TEXT) return true;
  while (sql_next_record(&reader, &kind, &count)) {
    while (count-- && sql_next_value(&reader, &value)) continue;
    if ((size_t)(reader.at - from) > o->part) return false;
    from = reader.at;
  }
  return true;
}

static int send_part(struct owner *o, struct request *r) {
  size_t size = fitting(r, o->part);
  if (size == 0) {
    failure_set(&r->failure, SQLITE_TOOBIG, row_too_long);
    return 0;
  }
  int rc = shmq_reply_stream(&r->incoming, r->answer.data + r->sent, size, SHMQ_NOWAIT);
  if (rc == 0) r->sent += size;
  return rc;
}

static int send_last(struct request *r) {
  return shmq_reply_value(&r->incoming, r->value, r->answer.data + r->sent,
                          r->answer.size - r->sent);
}

void answer_error(struct owner *o, struct request *r, int status) {
  give_reader(o, r);
  shmq_answer answer = {.status = status,
                        .error_class = (uint8_t)shmq_class_of(status),
                        .executed = r->written ? SHMQ_EXECUTED_YES : SHMQ_EXECUTED_NO};
  shmq_reply_answer(&r->incoming, &answer);
}

int answer_some(struct owner *o, struct request *r, bool *progress) {
  if (r->is_long && !r->reader && !r->failure.status && !start_long(o, r)) return 0;
  for (int parts = 0; parts < PARTS_AT_ONCE; parts++) {
    if (r->reader && !r->failure.status) read_on(o, r);
    int rc;
    bool last = true;
    if (r->failure.status) {
      rc = send_error(r);
    } else if (r->answer.size - r->sent <= o->part) {
      rc = send_last(r);
    } else {
      last = false;
      rc = shmq_cancelled(&r->incoming) ? -ECANCELED : send_part(o, r);
    }
    if (rc == -EAGAIN) return 0;
    *progress = true;
    if (rc < 0 && !last) answer_error(o, r, rc); /* it does not want more, or has gone */
    if (rc < 0 || last) {
      give_reader(o, r);
      return 1;
    }
  }
  return 0;
}
