/* SPDX-License-Identifier: Apache-2.0
 *
 * Group commit. Requests that arrive together, or while the first of them are executed, share one transaction, each in
 * a savepoint of its own, so that one commit, which waits for the disk, serves them all and a failure undoes one request
 * only.
 *
 *   Nothing is answered before the commit, reads neither: they have seen what is not committed yet. Where
 *   the transaction as a whole is lost (ON CONFLICT ROLLBACK, a deferred constraint, an interrupted write)
 *   everything is undone, and each request gets a transaction of its own: then only the culprit fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "owner.h"

int request_take(struct request **out, const shmq_incoming *incoming) {
  struct request *r = calloc(1, sizeof *r);
  void *data = malloc(incoming->size + 1);
  if (!r || !data) {
    free(r);
    free(data);
    return -ENOMEM;
  }
  memcpy(data, incoming->data, incoming->size);
  r->incoming = *incoming;
  r->data = data;
  *out = r;
  return 0;
}

void request_free(struct request *r) {
  sql_buffer_free(&r->answer);
  free(r->data);
  free(r);
}

/* ---- one request ---- */

static void start_over(struct request *r) {
  r->answer.size = 0;
  r->answer.failed = false;
  r->failure = (struct failure){0};
  r->written = r->is_long = false;
}

static bool only_reads(struct owner *o, struct request *r) {
  struct run run;
  run_begin(&run, &o->writer, r->incoming.header.op, r->data, r->incoming.size);
  bool reads = run_only_reads(&run);
  run_end(&run);
  return reads;
}

/* What reads only and has more to say than fits one message is read again, by a connection of its own. */
static void execute_reads(struct owner *o, struct request *r) {
  struct run run;
  run_begin(&run, &o->writer, r->incoming.header.op, r->data, r->incoming.size);
  enum run_state state = run_some(&run, &r->answer, o->part);
  r->failure = run.failure;
  run_end(&run);
  if (state != RUN_MORE) return;
  r->answer.size = 0;
  r->is_long = true;
}

static void execute_writes(struct owner *o, struct request *r) {
  struct connection *c = &o->writer;
  int64_t before = sqlite3_total_changes64(c->db);
  struct run run;
  run_begin(&run, c, r->incoming.header.op, r->data, r->incoming.size);
  if (run_some(&run, &r->answer, HELD_MAX) == RUN_MORE)
    failure_set(&run.failure, SQLITE_TOOBIG, "a request that writes may not answer so much");
  run_end(&run);
  if (!run.failure.status && !answer_fits(o, r)) failure_set(&run.failure, SQLITE_TOOBIG, row_too_long);
  r->failure = run.failure;
  if (r->failure.status) return;
  r->written = true;
  r->value[0] = (uint64_t)(sqlite3_total_changes64(c->db) - before);
  r->value[1] = (uint64_t)sqlite3_last_insert_rowid(c->db);
}

/* Ours, not the request's, to fail: what the connection says about it is the request's answer. */
static bool do_for(struct owner *o, struct request *r, const char *sql) {
  int code = connection_do(&o->writer, sql);
  if (code && !r->failure.status) failure_of(&r->failure, &o->writer, code);
  return code == SQLITE_OK;
}

static bool is_lost(struct owner *o) { return o->writing && sqlite3_get_autocommit(o->writer.db); }

static void execute_saved(struct owner *o, struct request *r) {
  if (!o->writing) o->writing = do_for(o, r, "BEGIN IMMEDIATE");
  if (!o->writing || !do_for(o, r, "SAVEPOINT request")) return;
  execute_writes(o, r);
  if (is_lost(o)) return;
  if (r->failure.status) do_for(o, r, "ROLLBACK TO request");
  do_for(o, r, "RELEASE request");
}

static void execute(struct owner *o, struct request *r) {
  start_over(r);
  if (r->incoming.header.op > SQL_BATCH) {
    r->failure = (struct failure){.status = -EOPNOTSUPP, .error_class = SHMQ_CLASS_UNSUPPORTED};
    return;
  }
  if (shmq_cancelled(&r->incoming)) { /* while it waited for the others */
    r->failure = (struct failure){.status = -ECANCELED, .error_class = SHMQ_CLASS_CANCELLED};
    return;
  }
  o->writer.current = &r->incoming;
  if (only_reads(o, r))
    execute_reads(o, r);
  else
    execute_saved(o, r);
  o->writer.current = NULL;
}

/* ---- all of a group ---- */

static void roll_back(struct owner *o) {
  if (!sqlite3_get_autocommit(o->writer.db)) connection_do(&o->writer, "ROLLBACK");
  o->writing = false;
}

/* False: what was done so far is undone, because of the one that failed so. */
static bool execute_all(struct owner *o, struct request **group, int n) {
  for (int i = 0; i < n; i++) {
    execute(o, group[i]);
    if (is_lost(o)) {
      roll_back(o);
      return false;
    }
  }
  return true;
}

/* False: it failed, and the last one of the group was told. */
static bool commit(struct owner *o, struct request *last) {
  if (!o->writing) return true;
  int code = connection_do(&o->writer, "COMMIT");
  if (code) {
    struct failure *f = &last->failure;
    failure_of(f, &o->writer, code);
    if (f->status == -EIO) f->executed = SHMQ_EXECUTED_UNKNOWN; /* what reached the disk, nobody knows */
    roll_back(o);
  }
  o->writing = false;
  return code == SQLITE_OK;
}

/* The commit is what takes long: who asks before it begins need not wait for the next one. */
static bool attempt(struct owner *o, int *n) {
  for (int done = 0; done < *n;) {
    if (!execute_all(o, o->group + done, *n - done)) return false;
    done = *n;
    if (o->writing) *n = gather(o, *n, SHMQ_NOWAIT);
  }
  return commit(o, o->group[*n - 1]);
}

int execute_group(struct owner *o, int n) {
  if (attempt(o, &n) || n == 1) return n;
  for (int i = 0; i < n; i++)
    if (execute_all(o, &o->group[i], 1)) commit(o, o->group[i]);
  return n;
}
