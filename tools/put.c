/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq put: one message from the command line, or many from a stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/open.h"
#include "base/records.h"
#include "base/report.h"
#include "base/stop.h"
#include "command.h"

static struct {
  const char *file;
  struct bytes delimiter;
  int64_t timeout_ns, delay_ns, ttl_ns;
  uint64_t priority;
} options = {.timeout_ns = -1};

static const struct flag flags[] = {
    TEXT_FLAG("file", 'f', &options.file, "FILE", "read FILE instead of standard input"),
    BYTES_FLAG("delimiter", 'D', &options.delimiter, "DELIM",
               "cut the input into messages at DELIM, which is removed"),
    TIMEOUT_FLAG(&options.timeout_ns),
    NUMBER_FLAG("priority", 'p', &options.priority, "N", 0, SHMQ_PRIORITIES_MAX - 1,
                "the higher, the earlier; beyond the queue's highest it is the highest"),
    DURATION_FLAG("delay", 0, &options.delay_ns, "DUR", 0, "do not deliver before DUR has passed"),
    DURATION_FLAG("ttl", 0, &options.ttl_ns, "DUR", 1, "the message expires after DUR"),
    END_OF_FLAGS,
};

struct putting {
  const char *name;
  shmq *queue;
  int64_t deadline;
  uint64_t done;
};

/* Priority and times are said message by message; without them whole batches go. */
static int put_step(const struct putting *p, const struct iovec *iov, int count, int64_t deadline) {
  if (options.priority == 0 && options.delay_ns == 0 && options.ttl_ns == 0) {
    return shmq_put_batch(p->queue, iov, count, deadline);
  }
  shmq_put_options how = {.priority = (uint32_t)options.priority,
                          .not_before_ns =
                              options.delay_ns > 0 ? shmq_after_ns(options.delay_ns) : 0,
                          .expires_ns = options.ttl_ns > 0 ? shmq_after_ns(options.ttl_ns) : 0};
  int rc = shmq_put_with(p->queue, iov[0].iov_base, iov[0].iov_len, &how, deadline);
  return rc < 0 ? rc : 1;
}

/* Without a wait first: no clock is read while there is room. */
static int put_some(const struct putting *p, const struct iovec *iov, int count) {
  int rc = put_step(p, iov, count, SHMQ_NOWAIT);
  if (rc != -EAGAIN || p->deadline == SHMQ_NOWAIT) {
    return rc;
  }
  do {
    rc = put_step(p, iov, count, p->deadline);
  } while (stop_try_again(rc));
  return rc;
}

static int put_all(struct putting *p, const struct iovec *iov, int count) {
  for (int done = 0; done < count;) {
    int rc = put_some(p, iov + done, count - done);
    if (rc < 0) {
      return rc;
    }
    done += rc;
    p->done += (uint64_t)rc;
  }
  return 0;
}

static int put_stream(struct putting *p, int fd) {
  struct records records;
  struct iovec iov[SHMQ_BATCH_MAX];
  records_init(&records, fd, options.delimiter, shmq_message_limit(p->queue));
  int rc;
  while ((rc = records_next(&records, iov, SHMQ_BATCH_MAX)) > 0) {
    rc = put_all(p, iov, rc);
    if (rc < 0) {
      break;
    }
  }
  records_free(&records);
  return rc;
}

/* Say why it ended, and for a stream how far it came, so that the rest can be put later. */
static int finish(const struct putting *p, int rc, bool stream) {
  if (rc == 0) {
    return STATUS_OK;
  }
  int status = STATUS_FAILED;
  if (rc == -EINTR) {
    complain("%s: interrupted", p->name);
  } else if (rc == -EMSGSIZE) {
    complain("%s: message too long: the queue takes at most %" PRIu64
             " bytes; create it with a larger --message-size, or with --blocks",
             p->name, shmq_message_limit(p->queue));
  } else if (rc == -EAGAIN || rc == -ETIMEDOUT) {
    complain("%s: the queue is full; 'shmq get' takes messages out", p->name);
    status = STATUS_WOULD_BLOCK;
  } else {
    status = fail(p->name, rc);
  }
  if (stream) {
    complain("%s: %" PRIu64 " messages were put before that", p->name, p->done);
  }
  return status;
}

static int put_from(struct putting *p, const char *message) {
  if (message != NULL && (strcmp(message, "-") != 0 || options.file != NULL)) {
    struct iovec whole = {(void *)(uintptr_t)message, strlen(message)};
    return finish(p, put_all(p, &whole, 1), false);
  }
  int fd = options.file != NULL ? open(options.file, O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
  if (fd < 0) {
    return fail_system(options.file, errno);
  }
  int status = finish(p, put_stream(p, fd), options.delimiter.size > 0);
  if (fd != STDIN_FILENO) {
    close(fd);
  }
  return status;
}

static int run(int count, char **arguments) {
  const char *message = count > 1 ? arguments[1] : NULL;
  bool literal = message != NULL && strcmp(message, "-") != 0;
  if (literal && (options.file != NULL || options.delimiter.size > 0)) {
    return usage("a message and -%c do not go together", options.file != NULL ? 'f' : 'D');
  }
  if (message != NULL && !literal && options.file != NULL) {
    return usage("- and -f do not go together");
  }
  struct putting p = {.name = arguments[0]};
  int status = open_queue(p.name, "put", &p.queue);
  if (status != STATUS_OK) {
    return status;
  }
  stop_catch();
  p.deadline = stop_deadline(options.timeout_ns);
  status = put_from(&p, message);
  shmq_close(p.queue);
  return status;
}

const struct command put_command = {
    .name = "put",
    .arguments = "NAME [MESSAGE | -]",
    .summary = "Put messages into a queue",
    .details =
        "MESSAGE is put as it stands. - (the default) puts standard input: the whole as one "
        "message, or, with -D, one message for each part. A part behind the last delimiter counts "
        "when it is not empty. When it returns 0, every message will be delivered. A message that "
        "starts with a dash goes behind --.",
    .examples = "  shmq put jobs 'hello world'\n"
                "  seq 10000 | shmq put jobs - -D '\\n'\n"
                "  find . -type f -print0 | shmq put jobs - -D '\\0'\n"
                "  shmq put img -f photo.jpg",
    .flags = flags,
    .least = 1,
    .most = 2,
    .run = run,
};
