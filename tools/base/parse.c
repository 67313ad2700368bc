/* SPDX-License-Identifier: Apache-2.0 */
#include "base/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char fault_text[160];

static const char *out_of_range(uint64_t min, uint64_t max) {
  snprintf(fault_text, sizeof fault_text, "is out of range: %" PRIu64 " to %" PRIu64, min, max);
  return fault_text;
}

/* Digits only: strtoull alone would take signs, blanks and 0x. Returns the end, or NULL. */
static const char *digits(const char *text, uint64_t *value) {
  uint64_t sum = 0;
  const char *at = text;
  for (; *at >= '0' && *at <= '9'; at++) {
    uint64_t digit = (uint64_t)(*at - '0');
    sum = sum > (UINT64_MAX - digit) / 10 ? UINT64_MAX : sum * 10 + digit;
  }
  *value = sum;
  return at == text ? NULL : at;
}

static const char *within(uint64_t number, uint64_t min, uint64_t max, uint64_t *value) {
  if (number < min || number > max) {
    return out_of_range(min, max);
  }
  *value = number;
  return NULL;
}

const char *parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value) {
  uint64_t number;
  const char *end = digits(text, &number);
  if (end == NULL || *end != '\0') {
    return "is not a whole number";
  }
  return within(number, min, max, value);
}

const char *parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *value) {
  static const struct {
    const char *suffix;
    unsigned shift;
  } units[] = {{"", 0},  {"K", 10},   {"M", 20},   {"G", 30},  {"k", 10},
               {"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
  uint64_t number;
  const char *end = digits(text, &number);
  for (size_t i = 0; end != NULL && i < sizeof units / sizeof *units; i++) {
    if (strcmp(end, units[i].suffix) == 0) {
      bool overflows = number > UINT64_MAX >> units[i].shift;
      return within(overflows ? UINT64_MAX : number << units[i].shift, min, max, value);
    }
  }
  return "is not a size: bytes, or with K, M or G";
}

const char *parse_mode(const char *text, uint64_t *mode) {
  uint64_t bits = 0;
  const char *at = text;
  for (; *at >= '0' && *at <= '7' && bits <= 0777; at++) {
    bits = bits << 3 | (uint64_t)(*at - '0');
  }
  if (at == text || *at != '\0' || bits > 0777) {
    return "is not an octal mode such as 0660";
  }
  if ((bits & 0600) != 0600) {
    return "would shut out its own owner: the mode must include 0600";
  }
  *mode = bits;
  return NULL;
}

static long double unit_ns(const char *unit) {
  static const struct {
    const char *name;
    long double ns;
  } units[] = {{"", 1e9L},   {"ns", 1},      {"us", 1e3L},   {"ms", 1e6L},   {"s", 1e9L},
               {"m", 60e9L}, {"min", 60e9L}, {"h", 3600e9L}, {"d", 86400e9L}};
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    if (strcmp(unit, units[i].name) == 0) {
      return units[i].ns;
    }
  }
  return -1;
}

/* A decimal number without sign or exponent, so that nothing depends on the locale. */
static const char *decimal(const char *text, long double *value) {
  long double sum = 0;
  long double scale = 1;
  size_t count = 0;
  bool fraction = false;
  for (; (*text >= '0' && *text <= '9') || (*text == '.' && !fraction); text++) {
    if (*text == '.') {
      fraction = true;
      continue;
    }
    count++;
    sum = sum * 10 + (*text - '0');
    scale *= fraction ? 10 : 1;
  }
  *value = sum / scale;
  return count == 0 ? NULL : text;
}

const char *parse_duration(const char *text, int64_t min_ns, int64_t *ns) {
  long double number;
  const char *unit = decimal(text, &number);
  if (unit == NULL || unit_ns(unit) < 0) {
    return "is not a duration such as 10ms, 2s, 1.5h or plain seconds";
  }
  long double product = number * unit_ns(unit);
  if (!(product <= 1e18L)) { /* also when it is not a number */
    return "is longer than 30 years";
  }
  if ((int64_t)product < min_ns) {
    return min_ns == 1 ? "is not longer than nothing" : "is too short";
  }
  *ns = (int64_t)product;
  return NULL;
}

const char *parse_choice(const char *text, const char *const *choices, uint64_t *index) {
  for (size_t i = 0; choices[i] != NULL; i++) {
    if (strcmp(text, choices[i]) == 0) {
      *index = i;
      return NULL;
    }
  }
  int at = snprintf(fault_text, sizeof fault_text, "is none of");
  for (size_t i = 0; choices[i] != NULL && at < (int)sizeof fault_text; i++) {
    at += snprintf(fault_text + at, sizeof fault_text - (size_t)at, " %s", choices[i]);
  }
  return fault_text;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One escape, `at` standing behind the backslash. Returns the byte and moves `at`, or -1. */
static int escaped(const char **at) {
  switch (*(*at)++) {
  case 'n': return '\n';
  case 't': return '\t';
  case 'r': return '\r';
  case '0': return '\0';
  case '\\': return '\\';
  case 'x': break;
  default: return -1;
  }
  int high = hex_digit((*at)[0]);
  int low = high < 0 ? -1 : hex_digit((*at)[1]);
  *at += 2;
  return low < 0 ? -1 : high << 4 | low;
}

const char *parse_bytes(const char *text, struct bytes *bytes) {
  char *data = malloc(strlen(text) + 1);
  if (data == NULL) {
    return "is too long for the memory there is";
  }
  size_t size = 0;
  while (*text != '\0') {
    int byte = (unsigned char)*text++;
    if (byte == '\\' && (byte = escaped(&text)) < 0) {
      free(data);
      return "has an escape that is none of \\n \\t \\r \\0 \\\\ \\xHH";
    }
    data[size++] = (char)byte;
  }
  *bytes = (struct bytes){data, size};
  return NULL;
}

static const char *check_part(const char *part, size_t size, size_t most) {
  if (size == 0) {
    return "has an empty name";
  }
  if (size > most) {
    snprintf(fault_text, sizeof fault_text, "has a name of %zu bytes; at most %zu are possible",
             size, most);
    return fault_text;
  }
  if (*part == '.') {
    return "has a name that starts with a dot";
  }
  return NULL;
}

const char *parse_address(const char *text, struct address *address) {
  size_t size = strcspn(text, "/");
  const char *fault = check_part(text, size, SHMQ_NAME_MAX);
  const char *queue = text[size] == '/' ? text + size + 1 : NULL;
  if (fault == NULL && queue != NULL) {
    fault = strchr(queue, '/') != NULL ? "has more than one slash: SEGMENT or SEGMENT/QUEUE"
                                       : check_part(queue, strlen(queue), SHMQ_QUEUE_NAME_MAX);
  }
  if (fault != NULL) {
    return fault;
  }
  memcpy(address->segment, text, size);
  address->segment[size] = '\0';
  address->queue = queue;
  return NULL;
}
