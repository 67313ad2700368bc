/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys are bytes and ordered as such.
 */
#include <stdlib.h>
#include <string.h>

#include "resource/kv.h"

static int compare(const struct kv_entry *a, const struct kv_entry *b) {
  size_t n = a->key_bytes < b->key_bytes ? a->key_bytes : b->key_bytes;
  int order = memcmp(a->key, b->key, n);
  return order ? order : a->key_bytes < b->key_bytes ? -1 : a->key_bytes > b->key_bytes;
}

/* Not static: we use only some of them. */
RB_PROTOTYPE(kv_tree, kv_entry, node, compare)
RB_GENERATE(kv_tree, kv_entry, node, compare)

size_t kv_entry_bytes(size_t key_bytes, size_t value_bytes) {
  return sizeof(struct kv_entry) + key_bytes + value_bytes;
}

static size_t bytes_of(const struct kv_entry *e) {
  return kv_entry_bytes(e->key_bytes, e->value_bytes);
}

struct kv_entry *kv_entry_new(const char *key, size_t key_bytes, size_t value_bytes) {
  struct kv_entry *e = malloc(kv_entry_bytes(key_bytes, value_bytes));
  if (!e) return NULL;
  *e = (struct kv_entry){
      .key = e->data, .key_bytes = (uint32_t)key_bytes, .value_bytes = (uint32_t)value_bytes};
  memcpy(e->data, key, key_bytes);
  return e;
}

static struct kv_entry probe(const char *key, size_t key_bytes) {
  return (struct kv_entry){.key = key, .key_bytes = (uint32_t)key_bytes};
}

struct kv_entry *kv_map_find(struct kv_map *map, const char *key, size_t key_bytes) {
  struct kv_entry p = probe(key, key_bytes);
  return RB_FIND(kv_tree, &map->tree, &p);
}

struct kv_entry *kv_map_from(struct kv_map *map, const char *key, size_t key_bytes, bool after) {
  struct kv_entry p = probe(key, key_bytes);
  struct kv_entry *e = RB_NFIND(kv_tree, &map->tree, &p);
  return e && after && compare(e, &p) == 0 ? kv_map_next(e) : e;
}

struct kv_entry *kv_map_next(struct kv_entry *e) { return RB_NEXT(kv_tree, NULL, e); }

void kv_map_put(struct kv_map *map, struct kv_entry *e) {
  struct kv_entry *old = RB_INSERT(kv_tree, &map->tree, e);
  if (old) {
    kv_map_remove(map, old);
    RB_INSERT(kv_tree, &map->tree, e);
  }
  map->count++;
  map->bytes += bytes_of(e);
}

void kv_map_remove(struct kv_map *map, struct kv_entry *e) {
  RB_REMOVE(kv_tree, &map->tree, e);
  map->count--;
  map->bytes -= bytes_of(e);
  free(e);
}

void kv_map_clear(struct kv_map *map) {
  for (struct kv_entry *e; (e = RB_MIN(kv_tree, &map->tree));) kv_map_remove(map, e);
}
