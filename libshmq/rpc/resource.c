/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/client.h"

int shmq_resource(shmq_client *c, const char *name) {
  struct iovec part = {.iov_base = (void *)(uintptr_t)name, .iov_len = strlen(name)};
  shmq_ask ask = {
      .op = SHMQ_DAEMON_RESOLVE, .flags = SHMQ_ASK_IDEMPOTENT, .parts = &part, .part_count = 1};
  shmq_result result;
  int rc = shmq_call(c, &ask, &result, SHMQ_FOREVER);
  if (rc == 0) rc = (int)(result.value[0] & 0xffff);
  shmq_call_done(c);
  return rc;
}
