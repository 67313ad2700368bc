/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/framing.h"

#include <errno.h>
#include <string.h>

static ssize_t scan_line(struct framer *f, const char *data, size_t bytes) {
  const char *end = memchr(data + f->scanned, '\n', bytes - f->scanned);
  f->scanned = bytes;
  return end ? end + 1 - data : 0;
}

static ssize_t scan_length(struct framer *f, const char *data, size_t bytes) {
  const unsigned char *b = (const unsigned char *)data;
  if (bytes < 4) return 0;
  size_t n = 4 + ((size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3]);
  if (n > f->most) return -EMSGSIZE;
  return n <= bytes ? (ssize_t)n : 0;
}

/* ---- RESP ---- */

/* The number behind the type; -1 is a null. Returns false for what is none. */
static bool read_count(const char *from, const char *to, int64_t *value) {
  int64_t n = 0;
  *value = -1;
  if (to - from == 2 && memcmp(from, "-1", 2) == 0) return true;
  if (from == to || to - from > 10) return false;
  for (; from < to; from++) {
    if (*from < '0' || *from > '9') return false;
    n = 10 * n + *from - '0';
  }
  *value = n;
  return true;
}

/* One line of it, at `scanned`: what it announces is skipped (bulk) or still missing (aggregates). Returns 1,
 * 0 when there are too few bytes, or -EBADMSG. */
static int scan_value(struct framer *f, const char *data, size_t bytes) {
  const char *at = data + f->scanned, *end = memchr(at, '\n', bytes - f->scanned);
  int64_t count;
  if (!end) return 0;
  if (end - at < 2 || end[-1] != '\r') return -EBADMSG;
  size_t line = (size_t)(end + 1 - at);
  switch (*at) {
  case '+': case '-': case ':': case ',': case '#': case '(': case '_': break;
  case '$': case '=': case '!':
    if (!read_count(at + 1, end - 1, &count)) return -EBADMSG;
    if (count < 0) break;
    if ((uint64_t)count + 2 > bytes - f->scanned - line)
      return (uint64_t)count > f->most ? -EMSGSIZE : 0;
    line += (size_t)count + 2;
    if (memcmp(at + line - 2, "\r\n", 2) != 0) return -EBADMSG;
    break;
  case '*': case '~': case '>': case '%': case '|':
    if (!read_count(at + 1, end - 1, &count)) return -EBADMSG;
    if (count > 0) f->missing += (uint64_t)count * (*at == '%' || *at == '|' ? 2 : 1);
    if (*at == '|') f->missing++; /* attributes stand before a value and are none */
    break;
  default: return -EBADMSG;
  }
  f->scanned += line;
  f->missing--;
  return 1;
}

static ssize_t scan_resp(struct framer *f, const char *data, size_t bytes) {
  if (f->scanned == 0) f->missing = 1;
  while (f->missing && f->scanned < bytes) {
    int rc = scan_value(f, data, bytes);
    if (rc <= 0) return rc;
  }
  return f->missing ? 0 : (ssize_t)f->scanned;
}

/* ---- any ---- */

ssize_t framer_scan(struct framer *f, const char *data, size_t bytes) {
  ssize_t n = 0;
  switch (f->framing) {
  case FRAMING_LINE: n = scan_line(f, data, bytes); break;
  case FRAMING_LENGTH: n = scan_length(f, data, bytes); break;
  case FRAMING_RESP: n = scan_resp(f, data, bytes); break;
  }
  if (n == 0 && bytes >= f->most) return -EMSGSIZE;
  if (n > 0) f->scanned = 0;
  return n > 0 && (size_t)n > f->most ? -EMSGSIZE : n;
}

int framer_check(enum framing framing, size_t most, const char *data, size_t bytes, uint64_t n) {
  struct framer f = {.framing = framing, .most = most};
  for (; n; n--) {
    ssize_t frame = bytes ? framer_scan(&f, data, bytes) : 0;
    if (frame <= 0) return frame < 0 ? (int)frame : -EBADMSG;
    data += frame;
    bytes -= (size_t)frame;
  }
  return bytes ? -EBADMSG : 0;
}

size_t resp_command(const char *data, size_t bytes, const char **word) {
  const char *end = data + bytes, *line = memchr(data, '\n', bytes);
  int64_t count;
  if (bytes == 0 || *data != '*' || !line || ++line == end || *line != '$') return 0;
  const char *stop = memchr(line, '\n', (size_t)(end - line));
  if (!stop || !read_count(line + 1, stop - 1, &count) || count < 0 || count > end - stop - 1) return 0;
  *word = stop + 1;
  return (size_t)count;
}
