/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/log_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { ROOM_FIRST = 1024 };

/* So few random bytes come whole, once there are any: early in a machine's life they are waited for. */
void log_keys_init(struct log_keys *k, size_t most) {
  *k = (struct log_keys){.most = most};
  while (getrandom(k->secret, sizeof k->secret, 0) < 0) continue;
}

void log_keys_free(struct log_keys *k) {
  free(k->ring);
  free(k->table);
  log_keys_init(k, k->most);
}

void log_keys_clear(struct log_keys *k) {
  k->first = k->next = 0;
  if (k->table) memset(k->table, 0, 2 * k->room * sizeof *k->table);
}

static size_t mask(const struct log_keys *k) { return 2 * k->room - 1; }
static struct key_entry *entry(const struct log_keys *k, uint64_t i) {
  return &k->ring[i & (k->room - 1)];
}

__extension__ typedef unsigned __int128 uint128;

/* Keys are chosen by clients. Who could have many meet would make the table a list, for all others and for every start
 * that reads them back. Sums of products of words and secret words (the hash NH of UMAC, RFC 4418) meet for any two keys
 * by chance alone. */
static size_t home(const struct log_keys *k, const shmq_id *key) {
  uint64_t w[4];
  _Static_assert(sizeof w == sizeof *key, "all of it");
  memcpy(w, key, sizeof w);
  for (int i = 0; i < 4; i++) w[i] += k->secret[i];
  uint128 sum = (uint128)w[0] * w[1] + (uint128)w[2] * w[3];
  uint64_t h = ((uint64_t)(sum >> 64) ^ (uint64_t)sum) * UINT64_C(0x9e3779b97f4a7c15);
  return (size_t)(h >> 32) & mask(k);
}

/* Where the key stands, or the free place where it would. */
static size_t probe(const struct log_keys *k, const shmq_id *key) {
  size_t at = home(k, key);
  while (k->table[at] && memcmp(&k->ring[k->table[at] - 1].key, key, sizeof *key) != 0)
    at = (at + 1) & mask(k);
  return at;
}

bool log_keys_find(const struct log_keys *k, const shmq_id *key, uint64_t *number) {
  if (!k->room) return false;
  size_t at = probe(k, key);
  if (!k->table[at]) return false;
  *number = k->ring[k->table[at] - 1].number;
  return true;
}

/* Close the gap, so that no probe ends early: what follows moves up unless it stands at its home. */
static void remove_at(struct log_keys *k, size_t hole) {
  for (size_t at = (hole + 1) & mask(k); k->table[at]; at = (at + 1) & mask(k)) {
    size_t wanted = home(k, &k->ring[k->table[at] - 1].key);
    if (((at - wanted) & mask(k)) < ((at - hole) & mask(k))) continue;
    k->table[hole] = k->table[at];
    hole = at;
  }
  k->table[hole] = 0;
}

static void insert(struct log_keys *k, uint64_t i) {
  k->table[probe(k, &entry(k, i)->key)] = (uint32_t)(i & (k->room - 1)) + 1;
}

static int grow(struct log_keys *k) {
  size_t room = k->room ? 2 * k->room : ROOM_FIRST;
  struct log_keys bigger = *k;
  bigger.ring = malloc(room * sizeof *k->ring);
  bigger.table = calloc(2 * room, sizeof *k->table);
  bigger.room = room;
  if (!bigger.ring || !bigger.table) {
    free(bigger.ring);
    free(bigger.table);
    return -ENOMEM;
  }
  for (uint64_t i = k->first; i < k->next; i++) {
    *entry(&bigger, i) = *entry(k, i);
    insert(&bigger, i);
  }
  free(k->ring);
  free(k->table);
  *k = bigger;
  return 0;
}

int log_keys_add(struct log_keys *k, const shmq_id *key, uint64_t number) {
  if (!k->most) return 0;
  if (k->next - k->first == k->most) {
    remove_at(k, probe(k, &entry(k, k->first)->key));
    k->first++;
  }
  if (k->next - k->first == k->room) {
    int rc = grow(k);
    if (rc) return rc;
  }
  *entry(k, k->next) = (struct key_entry){.key = *key, .number = number};
  insert(k, k->next++);
  return 0;
}
