/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts to values. Each function returns NULL, or what is wrong with the text as the end of a
 * sentence ("is not a whole number"); the value is stored only in the first case. The returned
 * text is good until the next call.
 */
#ifndef TOOLS_BASE_PARSE_H
#define TOOLS_BASE_PARSE_H

#include <stddef.h>
#include <stdint.h>

#include <shmq/shmq.h>

#include "base/flags.h"

const char *parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *value);
const char *parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *value);
const char *parse_mode(const char *text, uint64_t *mode);
const char *parse_duration(const char *text, int64_t min_ns, int64_t *ns);
const char *parse_choice(const char *text, const char *const *choices, uint64_t *index);

/* Escapes \n \t \r \0 \\ and \xHH. The bytes stay allocated for the life of the process. */
const char *parse_bytes(const char *text, struct bytes *bytes);

/* Where a queue is: SEGMENT or SEGMENT/QUEUE. */
struct address {
  char segment[SHMQ_NAME_MAX + 1];
  const char *queue; /* points into the text parsed; NULL: the first queue */
};
const char *parse_address(const char *text, struct address *address);

#endif
