/* SPDX-License-Identifier: Apache-2.0 */
#include "base/output.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <unistd.h>

#include "base/stop.h"

/* Step over `done` bytes. Returns how many of the vectors are used up. */
static int advance(struct iovec *iov, int count, size_t done) {
  int used = 0;
  for (; used < count && done >= iov[used].iov_len; used++) {
    done -= iov[used].iov_len;
  }
  if (used < count) {
    iov[used].iov_base = (char *)iov[used].iov_base + done;
    iov[used].iov_len -= done;
  }
  return used;
}

/* After a write that failed with `error`: may it be tried again? */
static int may_retry(int error) {
  if (error == EAGAIN) { /* somebody gave us a non-blocking descriptor */
    struct pollfd output = {.fd = STDOUT_FILENO, .events = POLLOUT};
    poll(&output, 1, -1);
  } else if (error != EINTR) {
    return 0;
  }
  return !stop_requested();
}

size_t output_write(struct iovec *iov, int count, int *error) {
  size_t total = 0;
  for (int at = 0; (at += advance(iov + at, count - at, 0)) < count;) {
    int part = count - at < IOV_MAX ? count - at : IOV_MAX;
    ssize_t written = writev(STDOUT_FILENO, iov + at, part);
    if (written >= 0) {
      total += (size_t)written;
      at += advance(iov + at, count - at, (size_t)written);
    } else if (!may_retry(errno)) {
      *error = errno == EAGAIN ? EINTR : errno;
      return total;
    }
  }
  *error = 0;
  return total;
}
