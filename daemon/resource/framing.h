/* SPDX-License-Identifier: Apache-2.0
 *
 * Where one message ends in a stream of bytes. Scanning goes on where it stopped when there were too few.
 */
#ifndef SHMQD_RESOURCE_FRAMING_H
#define SHMQD_RESOURCE_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum framing {
  FRAMING_LINE,   /* up to and with a newline */
  FRAMING_LENGTH, /* 4 bytes, most significant first, and so many more */
  FRAMING_RESP    /* of Redis, versions 2 and 3 */
};

struct framer {
  enum framing framing;
  size_t most;      /* bytes of a frame */
  size_t scanned;   /* of the present frame */
  uint64_t missing; /* RESP: values that are still to come in it, when `scanned` */
};

/* How many of these bytes, which begin with a frame, are the frame? 0: more are needed; then `data` is to begin with the
 * same bytes again. -EBADMSG; -EMSGSIZE: it is longer than the most. */
ssize_t framer_scan(struct framer *framer, const char *data, size_t bytes);

/* Are these bytes exactly n frames? 0, or -EBADMSG or -EMSGSIZE. */
int framer_check(enum framing framing, size_t most, const char *data, size_t bytes, uint64_t n);

/* The first word of a RESP command, or its length 0. */
size_t resp_command(const char *data, size_t bytes, const char **word);

#endif
