/* SPDX-License-Identifier: Apache-2.0 */
#include "rest.h"

bool rest_begin(struct rests *rests, const shmq_message *message, const shmq_cause *cause,
                int64_t due_ns) {
  if (rests->count == RESTS_MAX) {
    return false;
  }
  rests->entry[rests->count].message = *message;
  rests->entry[rests->count].cause = *cause;
  rests->entry[rests->count].due_ns = due_ns;
  rests->count++;
  return true;
}

int64_t rest_due(const struct rests *rests) {
  int64_t first = SHMQ_FOREVER;
  for (unsigned i = 0; i < rests->count; i++) {
    first = rests->entry[i].due_ns < first ? rests->entry[i].due_ns : first;
  }
  return first;
}

int rest_end(struct rests *rests, shmq *queue, int64_t now_ns) {
  int rc = 0;
  for (unsigned i = 0; i < rests->count && rc == 0;) {
    if (rests->entry[i].due_ns > now_ns) {
      i++;
      continue;
    }
    rc = shmq_nack_with(queue, &rests->entry[i].message, 0, &rests->entry[i].cause);
    rests->entry[i] = rests->entry[--rests->count];
  }
  return rc;
}
