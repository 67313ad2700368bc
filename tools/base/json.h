/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing JSON (RFC 8259). A key is NULL inside an array. Payloads that are not UTF-8 are written
 * in base64 under KEY_base64, so that every output can be parsed and no byte is lost.
 */
#ifndef TOOLS_BASE_JSON_H
#define TOOLS_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json {
  FILE *out;
  bool comma; /* something stands before in this object or array */
};

void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_end(struct json *json); /* the newline that ends a document */
void json_text(struct json *json, const char *key, const char *text); /* NULL: null */
void json_bytes(struct json *json, const char *key, const void *data, size_t size);
void json_number(struct json *json, const char *key, uint64_t number);
void json_integer(struct json *json, const char *key, int64_t number);
void json_bool(struct json *json, const char *key, bool value);

#endif
