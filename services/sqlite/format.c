/* SPDX-License-Identifier: Apache-2.0
 *
 * Records and values, written and read.
 */
#include "format.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

static bool make_room(struct sql_buffer *b, size_t more) {
  if (b->failed) return false;
  if (more <= b->room - b->size) return true;
  size_t room = b->room ? b->room : 256;
  while (room - b->size < more) room *= 2;
  unsigned char *data = realloc(b->data, room);
  b->failed = !data;
  if (!data) return false;
  b->data = data;
  b->room = room;
  return true;
}

void sql_put(struct sql_buffer *b, const void *data, size_t size) {
  if (size == 0 || !make_room(b, size)) return;
  memcpy(b->data + b->size, data, size);
  b->size += size;
}

static void put_number(struct sql_buffer *b, int type, const void *number, size_t size) {
  unsigned char byte = (unsigned char)type;
  sql_put(b, &byte, 1);
  sql_put(b, number, size);
}

void sql_put_record(struct sql_buffer *b, enum sql_kind kind, uint32_t count) {
  put_number(b, (int)kind, &count, sizeof count);
}

void sql_put_value(struct sql_buffer *b, const struct sql_value *v) {
  uint32_t size = (uint32_t)v->size;
  switch (v->type) {
  case SQLITE_INTEGER: put_number(b, v->type, &v->integer, sizeof v->integer); break;
  case SQLITE_FLOAT: put_number(b, v->type, &v->real, sizeof v->real); break;
  case SQLITE_NULL: put_number(b, v->type, NULL, 0); break;
  default:
    put_number(b, v->type, &size, sizeof size);
    sql_put(b, v->data, size);
  }
}

void sql_put_integer(struct sql_buffer *b, int64_t integer) {
  sql_put_value(b, &(struct sql_value){.type = SQLITE_INTEGER, .integer = integer});
}

void sql_put_text(struct sql_buffer *b, const char *text) {
  sql_put_value(b, &(struct sql_value){.type = SQLITE_TEXT, .data = text, .size = strlen(text)});
}

void sql_buffer_free(struct sql_buffer *b) {
  free(b->data);
  *b = (struct sql_buffer){0};
}

/* ---- reading ---- */

static bool take(struct sql_reader *r, void *to, size_t size) {
  if (r->bad || size > (size_t)(r->end - r->at)) {
    r->bad = true;
    return false;
  }
  if (size) memcpy(to, r->at, size);
  r->at += size;
  return true;
}

bool sql_next_record(struct sql_reader *r, enum sql_kind *kind, uint32_t *count) {
  unsigned char byte;
  if (r->bad || r->at == r->end) return false;
  if (!take(r, &byte, 1) || !take(r, count, sizeof *count)) return false;
  *kind = (enum sql_kind)byte;
  return true;
}

static bool take_bytes(struct sql_reader *r, struct sql_value *v) {
  uint32_t size;
  if (!take(r, &size, sizeof size)) return false;
  v->data = r->at;
  v->size = size;
  if (size > (size_t)(r->end - r->at)) {
    r->bad = true;
    return false;
  }
  r->at += size;
  return true;
}

bool sql_next_value(struct sql_reader *r, struct sql_value *v) {
  unsigned char type;
  *v = (struct sql_value){.type = SQLITE_NULL};
  if (!take(r, &type, 1)) return false;
  v->type = type;
  switch (type) {
  case SQLITE_INTEGER: return take(r, &v->integer, sizeof v->integer);
  case SQLITE_FLOAT: return take(r, &v->real, sizeof v->real);
  case SQLITE_TEXT: case SQLITE_BLOB: return take_bytes(r, v);
  case SQLITE_NULL: return true;
  default: r->bad = true; return false;
  }
}
