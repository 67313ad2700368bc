/* SPDX-License-Identifier: Apache-2.0 */
#include "base/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libsmartcols.h>

#include "base/report.h"

struct table {
  struct libscols_table *scols;
  struct libscols_line *line;
  size_t next; /* column of the next cell */
};

static void *needed(void *memory) {
  if (memory == NULL) {
    complain("out of memory");
    exit(STATUS_FAILED);
  }
  return memory;
}

struct table *table_new(const struct column *columns, size_t count) {
  struct table *table = needed(calloc(1, sizeof *table));
  table->scols = needed(scols_new_table());
  for (size_t i = 0; i < count; i++) {
    int flags = (columns[i].right ? SCOLS_FL_RIGHT : 0) | (columns[i].cut ? SCOLS_FL_TRUNC : 0);
    needed(scols_table_new_column(table->scols, columns[i].title, 0, flags));
  }
  return table;
}

void table_row(struct table *table) {
  table->line = needed(scols_table_new_line(table->scols, NULL));
  table->next = 0;
}

void table_cell(struct table *table, const char *format, ...) {
  va_list values;
  va_start(values, format);
  char *text = NULL;
  if (vasprintf(&text, format, values) < 0) {
    text = NULL;
  }
  va_end(values);
  scols_line_refer_data(table->line, table->next++, needed(text));
}

char *table_text(struct table *table) {
  char *text = NULL;
  if (scols_print_table_to_string(table->scols, &text) != 0) {
    needed(NULL);
  }
  return text;
}

void table_print(struct table *table) {
  if (scols_table_get_nlines(table->scols) > 0) {
    char *text = table_text(table);
    fputs(text, stdout);
    size_t length = strlen(text);
    if (length > 0 && text[length - 1] != '\n') {
      fputc('\n', stdout);
    }
    free(text);
  }
  table_free(table);
}

void table_free(struct table *table) {
  scols_unref_table(table->scols);
  free(table);
}

const char *human_bytes(unsigned long long bytes, char text[16]) {
  static const char units[] = "KMGTPE";
  if (bytes < 1024) {
    snprintf(text, 16, "%llu", bytes);
    return text;
  }
  double scaled = (double)bytes / 1024;
  size_t unit = 0;
  for (; scaled >= 1000 && unit + 1 < sizeof units - 1; unit++) {
    scaled /= 1024;
  }
  snprintf(text, 16, scaled < 10 ? "%.1f%c" : "%.0f%c", scaled, units[unit]);
  return text;
}

const char *human_duration(long long ns, char text[16]) {
  static const struct {
    double ns;
    const char *name;
  } units[] = {{86400e9, "d"}, {3600e9, "h"}, {60e9, "m"}, {1e9, "s"}, {1e6, "ms"}, {1e3, "us"}};
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    double scaled = (double)ns / units[i].ns;
    if (scaled >= 1) {
      snprintf(text, 16, scaled < 10 ? "%.1f%s" : "%.0f%s", scaled, units[i].name);
      return text;
    }
  }
  snprintf(text, 16, "%lldns", ns);
  return text;
}
