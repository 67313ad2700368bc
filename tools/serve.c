/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq serve: answer requests with what a command writes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmq/rpc.h>

#include "base/command_run.h"
#include "base/report.h"
#include "base/stop.h"
#include "base/view.h"
#include "command.h"
#include "crew.h"
#include "place.h"

static const char *const redeliver[] = {"idempotent", "always", "never", NULL};

static struct {
  uint64_t workers, askers, message_size, blocks, block_size, mode, redeliver;
  bool quiet;
  const char *places;
} options = {.workers = 1, .message_size = 1024, .blocks = 16, .block_size = 1 << 18};

static const struct flag flags[] = {
    NUMBER_FLAG("workers", 'j', &options.workers, "N", 1, CREW_MAX,
                "number of servers (default 1)"),
    TEXT_FLAG("bind", 0, &options.places, "PLACES",
              "pin server i to place i, as 'shmq topo' names places"),
    NUMBER_FLAG("askers", 0, &options.askers, "N", 1, 500,
                "new service: most that ask at one time (default 32)"),
    SIZE_FLAG("message-size", 's', &options.message_size, "BYTES", 64, SHMQ_MESSAGE_MAX / 2,
              "new service: longest message without a block (default 1024)"),
    NUMBER_FLAG("blocks", 0, &options.blocks, "N", 0, 1 << 20,
                "new service: blocks for longer messages (default 16)"),
    SIZE_FLAG("block-size", 0, &options.block_size, "BYTES", 64, SHMQ_BLOCK_MAX / 2,
              "new service: longest message at all (default 256K)"),
    MODE_FLAG("mode", 'm', &options.mode, "OCTAL", "new service: permissions (default 0600)"),
    CHOICE_FLAG("redeliver", 0, &options.redeliver, "WHEN", redeliver,
                "new service: repeat what a server died of: idempotent (default), always, never"),
    SET_FLAG("quiet", 'q', &options.quiet, "no progress and no summary"),
    END_OF_FLAGS,
};

struct serving {
  const char *name;
  char *const *command;
};

enum { CREDITS = 8, TEXT_MAX = 4096 };

/* ---- one request ---- */

struct capture {
  int output, error;
};

static int open_capture(struct capture *capture) {
  capture->output = memfd_create("shmq answer", MFD_CLOEXEC);
  capture->error = memfd_create("shmq error", MFD_CLOEXEC);
  return capture->output >= 0 && capture->error >= 0 ? 0 : -errno;
}

static void close_capture(const struct capture *capture) {
  if (capture->output >= 0) {
    close(capture->output);
  }
  if (capture->error >= 0) {
    close(capture->error);
  }
}

/* What was written there, at most `most` bytes and a NUL behind it; to be freed. A copy: whoever
 * still holds the descriptor may change the file. NULL: out of memory. */
static char *read_back(int fd, size_t most, size_t *size) {
  struct stat status;
  *size = fstat(fd, &status) == 0 ? (size_t)status.st_size : 0;
  *size = *size < most ? *size : most;
  char *text = malloc(*size + 1);
  if (text == NULL) {
    return NULL;
  }
  ssize_t got = pread(fd, text, *size, 0);
  *size = got > 0 ? (size_t)got : 0;
  text[*size] = '\0';
  return text;
}

/* One byte more than can be sent: the library then says that it is too long. */
static int answer_value(shmq_incoming *incoming, int output) {
  size_t size;
  char *text = read_back(output, (size_t)SHMQ_BLOCK_MAX, &size);
  int rc = text != NULL ? shmq_reply(incoming, text, size)
                        : shmq_reply_error(incoming, -ENOMEM, NULL, 0, NULL);
  free(text);
  return rc;
}

static int answer_error(shmq_incoming *incoming, int status, int error) {
  size_t size;
  char *text = read_back(error, TEXT_MAX, &size);
  bool killed = WIFSIGNALED(status);
  int rc = shmq_reply_error(incoming, -EREMOTEIO, killed ? "signal" : "exit",
                            killed ? WTERMSIG(status) : WEXITSTATUS(status), text);
  free(text);
  return rc;
}

struct request {
  shmq_incoming *incoming;
  bool unwanted; /* its command was told to end early */
};

static bool is_unwanted(void *context) {
  struct request *request = context;
  request->unwanted = shmq_cancelled(request->incoming) != 0;
  return request->unwanted;
}

/* What became of it: `rc` says whether the command could be started, `status` how it ended. */
static int answer_with(struct request *request, int rc, int status, const struct capture *capture) {
  shmq_incoming *incoming = request->incoming;
  if (rc < 0) {
    return shmq_reply_error(incoming, rc, NULL, 0, "the command could not be started");
  }
  if (request->unwanted) {
    bool late = incoming->header.deadline_ns <= shmq_now_ns();
    return shmq_reply_error(incoming, late ? -ETIMEDOUT : -ECANCELED, NULL, 0, NULL);
  }
  return status == 0 ? answer_value(incoming, capture->output)
                     : answer_error(incoming, status, capture->error);
}

