/* SPDX-License-Identifier: Apache-2.0 */
#include "base/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <shmq/shmq.h>

static const char *command_name = "";

/* One row an error: the status it exits with and what the user can do about it. */
static const struct {
  int error;
  enum status status;
  const char *advice;
} errors[] = {
    {-ENOENT, STATUS_NOT_FOUND, "'shmq ls' shows what there is, 'shmq create' makes a queue"},
    {-EEXIST, STATUS_FAILED, "choose another name, or remove it with 'shmq rm'"},
    {-EACCES, STATUS_PERMISSION, "its owner decides with 'shmq create --mode'"},
    {-EPERM, STATUS_PERMISSION, NULL},
    {-EROFS, STATUS_PERMISSION, "its owner decides with 'shmq create --mode'"},
    {-EAGAIN, STATUS_WOULD_BLOCK, NULL},
    {-ETIMEDOUT, STATUS_WOULD_BLOCK, NULL},
    {-EPIPE, STATUS_SHUT_DOWN, "'shmq reopen' makes it accept messages again"},
    {-EBADMSG, STATUS_DAMAGED, "'shmq doctor' says what is wrong"},
    {-EPROTO, STATUS_VERSION, "use the shmq that made it, or remove it with 'shmq rm'"},
    {-EINVAL, STATUS_USAGE, NULL},
    {-ENAMETOOLONG, STATUS_USAGE, NULL},
    {-EBUSY, STATUS_FAILED, "'shmq info' shows who holds the role; it ends with its process"},
    {-EOPNOTSUPP, STATUS_FAILED, "create the queue with --timed for delays and times to live"},
    {-EMSGSIZE, STATUS_FAILED, "create it with a larger --message-size, or with --blocks"},
};

void report_as(const char *command) { command_name = command; }

static void start_line(void) {
  fflush(stdout); /* keep the order when both go to one terminal */
  fputs("shmq: ", stderr);
  if (*command_name != '\0') {
    fprintf(stderr, "%s: ", command_name);
  }
}

void complain(const char *format, ...) {
  va_list values;
  va_start(values, format);
  start_line();
  vfprintf(stderr, format, values);
  fputc('\n', stderr);
  va_end(values);
}

int usage(const char *format, ...) {
  va_list values;
  va_start(values, format);
  start_line();
  vfprintf(stderr, format, values);
  fprintf(stderr, "; see 'shmq %s%s--help'\n", command_name, *command_name != '\0' ? " " : "");
  va_end(values);
  return STATUS_USAGE;
}

int status_of(int error) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].error == error) {
      return errors[i].status;
    }
  }
  return error < 0 ? STATUS_FAILED : STATUS_OK;
}

static const char *advice_for(int error) {
  for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
    if (errors[i].error == error) {
      return errors[i].advice;
    }
  }
  return NULL;
}

/* No room: say which room, how much was needed and how much there is. */
static int fail_for_space(const char *subject) {
  uint64_t needed = 0;
  uint64_t available = 0;
  switch (shmq_nospace_detail(&needed, &available)) {
  case SHMQ_NOSPACE_MEMORY:
    complain("%s: no room in /dev/shm: %" PRIu64 " bytes needed, %" PRIu64
             " free; remove what is not used ('shmq ls', 'shmq rm'), or ask for less",
             subject, needed, available);
    break;
  case SHMQ_NOSPACE_PARTICIPANTS:
    complain("%s: no room for another participant: %" PRIu64 " slot needed, %" PRIu64
             " free of those that it was created with; 'shmq info' lists who holds them, "
             "'shmq create --participants' makes room for more",
             subject, needed, available);
    break;
  default: complain("%s: %s", subject, shmq_strerror(-ENOSPC));
  }
  return STATUS_FAILED;
}

int fail(const char *subject, int error) {
  if (error == -ENOSPC) {
    return fail_for_space(subject);
  }
  const char *advice = advice_for(error);
  complain("%s: %s%s%s", subject, shmq_strerror(error), advice != NULL ? "; " : "",
           advice != NULL ? advice : "");
  return status_of(error);
}

int fail_system(const char *subject, int error) {
  complain("%s: %s", subject, strerror(error));
  switch (error) {
  case ENOENT: return STATUS_NOT_FOUND;
  case EACCES:
  case EPERM: return STATUS_PERMISSION;
  default: return STATUS_FAILED;
  }
}
