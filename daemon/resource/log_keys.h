/* SPDX-License-Identifier: Apache-2.0
 *
 * The most recent idempotency keys of a log and the numbers their records got.
 */
#ifndef SHMQD_RESOURCE_LOG_KEYS_H
#define SHMQD_RESOURCE_LOG_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shmq/shmq.h"

struct key_entry {
  shmq_id key;
  uint64_t number;
};

/* Entries stand in a ring by age; the table holds their ring indices + 1. */
struct log_keys {
  struct key_entry *ring;
  uint32_t *table;
  size_t room;          /* of the ring, a power of two; the table is twice as long */
  size_t most;          /* entries kept */
  uint64_t first, next; /* of the ring, ever increasing */
  uint64_t secret[4];   /* where a key stands depends on it */
};

void log_keys_init(struct log_keys *keys, size_t most);
void log_keys_free(struct log_keys *keys);
bool log_keys_find(const struct log_keys *keys, const shmq_id *key, uint64_t *number);
/* Forgets the oldest when there are `most`. Returns 0 or -ENOMEM. */
int log_keys_add(struct log_keys *keys, const shmq_id *key, uint64_t number);
void log_keys_clear(struct log_keys *keys);

#endif
