/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of idempotency keys, against one that is written down at once; and keys that were made to meet in it.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "resource/crc32c.h"
#include "resource/log_keys.h"

enum { KEYS = 1 << 20 };

static shmq_id numbered(uint64_t n) {
  return (shmq_id){.segment = "log_keys", .queue = (uint32_t)(n % 3), .position = n};
}

/* The oldest goes when there are `most`; all others are found, and nothing else is. */
Test(daemon_keys, the_latest_are_known)
{
  enum { MOST = 1000, ADDED = 5000 };
  struct log_keys k;
  uint64_t found = 0;
  log_keys_init(&k, MOST);
  for (uint64_t n = 1; n <= ADDED; n++) {
    shmq_id id = numbered(n), old = numbered(n - MOST), next = numbered(n + 1);
    cr_assert_eq(log_keys_add(&k, &id, n), 0);
    cr_assert(log_keys_find(&k, &id, &found) && found == n);
    cr_assert(n <= MOST || !log_keys_find(&k, &old, &found), "number %lu", (unsigned long)n);
    cr_assert(!log_keys_find(&k, &next, &found));
  }
  for (uint64_t n = ADDED - MOST + 1; n <= ADDED; n++) {
    shmq_id id = numbered(n);
    cr_assert(log_keys_find(&k, &id, &found) && found == n);
  }
  log_keys_clear(&k);
  shmq_id last = numbered(ADDED);
  cr_assert(!log_keys_find(&k, &last, &found));
  log_keys_free(&k);
}

/* All with one CRC-32C: the last four bytes undo what those before them have made of it. */
static shmq_id of_one_checksum(uint64_t n) {
  shmq_id id = numbered(n);
  unsigned char *bytes = (unsigned char *)&id;
  uint32_t state = ~crc32c(0, bytes, sizeof id - sizeof state);
  memcpy(bytes + sizeof id - sizeof state, &state, sizeof state);
  return id;
}

/* Who may choose keys and knows this program must not be able to make the table a list: it would take hours. */
Test(daemon_keys, keys_cannot_be_made_to_meet)
{
  struct log_keys k;
  uint64_t found = 0;
  shmq_id first = of_one_checksum(0), second = of_one_checksum(1);
  cr_assert(crc32c(0, &first, sizeof first) == crc32c(0, &second, sizeof second));
  log_keys_init(&k, KEYS);
  for (uint64_t n = 0; n < KEYS; n++) {
    shmq_id id = of_one_checksum(n);
    cr_assert_eq(log_keys_add(&k, &id, n), 0);
  }
  for (uint64_t n = 0; n < KEYS; n += 1000) {
    shmq_id id = of_one_checksum(n);
    cr_assert(log_keys_find(&k, &id, &found) && found == n);
  }
  log_keys_free(&k);
}
