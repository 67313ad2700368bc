/* SPDX-License-Identifier: Apache-2.0 */
#include "say.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

static enum say_level most = SAY_NOTICE;
static bool prefixed;

void say_set_level(enum say_level level) { most = level; }
void say_open(void) { prefixed = getenv("JOURNAL_STREAM") != NULL; }

/* A line is one write, so lines of several processes do not mix. Control characters in names that
 * clients chose must not reach a terminal. */
void say(enum say_level level, const char *format, ...) {
  char line[LINE_BYTES];
  int n = 0;
  if (level > most) return;
  if (prefixed)
    n = snprintf(line, sizeof line, "<%d>", (int)level);
  else
    n = snprintf(line, sizeof line, "shmqd: ");
  size_t begin = (size_t)n;

  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line + begin, sizeof line - begin - 1, format, arguments);
  va_end(arguments);
  size_t end = begin + strlen(line + begin);
  for (size_t i = begin; i < end; i++)
    if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) line[i] = '?';
  line[end] = '\n';
  if (write(STDERR_FILENO, line, end + 1) < 0) return;
}
