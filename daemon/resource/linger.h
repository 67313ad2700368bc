/* SPDX-License-Identifier: Apache-2.0
 *
 * Whom a batch waits for. A flight to the disk takes as long for eight records as for one. Clients that ask one thing at a
 * time, each as soon as it is answered, would come in two halves for ever: one on its way to the disk while the other is
 * answered, and each would wait for two flights. So the next batch waits for as many as were answered last or came
 * meanwhile, but no longer than that flight took (5 ms at most): in vain it costs no more than it would have saved, and
 * where it is in vain again and again it is tried ever more seldom.
 */
#ifndef SHMQD_RESOURCE_LINGER_H
#define SHMQD_RESOURCE_LINGER_H

#include "daemon.h"

struct linger {
  struct shard *shard;
  struct alarm alarm; /* set: it lingers, until then at most */
  uint64_t expected;  /* how many */
  uint64_t rest;      /* so many flights go without */
  uint64_t vain;      /* so many will, if the next time is in vain, too */
};

void linger_open(struct linger *linger, struct shard *shard);
/* A flight has ended that took so long; `expected` are answered now or came meanwhile. */
void linger_begin(struct linger *linger, uint64_t expected, int64_t took_ns);
/* Is it worth waiting for more than those that have come? */
bool linger_wants(const struct linger *linger, uint64_t come);
/* The batch leaves, or there will be none. */
void linger_end(struct linger *linger);

#endif
