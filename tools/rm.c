/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq rm: remove the names of segments.
 */
#include <errno.h>

#include "base/report.h"
#include "base/view.h"
#include "command.h"

static bool force;

static const struct flag flags[] = {
    SET_FLAG("force", 'f', &force, "say nothing about segments that are not there"),
    END_OF_FLAGS,
};

static int remove_one(const char *name) {
  struct address address;
  int status = check_name(name, false, &address);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_unlink(address.segment);
  return rc == 0 || (rc == -ENOENT && force) ? STATUS_OK : fail(name, rc);
}

static int run(int count, char **arguments) {
  int status = STATUS_OK;
  for (int i = 0; i < count; i++) {
    int one = remove_one(arguments[i]);
    status = status == STATUS_OK ? one : status;
  }
  return status;
}

const struct command rm_command = {
    .name = "rm",
    .arguments = "NAME...",
    .summary = "Remove segments",
    .details =
        "Who uses a segment goes on with it; the memory is freed when the last of them ends. All "
        "names are tried; the exit status is that of the first that failed.",
    .flags = flags,
    .least = 1,
    .most = -1,
    .run = run,
};
