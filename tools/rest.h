/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages that failed and are not to come round at once. What is given back is delivered before
 * what is new, so one job that always fails would keep a pool from all others. Such a message
 * rests: its worker keeps the lease, works on others, and gives it back when its time has come. A
 * worker that dies gives it back by dying.
 */
#ifndef TOOLS_REST_H
#define TOOLS_REST_H

#include <stdbool.h>
#include <stdint.h>

#include <shmq/shmq.h>

enum { RESTS_MAX = 16 };

struct rests {
  unsigned count;
  struct {
    shmq_message message;
    shmq_cause cause;
    int64_t due_ns;
  } entry[RESTS_MAX];
};

/* Returns false when there are too many. */
bool rest_begin(struct rests *rests, const shmq_message *message, const shmq_cause *cause,
                int64_t due_ns);

/* When the first of them is due; SHMQ_FOREVER: none rests. */
int64_t rest_due(const struct rests *rests);

/* Give back what is due at `now_ns`; SHMQ_FOREVER: all. Returns 0 or a negative errno. */
int rest_end(struct rests *rests, shmq *queue, int64_t now_ns);

#endif
