/* SPDX-License-Identifier: Apache-2.0 */
#include "base/open.h"

#include "base/report.h"
#include "base/view.h"

int open_quietly(const char *name, shmq **queue) {
  struct address address;
  int status = check_name(name, true, &address);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_open(queue, name, 0);
  return rc == 0 ? STATUS_OK : fail(name, rc);
}

int open_queue(const char *name, const char *role, shmq **queue) {
  int status = open_quietly(name, queue);
  if (status != STATUS_OK) {
    return status;
  }
  int rc = shmq_join_segment(shmq_segment_of(*queue), role, "shmq");
  if (rc < 0) {
    status = fail(name, rc);
    shmq_close(*queue);
  }
  return status;
}
