/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection: write-ahead log, every commit on the disk before it is answered, no "busy", and no
 * transaction but ours.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "owner.h"

enum { LOOK_OPCODES = 20000, NAP_MAX_MS = 25 };

/* ---- what requests may do ---- */

/* Those that only tell, whatever their argument. The others may be read but not set: that is the owner's. */
static bool only_tells(const char *pragma) {
  static const char *const names[] = {"table_info", "table_xinfo", "table_list", "index_list",
                                      "index_info", "index_xinfo", "foreign_key_list",
                                      "foreign_key_check", "integrity_check", "quick_check"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (sqlite3_stricmp(pragma, names[i]) == 0) return true;
  return false;
}

/* A request is a transaction by itself and shares one with others, so it may not end it. */
static int authorize(void *context, int action, const char *first, const char *second,
                     const char *database, const char *trigger) {
  const struct connection *c = context;
  (void)database;
  (void)trigger;
  switch (action) {
  case SQLITE_TRANSACTION: case SQLITE_SAVEPOINT: case SQLITE_ATTACH: case SQLITE_DETACH:
    return c->own ? SQLITE_OK : SQLITE_DENY;
  case SQLITE_PRAGMA:
    return c->own || !second || only_tells(first) ? SQLITE_OK : SQLITE_DENY;
  default: return SQLITE_OK;
  }
}

/* Another program has the database locked: that is for us to wait for. */
static int wait_busy(void *context, int tries) {
  (void)context;
  if (stopping) return 0;
  sqlite3_sleep(tries < NAP_MAX_MS ? tries + 1 : NAP_MAX_MS);
  return 1;
}

static int look_unwanted(void *context) {
  const struct connection *c = context;
  return c->current && shmq_cancelled(c->current);
}

/* ---- open and close ---- */

static int set_journal(struct connection *c) {
  sqlite3_stmt *stmt;
  int code = sqlite3_prepare_v2(c->db, "PRAGMA journal_mode = WAL", -1, &stmt, NULL);
  if (code) return code;
  code = sqlite3_step(stmt);
  const char *mode = code == SQLITE_ROW ? (const char *)sqlite3_column_text(stmt, 0) : NULL;
  bool good = mode && strcmp(mode, "wal") == 0;
  sqlite3_finalize(stmt);
  return good ? SQLITE_OK : code == SQLITE_ROW ? SQLITE_CANTOPEN : code;
}

int connection_open(struct connection *c, const char *path, bool writing) {
  *c = (struct connection){.own = true};
  int flags = writing ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
  int code = sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
  if (code) return code;
  sqlite3_extended_result_codes(c->db, 1);
  sqlite3_busy_handler(c->db, wait_busy, c);
  sqlite3_set_authorizer(c->db, authorize, c);
  sqlite3_progress_handler(c->db, LOOK_OPCODES, look_unwanted, c);
  if (writing) code = set_journal(c);
  if (!code)
    code = sqlite3_exec(c->db, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON", NULL, NULL,
                        NULL);
  c->own = false;
  return code;
}

void connection_close(struct connection *c) {
  statements_free(c);
  sqlite3_close(c->db);
  c->db = NULL;
}

int connection_do(struct connection *c, const char *sql) {
  struct statement *s;
  shmq_incoming *current = c->current;
  c->own = true;
  c->current = NULL; /* what is ours is not interrupted */
  int code = statement_get(c, sql, strlen(sql), &s);
  if (!code) {
    code = sqlite3_step(s->stmt);
    statement_release(s);
  }
  c->own = false;
  c->current = current;
  return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* ---- failures ---- */

static int errno_of(int code, enum shmq_class *error_class) {
  *error_class = SHMQ_CLASS_CLIENT;
  switch (code & 0xff) {
  case SQLITE_CONSTRAINT: *error_class = SHMQ_CLASS_CONFLICT; return -EEXIST;
  case SQLITE_INTERRUPT: *error_class = SHMQ_CLASS_CANCELLED; return -ECANCELED;
  case SQLITE_BUSY: case SQLITE_LOCKED: *error_class = SHMQ_CLASS_BUSY; return -EBUSY;
  case SQLITE_AUTH: case SQLITE_PERM: case SQLITE_READONLY:
    *error_class = SHMQ_CLASS_AUTH;
    return -EACCES;
  case SQLITE_FULL: *error_class = SHMQ_CLASS_QUOTA; return -ENOSPC;
  case SQLITE_TOOBIG: *error_class = SHMQ_CLASS_QUOTA; return -EMSGSIZE;
  case SQLITE_NOMEM: *error_class = SHMQ_CLASS_INTERNAL; return -ENOMEM;
  case SQLITE_IOERR: case SQLITE_CORRUPT: case SQLITE_NOTADB: case SQLITE_CANTOPEN:
    *error_class = SHMQ_CLASS_IO;
    return -EIO;
  default: return -EINVAL;
  }
}

void failure_set(struct failure *f, int code, const char *text) {
  enum shmq_class error_class;
  if (stopping && (code & 0xff) == SQLITE_BUSY) code = SQLITE_INTERRUPT; /* see wait_busy */
  f->status = errno_of(code, &error_class);
  f->error_class = (uint8_t)error_class;
  f->executed = SHMQ_EXECUTED_NO; /* what fails is rolled back */
  f->code = code;
  snprintf(f->text, sizeof f->text, "%s", text);
}

void failure_of(struct failure *f, struct connection *c, int code) {
  failure_set(f, code, sqlite3_errcode(c->db) ? sqlite3_errmsg(c->db) : sqlite3_errstr(code));
}
