/* SPDX-License-Identifier: Apache-2.0 */
#include "check.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shmq/shmq.h"

void check(bool holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "broken promise: %s\n", what);
  abort();
}

void check_result(const char *call, long rc) {
  if (rc >= 0 || strcmp(shmq_strerror((int)rc), "unknown error") != 0) return;
  fprintf(stderr, "%s returned %ld (%s), which is none of the library's errors\n", call, rc,
          strerror((int)-rc));
  abort();
}

static volatile unsigned char sink;

void check_payload(struct shmq_segment *segment, void *data, size_t size, bool write) {
  size_t bytes;
  unsigned char *memory = shmq_segment_memory(segment, &bytes), *at = data;
  check(at >= memory && at <= memory + bytes && size <= (size_t)(memory + bytes - at),
        "a message outside the segment");
  unsigned char sum = 0;
  for (size_t i = 0; i < size; i++) sum = (unsigned char)(sum + at[i]);
  sink = sum;
  if (write) memset(data, sum, size);
}
