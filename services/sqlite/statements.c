/* SPDX-License-Identifier: Apache-2.0
 *
 * Prepared statements, kept by their text; the one not used for longest makes way.
 */
#include <stdlib.h>
#include <string.h>

#include "owner.h"

static void forget(struct statement *s) {
  sqlite3_finalize(s->stmt);
  free(s->sql);
  *s = (struct statement){0};
}

static int prepare(struct connection *c, struct statement *s, const char *sql, size_t size) {
  const char *tail;
  s->sql = malloc(size + 1);
  if (!s->sql) return SQLITE_NOMEM;
  memcpy(s->sql, sql, size);
  s->sql[size] = 0;
  int code = sqlite3_prepare_v3(c->db, s->sql, (int)size + 1, SQLITE_PREPARE_PERSISTENT, &s->stmt,
                                &tail);
  if (code) {
    forget(s);
    return code;
  }
  s->own = c->own;
  s->size = size;
  s->used = (size_t)(tail - s->sql);
  return SQLITE_OK;
}

int statement_get(struct connection *c, const char *sql, size_t size, struct statement **out) {
  struct statement *oldest = c->statements;
  if (size > INT32_MAX - 1) return SQLITE_TOOBIG;
  for (struct statement *s = c->statements; s < c->statements + STATEMENTS_MAX; s++) {
    if (s->touched < oldest->touched) oldest = s;
    if (!s->sql || s->own != c->own || s->size != size || memcmp(s->sql, sql, size) != 0) continue;
    s->touched = ++c->clock;
    *out = s;
    return SQLITE_OK;
  }
  forget(oldest);
  int code = prepare(c, oldest, sql, size);
  if (code) return code;
  oldest->touched = ++c->clock;
  *out = oldest;
  return SQLITE_OK;
}

void statement_release(struct statement *s) {
  sqlite3_reset(s->stmt);
  sqlite3_clear_bindings(s->stmt);
}

void statements_free(struct connection *c) {
  for (int i = 0; i < STATEMENTS_MAX; i++) forget(&c->statements[i]);
}
