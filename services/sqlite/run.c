/* SPDX-License-Identifier: Apache-2.0
 *
 * The statements of one request, one after the other, their rows into a buffer.
 */
#include "owner.h"

void run_begin(struct run *run, struct connection *c, uint16_t op, const void *data, size_t size) {
  *run = (struct run){.connection = c, .op = (enum sql_op)op};
  const unsigned char *bytes = data;
  if (op == SQL_TEXT) {
    run->rest = data;
    run->rest_size = size;
  } else {
    run->reader = (struct sql_reader){.at = bytes, .end = bytes + size};
  }
}

void run_end(struct run *run) {
  if (run->statement) statement_release(run->statement);
  run->statement = NULL;
}

static enum run_state fail(struct run *run, int code, const char *text) {
  if (text)
    failure_set(&run->failure, code, text);
  else
    failure_of(&run->failure, run->connection, code);
  run_end(run);
  return RUN_FAILED;
}

/* ---- the next statement ---- */

/* The next text of the request. */
static enum run_state next_text(struct run *run) {
  enum sql_kind kind;
  uint32_t count;
  struct sql_value sql;
  if (run->parameters) return fail(run, SQLITE_RANGE, "more parameters than the statement has");
  if (!sql_next_record(&run->reader, &kind, &count)) {
    if (run->reader.bad) return fail(run, SQLITE_FORMAT, "the request is cut short");
    return RUN_DONE;
  }
  if (kind != SQL_STATEMENT || count == 0 || !sql_next_value(&run->reader, &sql) ||
      sql.type != SQLITE_TEXT)
    return fail(run, SQLITE_FORMAT, "the request is not made of statements");
  run->rest = sql.data;
  run->rest_size = sql.size;
  run->parameters = count - 1;
  return RUN_MORE;
}

static int bind_value(sqlite3_stmt *stmt, int i, const struct sql_value *v) {
  switch (v->type) {
  case SQLITE_INTEGER: return sqlite3_bind_int64(stmt, i, v->integer);
  case SQLITE_FLOAT: return sqlite3_bind_double(stmt, i, v->real);
  case SQLITE_TEXT:
    return sqlite3_bind_text64(stmt, i, v->data, v->size, SQLITE_STATIC, SQLITE_UTF8);
  case SQLITE_BLOB: return sqlite3_bind_blob64(stmt, i, v->data, v->size, SQLITE_STATIC);
  default: return sqlite3_bind_null(stmt, i);
  }
}

static enum run_state bind(struct run *run) {
  sqlite3_stmt *stmt = run->statement->stmt;
  int wanted = sqlite3_bind_parameter_count(stmt);
  if ((uint32_t)wanted > run->parameters)
    return fail(run, SQLITE_RANGE, "fewer parameters than the statement has");
  for (int i = 1; i <= wanted; i++) {
    struct sql_value value;
    if (!sql_next_value(&run->reader, &value))
      return fail(run, SQLITE_FORMAT, "the request is cut short");
    int code = bind_value(stmt, i, &value);
    if (code) return fail(run, code, NULL);
  }
  run->parameters -= (uint32_t)wanted;
  return RUN_MORE;
}

/* Prepare and bind the next statement. RUN_DONE: there is none. */
static enum run_state next_statement(struct run *run) {
  for (;;) {
    while (run->rest_size == 0) {
      enum run_state state = next_text(run);
      if (state != RUN_MORE) return state;
      if (run->rest_size == 0 && run->parameters) continue;
    }
    struct statement *s;
    int code = statement_get(run->connection, run->rest, run->rest_size, &s);
    if (code) return fail(run, code, NULL);
    size_t used = s->used < run->rest_size ? s->used : run->rest_size;
    run->rest += used;
    run->rest_size = used ? run->rest_size - used : 0; /* a NUL ends the text */
    if (!s->stmt) continue;
    run->statement = s;
    run->named = false;
    return bind(run);
  }
}

bool run_only_reads(struct run *run) {
  enum run_state state;
  bool reads = true;
  while (reads && (state = next_statement(run)) == RUN_MORE) {
    reads = sqlite3_stmt_readonly(run->statement->stmt);
    run_end(run);
  }
  return reads && state == RUN_DONE;
}

/* ---- rows ---- */

static struct sql_value column(sqlite3_stmt *stmt, int i) {
  struct sql_value v = {.type = sqlite3_column_type(stmt, i)};
  switch (v.type) {
  case SQLITE_INTEGER: v.integer = sqlite3_column_int64(stmt, i); break;
  case SQLITE_FLOAT: v.real = sqlite3_column_double(stmt, i); break;
  case SQLITE_TEXT: v.data = sqlite3_column_text(stmt, i); break;
  case SQLITE_BLOB: v.data = sqlite3_column_blob(stmt, i); break;
  default: break;
  }
  if (v.type == SQLITE_TEXT || v.type == SQLITE_BLOB) v.size = (size_t)sqlite3_column_bytes(stmt, i);
  return v;
}

static void put_columns(struct sql_buffer *to, sqlite3_stmt *stmt, int n) {
  sql_put_record(to, SQL_COLUMNS, (uint32_t)n);
  for (int i = 0; i < n; i++) sql_put_text(to, sqlite3_column_name(stmt, i));
}

static void put_row(struct run *run, struct sql_buffer *to) {
  sqlite3_stmt *stmt = run->statement->stmt;
  int n = sqlite3_column_count(stmt);
  if (run->op == SQL_TEXT) {
    for (int i = 0; i < n; i++) {
      const void *text = sqlite3_column_blob(stmt, i); /* the bytes of any type as text */
      if (i) sql_put(to, "|", 1);
      sql_put(to, text, (size_t)sqlite3_column_bytes(stmt, i));
    }
    sql_put(to, "\n", 1);
    return;
  }
  if (!run->named) put_columns(to, stmt, n);
  run->named = true;
  sql_put_record(to, SQL_ROW, (uint32_t)n);
  for (int i = 0; i < n; i++) {
    struct sql_value value = column(stmt, i);
    sql_put_value(to, &value);
  }
}

static void put_end(struct run *run, struct sql_buffer *to) {
  sqlite3 *db = run->connection->db;
  bool reads = sqlite3_stmt_readonly(run->statement->stmt);
  if (run->op == SQL_TEXT) return;
  sql_put_record(to, SQL_END, 2);
  sql_put_integer(to, reads ? 0 : sqlite3_changes64(db));
  sql_put_integer(to, reads ? 0 : sqlite3_last_insert_rowid(db));
}

enum run_state run_some(struct run *run, struct sql_buffer *to, size_t enough) {
  while (to->size <= enough) {
    enum run_state state = run->statement ? RUN_MORE : next_statement(run);
    if (state != RUN_MORE) return state;
    int code = sqlite3_step(run->statement->stmt);
    if (code == SQLITE_ROW) {
      put_row(run, to);
    } else if (code == SQLITE_DONE) {
      put_end(run, to);
      run_end(run);
    } else {
      return fail(run, code, NULL);
    }
    if (to->failed) return fail(run, SQLITE_NOMEM, "out of memory for the answer");
  }
  return RUN_MORE;
}
