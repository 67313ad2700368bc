/* SPDX-License-Identifier: Apache-2.0 */
#include "base/json.h"

#include <inttypes.h>
#include <string.h>

/* Length of the well-formed UTF-8 sequence at data (RFC 3629), 0: none. */
static size_t utf8_length(const unsigned char *data, size_t size) {
  static const struct {
    unsigned char mask, lead, length;
    uint32_t least;
  } forms[] = {
      {0x80, 0x00, 1, 0}, {0xe0, 0xc0, 2, 0x80}, {0xf0, 0xe0, 3, 0x800}, {0xf8, 0xf0, 4, 0x10000}};
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if ((data[0] & forms[i].mask) != forms[i].lead || forms[i].length > size) {
      continue;
    }
    uint32_t point = data[0] & (unsigned char)~forms[i].mask;
    for (size_t k = 1; k < forms[i].length; k++) {
      if ((data[k] & 0xc0) != 0x80) {
        return 0;
      }
      point = point << 6 | (data[k] & 0x3f);
    }
    bool surrogate = point >= 0xd800 && point <= 0xdfff;
    return point < forms[i].least || point > 0x10ffff || surrogate ? 0 : forms[i].length;
  }
  return 0;
}

static bool is_utf8(const unsigned char *data, size_t size) {
  for (size_t at = 0; at < size;) {
    size_t length = utf8_length(data + at, size - at);
    if (length == 0) {
      return false;
    }
    at += length;
  }
  return true;
}

static void write_string(FILE *out, const unsigned char *data, size_t size) {
  fputc('"', out);
  for (size_t i = 0; i < size; i++) {
    if (data[i] == '"' || data[i] == '\\') {
      fputc('\\', out);
      fputc(data[i], out);
    } else if (data[i] == '\n') {
      fputs("\\n", out);
    } else if (data[i] < 0x20 || data[i] == 0x7f) {
      fprintf(out, "\\u%04x", data[i]);
    } else {
      fputc(data[i], out);
    }
  }
  fputc('"', out);
}

static void write_base64(FILE *out, const unsigned char *data, size_t size) {
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  fputc('"', out);
  for (size_t i = 0; i < size; i += 3) {
    size_t left = size - i;
    uint32_t group = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                     (left > 2 ? data[i + 2] : 0);
    fputc(alphabet[group >> 18], out);
    fputc(alphabet[group >> 12 & 63], out);
    fputc(left > 1 ? alphabet[group >> 6 & 63] : '=', out);
    fputc(left > 2 ? alphabet[group & 63] : '=', out);
  }
  fputc('"', out);
}

static void start(struct json *json, const char *key, const char *suffix) {
  if (json->comma) {
    fputc(',', json->out);
  }
  json->comma = true;
  if (key != NULL) {
    fprintf(json->out, "\"%s%s\":", key, suffix);
  }
}

void json_open(struct json *json, const char *key, char bracket) {
  start(json, key, "");
  fputc(bracket, json->out);
  json->comma = false;
}

void json_close(struct json *json, char bracket) {
  fputc(bracket, json->out);
  json->comma = true;
}

void json_end(struct json *json) {
  fputc('\n', json->out);
  json->comma = false;
}

void json_text(struct json *json, const char *key, const char *text) {
  if (text != NULL) {
    json_bytes(json, key, text, strlen(text));
    return;
  }
  start(json, key, "");
  fputs("null", json->out);
}

void json_bytes(struct json *json, const char *key, const void *data, size_t size) {
  if (is_utf8(data, size)) {
    start(json, key, "");
    write_string(json->out, data, size);
  } else {
    start(json, key, "_base64");
    write_base64(json->out, data, size);
  }
}

void json_number(struct json *json, const char *key, uint64_t number) {
  start(json, key, "");
  fprintf(json->out, "%" PRIu64, number);
}

void json_integer(struct json *json, const char *key, int64_t number) {
  start(json, key, "");
  fprintf(json->out, "%" PRId64, number);
}

void json_bool(struct json *json, const char *key, bool value) {
  start(json, key, "");
  fputs(value ? "true" : "false", json->out);
}
