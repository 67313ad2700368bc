/* SPDX-License-Identifier: Apache-2.0
 *
 * Cutting a stream into messages at a delimiter, many at a time and without copying each. Without a
 * delimiter the whole stream is one message.
 */
#ifndef TOOLS_BASE_RECORDS_H
#define TOOLS_BASE_RECORDS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/flags.h"

struct records {
  int fd;
  struct bytes delimiter; /* size 0: none */
  uint64_t limit;         /* longest record accepted, so that memory stays bounded */
  char *buffer;
  size_t size;    /* allocated */
  size_t start;   /* first byte not handed out */
  size_t scanned; /* no delimiter begins between start and here */
  size_t end;     /* end of what was read */
  bool finished;  /* the stream has ended */
  bool stated;    /* without a delimiter: the one record was handed out */
};

void records_init(struct records *records, int fd, struct bytes delimiter, uint64_t limit);
void records_free(struct records *records);

/* The next records, at most `most`, waiting for at least one. They stay valid until the next call.
 * Returns how many; 0 at the end; -EMSGSIZE for a record longer than the limit; another negative
 * errno when reading failed (-EINTR: the command was told to stop). */
int records_next(struct records *records, struct iovec *iov, int most);

#endif
