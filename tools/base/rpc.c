/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"

static const int64_t grace_ns = 1000000000;

int rpc_open(const char *name, shmq_client **client) {
  struct address address;
  int status = check_name(name, false, &address);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_client_open(client, name, 0);
  if (rc == -ENOENT) {
    complain("%s: no such service; 'shmq serve' makes one", name);
    return STATUS_NOT_FOUND;
  }
  if (rc == -ENOTTY) {
    complain("%s: a plain queue, not a service; 'shmq serve' makes services", name);
    return STATUS_FAILED;
  }
  if (rc == -EUSERS) {
    complain("%s: as many ask already as the service was created for", name);
    return STATUS_FAILED;
  }
  return rc < 0 ? fail(name, rc) : STATUS_OK;
}

static int send(shmq_client *client, const shmq_ask *ask, int64_t deadline_ns,
                shmq_future **future) {
  int rc;
  do {
    rc = shmq_request(client, ask, deadline_ns, future);
  } while (rc == -EINTR && !stop_requested());
  return rc;
}

static shmq_result error_result(int status, enum shmq_executed executed) {
  enum shmq_class error_class = shmq_class_of(status);
  return (shmq_result){.status = status,
                       .error_class = (uint8_t)error_class,
                       .executed = (uint8_t)executed,
                       .domain = "",
                       .text = ""};
}

/* Told to stop: take the request back, and give the server a moment to say whether it was in time.
 * What does no harm twice is not worth that. */
static int give_up(shmq_future *future, bool harmless, shmq_result *result) {
  int64_t until = harmless ? SHMQ_NOWAIT : shmq_after_ns(grace_ns);
  int rc;
  shmq_cancel(future);
  do {
    rc = shmq_await(future, result, until);
  } while (rc == -EINTR && result->more);
  if (rc == -EAGAIN && result->more) {
    *result = error_result(-EINTR, SHMQ_EXECUTED_UNKNOWN);
  }
  return result->status;
}

int rpc_ask(shmq_client *client, const shmq_ask *ask, int64_t deadline_ns, shmq_future **future,
            shmq_result *result) {
  if (*future == NULL) {
    int rc = send(client, ask, deadline_ns, future);
    if (rc < 0) {
      *result = error_result(rc, SHMQ_EXECUTED_NO); /* it was not sent */
      return rc;
    }
  }
  int rc = -EINTR;
  while (rc == -EINTR && !stop_requested()) {
    rc = shmq_await(*future, result, SHMQ_FOREVER);
    if (!result->more) {
      return rc;
    }
  }
  return rc == -EINTR ? give_up(*future, ask->flags & SHMQ_ASK_IDEMPOTENT, result) : rc;
}

const char *rpc_executed(unsigned executed) {
  switch (executed) {
  case SHMQ_EXECUTED_NO: return "no";
  case SHMQ_EXECUTED_YES: return "yes";
  default: return "unknown";
  }
}

/* The library's text where it has one; a server may answer with any errno. */
static const char *error_text(int status) {
  if (status == -EXDEV) {
    return "leads out of the resource";
  }
  if (status == -EOPNOTSUPP) {
    return strerror(EOPNOTSUPP); /* the library's speaks of queues */
  }
  const char *text = shmq_strerror(status);
  return strcmp(text, "unknown error") != 0 ? text : strerror(-status);
}

/* What the server wrote goes below the complaint, as it stands. */
static void print_text(const char *text) {
  size_t length = strlen(text);
  if (length > 0) {
    fprintf(stderr, "%s%s", text, text[length - 1] == '\n' ? "" : "\n");
  }
}

/* By its class, which the server knows better than the errno tells. */
static int status_of_result(const shmq_result *result) {
  switch (result->error_class) {
  case SHMQ_CLASS_NOT_FOUND: return STATUS_NOT_FOUND;
  case SHMQ_CLASS_AUTH: return STATUS_PERMISSION;
  case SHMQ_CLASS_BUSY:
  case SHMQ_CLASS_TIMEOUT: return STATUS_WOULD_BLOCK;
  default: return result->status == -EPIPE ? STATUS_SHUT_DOWN : STATUS_FAILED;
  }
}

int rpc_fail(const char *subject, const shmq_result *result) {
  const char *doubt =
      result->executed == SHMQ_EXECUTED_UNKNOWN ? "; it may have been executed" : "";
  if (*result->domain != '\0') {
    complain("%s: %s %d%s", subject, result->domain, (int)result->code, doubt);
  } else {
    complain("%s: %s%s%s", subject, error_text(result->status),
             result->status == -EMSGSIZE ? " for this service" : "", doubt);
  }
  print_text(result->text);
  return status_of_result(result);
}
