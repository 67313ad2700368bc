/* SPDX-License-Identifier: Apache-2.0
 *
 * What travels between shmq-sqlite and its askers, and the two functions each side needs for it.
 *
 *   A request's op says what its payload is, and what the answer looks like:
 *
 *   SQL_TEXT   SQL, one statement or several with ; between them. The answer is text: a line for each row, its
 *              columns separated by |, as the sqlite3 shell prints them. So `shmq call db 'SELECT 1'` works.
 *   SQL_BATCH  records of the kind SQL_STATEMENT. The answer is records.
 *
 *   record     kind (1 byte), count (4 bytes), count values
 *   value      type (1 byte: SQLite's own SQLITE_INTEGER 1, _FLOAT 2, _TEXT 3, _BLOB 4, _NULL 5), then
 *              INTEGER and FLOAT 8 bytes; TEXT and BLOB a length (4 bytes) and so many bytes; NULL nothing
 *
 *   Numbers are in the machine's own byte order and not aligned: both sides run on one machine.
 *
 *   SQL_STATEMENT  the SQL (TEXT), then what ?1, ?2 and so on stand for
 *   SQL_COLUMNS    the names of the columns (TEXT), once before a statement's first row
 *   SQL_ROW        a row
 *   SQL_END        of a statement: rows changed, last rowid inserted (INTEGER)
 *
 *   All statements of a request are one transaction. It is committed, and on the disk, before it is answered. If
 *   one statement fails nothing of the request is done, and the answer is an error of the domain "sqlite" with
 *   SQLite's extended result code. A long answer is a stream of parts: each holds whole records; text is cut anywhere.
 *   value[0] of the last part is the number of rows changed, value[1] the last rowid inserted.
 */
#ifndef SHMQ_SQLITE_FORMAT_H
#define SHMQ_SQLITE_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sql_op { SQL_TEXT, SQL_BATCH };
enum sql_kind { SQL_STATEMENT = 'S', SQL_COLUMNS = 'C', SQL_ROW = 'R', SQL_END = 'E' };

struct sql_value {
  int type; /* SQLITE_INTEGER and so on */
  int64_t integer;
  double real;
  const void *data; /* TEXT and BLOB: into what is read, no NUL behind it */
  size_t size;
};

/* Writing: bytes that grow. failed: out of memory, and nothing was added since. */
struct sql_buffer {
  unsigned char *data;
  size_t size, room;
  bool failed;
};
void sql_put(struct sql_buffer *buffer, const void *data, size_t size);
void sql_put_record(struct sql_buffer *buffer, enum sql_kind kind, uint32_t count);
void sql_put_value(struct sql_buffer *buffer, const struct sql_value *value);
void sql_buffer_free(struct sql_buffer *buffer);

/* The values that requests are mostly made of. */
void sql_put_integer(struct sql_buffer *buffer, int64_t integer);
void sql_put_text(struct sql_buffer *buffer, const char *text);

/* Reading: any bytes may be read, nothing outside them is touched. Both return false at the end and
 * where the bytes make no sense; bad tells one from the other. */
struct sql_reader {
  const unsigned char *at, *end;
  bool bad;
};
bool sql_next_record(struct sql_reader *reader, enum sql_kind *kind, uint32_t *count);
bool sql_next_value(struct sql_reader *reader, struct sql_value *value);

#endif