static int answer(const struct serving *serving, shmq_incoming *incoming,
                  struct crew_tally *tally) {
  struct capture capture;
  struct request request = {.incoming = incoming};
  pid_t pid = -1;
  int status = 0;
  int rc = open_capture(&capture);
  struct command_run run = {.argv = serving->command,
                            .running = &tally->running,
                            .output = capture.output,
                            .error = capture.error,
                            .unwanted = is_unwanted,
                            .context = &request};
  if (rc == 0) {
    rc = command_run_message(&run, incoming->data, incoming->size, &pid, &status);
  }
  bool done = rc == 0 && status == 0 && !request.unwanted;
  rc = answer_with(&request, rc, status, &capture);
  atomic_fetch_add(done && rc == 0 ? &tally->done : &tally->failed, 1);
  close_capture(&capture);
  return rc;
}

/* ---- one server ---- */

/* What an answer's failure says about its asker or its size is no reason to stop serving. */
static bool is_fatal(int rc) { return rc == -EBADMSG || rc == -EPROTO || rc == -ENOSPC; }

static int serve_all(const struct serving *serving, shmq_service *service,
                     struct crew_tally *tally) {
  while (!stop_requested()) {
    shmq_incoming incoming;
    int rc;
    do {
      rc = shmq_serve(service, &incoming, SHMQ_FOREVER);
    } while (stop_try_again(rc));
    if (rc < 0) {
      bool ended = rc == -EPIPE || rc == -ETIMEDOUT || rc == -EINTR;
      return ended ? STATUS_OK : fail(serving->name, rc);
    }
    rc = answer(serving, &incoming, tally);
    if (is_fatal(rc)) {
      return fail(serving->name, rc);
    }
  }
  return STATUS_OK;
}

static int be_server(const void *context, unsigned number, struct crew_tally *tally) {
  const struct serving *serving = context;
  shmq_service *service;
  int rc = shmq_service_open(&service, serving->name, SHMQ_NOSPIN);
  if (rc < 0) {
    return fail(serving->name, rc);
  }
  int status = options.places != NULL
                   ? place_self(options.places, number, shmq_service_segment(service))
                   : STATUS_OK;
  if (status == STATUS_OK) {
    status = serve_all(serving, service, tally);
  }
  shmq_service_close(service);
  return status;
}

/* ---- before it starts ---- */

static int create(const char *name) {
  shmq_service_options service = {.askers = (uint32_t)options.askers,
                                  .credits = CREDITS,
                                  .message_bytes = (uint32_t)options.message_size,
                                  .blocks = (uint32_t)options.blocks,
                                  .block_bytes = (uint32_t)options.block_size,
                                  .mode = (uint32_t)options.mode,
                                  .redeliver = (uint32_t)options.redeliver};
  int rc = shmq_service_create(name, &service);
  return rc == -EEXIST ? 0 : rc; /* somebody was faster */
}

/* Make the service if it is not there, and see that it is one. */
static int prepare(const char *name) {
  shmq_service *service;
  int rc = shmq_service_open(&service, name, SHMQ_NOSPIN);
  if (rc == -ENOENT && (rc = create(name)) == 0) {
    rc = shmq_service_open(&service, name, SHMQ_NOSPIN);
  }
  if (rc == -ENOTTY) {
    complain("%s: a plain queue, not a service: choose a name that is not in use, and 'shmq serve' "
             "makes it",
             name);
    return STATUS_FAILED;
  }
  if (rc < 0) {
    return fail(name, rc);
  }
  shmq_service_close(service);
  return STATUS_OK;
}

static int run(int count, char **arguments) {
  (void)count; /* argv ends with NULL, and so does the command */
  struct serving serving = {.name = arguments[0], .command = arguments + 1};
  struct address address;
  int status = check_name(serving.name, false, &address);
  if (status == STATUS_OK && options.places != NULL) {
    status = place_check(options.places);
  }
  if (status != STATUS_OK) {
    return status;
  }
  int error = command_run_check(arguments[1]);
  if (error != 0) {
    return fail_system(arguments[1], error);
  }
  status = prepare(serving.name);
  return status == STATUS_OK
             ? crew_run((unsigned)options.workers, be_server, &serving, options.quiet, NULL)
             : status;
}

const struct command serve_command = {
    .name = "serve",
    .arguments = "NAME -- COMMAND [ARGUMENT | {}]...",
    .summary = "Answer requests with what a command writes",
    .details =
        "Makes the service NAME if there is none, and serves it with N processes. For each "
        "request COMMAND gets the payload on its standard input, or in place of {} in its "
        "arguments. With exit status 0 its standard output is the answer; otherwise its exit "
        "status (or signal) and its standard error are the answer, an error.\n\n"
        "A request whose deadline has passed or whose asker has died is skipped; a command whose "
        "result nobody wants any more gets SIGTERM. On SIGINT or SIGTERM what runs is answered "
        "first. 'shmq shutdown NAME' ends all servers once the queue is empty, 'shmq rm NAME' "
        "removes the service.",
    .examples = "  shmq serve upper -j 4 -- tr a-z A-Z\n"
                "  shmq serve db -- sqlite3 my.db",
    .flags = flags,
    .least = 2,
    .most = -1,
    .run = run,
};
