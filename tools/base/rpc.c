/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"

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
    /* The deadline is the request's whole life: this wait must not be cut into slices. */
    rc = shmq_request(client, ask, deadline_ns, future);
  } while (rc == -EINTR && !stop_requested());
  return rc;
}

int rpc_ask(shmq_client *client, const shmq_ask *ask, int64_t deadline_ns, shmq_future **future,
            shmq_result *result) {
  *result = (shmq_result){.executed = SHMQ_EXECUTED_NO, .domain = "", .text = ""};
  if (*future == NULL) {
    result->status = send(client, ask, deadline_ns, future);
    if (result->status < 0) { /* it was not sent */
      enum shmq_class error_class = shmq_class_of(result->status);
      result->error_class = (uint8_t)error_class;
      return result->status;
    }
  }
  int rc;
  bool cancelled = false;
  do {
    rc = shmq_await(*future, result, stop_slice(SHMQ_FOREVER));
    if (stop_requested() && !cancelled) {
      shmq_cancel(*future);
      cancelled = true;
    }
  } while ((rc == -EAGAIN || rc == -EINTR) && result->more);
  return rc;
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
