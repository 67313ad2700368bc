/* SPDX-License-Identifier: Apache-2.0
 *
 * Tables for people, laid out by libsmartcols: cut to the terminal's width, control characters made
 * harmless. Running out of memory ends the program: nothing is at stake while printing.
 */
#ifndef TOOLS_BASE_TABLE_H
#define TOOLS_BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>

struct column {
  const char *title;
  bool right; /* aligned to the right, for numbers */
  bool cut;   /* may be truncated when the terminal is narrow */
};

struct table;

struct table *table_new(const struct column *columns, size_t count);
void table_row(struct table *table);
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
char *table_text(struct table *table); /* to be freed */
void table_print(struct table *table); /* to stdout; frees the table, prints nothing without rows */
void table_free(struct table *table);

/* The texts a person reads for numbers of bytes and for nanoseconds. */
const char *human_bytes(unsigned long long bytes, char text[16]);
const char *human_duration(long long ns, char text[16]);

#endif
