/* SPDX-License-Identifier: Apache-2.0 */
#include "base/records.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/stop.h"

enum { CHUNK = 1 << 18 };

void records_init(struct records *records, int fd, struct bytes delimiter, uint64_t limit) {
  *records = (struct records){.fd = fd, .delimiter = delimiter, .limit = limit};
}

void records_free(struct records *records) {
  free(records->buffer);
  records->buffer = NULL;
}

/* Make room for another chunk behind `end`: by moving what is left to the front, or by growing. */
static int make_room(struct records *r) {
  if (r->start > 0) {
    memmove(r->buffer, r->buffer + r->start, r->end - r->start);
    r->end -= r->start;
    r->scanned -= r->start;
    r->start = 0;
  }
  if (r->size - r->end >= CHUNK) {
    return 0;
  }
  size_t size = 2 * (r->size == 0 ? (size_t)CHUNK : r->size);
  char *buffer = realloc(r->buffer, size);
  if (buffer == NULL) {
    return -ENOMEM;
  }
  r->buffer = buffer;
  r->size = size;
  return 0;
}

static int read_more(struct records *r) {
  int rc = make_room(r);
  while (rc == 0) {
    ssize_t count = read(r->fd, r->buffer + r->end, r->size - r->end);
    if (count >= 0) {
      r->end += (size_t)count;
      r->finished = count == 0;
      return 0;
    }
    if (errno == EAGAIN) { /* somebody gave us a non-blocking descriptor */
      struct pollfd input = {.fd = r->fd, .events = POLLIN};
      poll(&input, 1, -1);
    } else if (errno != EINTR) {
      return -errno;
    }
    rc = stop_requested() ? -EINTR : 0;
  }
  return rc;
}

static char *find_delimiter(const struct records *r) {
  if (r->delimiter.size == 1) {
    return memchr(r->buffer + r->scanned, r->delimiter.data[0], r->end - r->scanned);
  }
  return memmem(r->buffer + r->scanned, r->end - r->scanned, r->delimiter.data, r->delimiter.size);
}

/* The records that end with a delimiter, as far as they have been read. */
static int whole_records(struct records *r, struct iovec *iov, int most) {
  int count = 0;
  if (r->delimiter.size == 0 || r->buffer == NULL) {
    return 0;
  }
  while (count < most) {
    char *found = find_delimiter(r);
    if (found == NULL) {
      /* The first bytes of a delimiter may stand at the end. */
      size_t keep = r->delimiter.size - 1;
      r->scanned = r->end - r->start > keep ? r->end - keep : r->start;
      break;
    }
    iov[count++] = (struct iovec){r->buffer + r->start, (size_t)(found - r->buffer) - r->start};
    r->start = r->scanned = (size_t)(found - r->buffer) + r->delimiter.size;
  }
  return count;
}

/* What stands behind the last delimiter; without delimiters, everything, be it nothing. */
static int last_record(struct records *r, struct iovec *iov) {
  bool wanted = r->delimiter.size > 0 ? r->end > r->start : !r->stated;
  if (!wanted) {
    return 0;
  }
  iov[0] = (struct iovec){r->buffer + r->start, r->end - r->start};
  r->start = r->scanned = r->end;
  r->stated = true;
  return 1;
}

int records_next(struct records *r, struct iovec *iov, int most) {
  for (;;) {
    int count = whole_records(r, iov, most);
    if (count > 0) {
      return count;
    }
    if (r->finished) {
      return last_record(r, iov);
    }
    if (r->end - r->start > r->limit + r->delimiter.size) {
      return -EMSGSIZE;
    }
    int rc = read_more(r);
    if (rc < 0) {
      return rc;
    }
  }
}
