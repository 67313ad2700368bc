/* SPDX-License-Identifier: Apache-2.0
 *
 * What shards send to each other. Any thread puts into an inbox, without a lock; its owner takes all there is. The same
 * word says that the owner sleeps, so who puts into the inbox of a sleeper knows it, and nobody else has to wake it.
 */
#ifndef SHMQD_INBOX_H
#define SHMQD_INBOX_H

#include <stdatomic.h>
#include <stdbool.h>

/* Stands in whatever is sent, and belongs to the inbox until it is taken. */
struct post {
  struct post *next;
  void (*deliver)(struct post *post); /* for who takes it to call */
};

/* Zero-initialised it is empty. */
struct inbox {
  _Alignas(64) _Atomic(struct post *) newest;
};

/* true: its owner sleeps, or is about to, and nobody else wakes it. */
bool inbox_put(struct inbox *inbox, struct post *post);
/* Of the owner: the list of what is there, in the order in which each thread has put it. It does not sleep now. */
struct post *inbox_take(struct inbox *inbox);
/* Of the owner: it will sleep until it is woken. false: something is there. */
bool inbox_sleep(struct inbox *inbox);

#endif
