/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_CHECK_H
#define FUZZ_CHECK_H

#include <stdbool.h>
#include <stddef.h>

struct shmq_segment;

/* Abort, saying what was broken. */
void check(bool holds, const char *what);
/* A result of the library: not negative, or one of its documented errors. */
void check_result(const char *call, long rc);
/* What a message says its payload is lies in the segment, and can be read (and written). */
void check_payload(struct shmq_segment *segment, void *data, size_t size, bool write);

#endif
