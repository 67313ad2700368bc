/* SPDX-License-Identifier: Apache-2.0
 *
 * spread, compact and pair: our own orders of the CPUs, one CPU a place.
 *
 * Both orders are fixed for a topology, and a pool takes the first n of one, so that place i is
 * the same whatever n is. (hwloc_distrib divides the tree by n instead: every place moves when
 * the pool grows.) Neither uses the second PU of any core before the first PU of every core.
 */
#include <errno.h>
#include <stdlib.h>

#include "places.h"

static hwloc_obj_t ancestor_at(hwloc_obj_t object, int depth) {
  while (object != NULL && object->depth > depth) object = object->parent;
  return object != NULL && object->depth == depth ? object : NULL;
}

static unsigned rank_at(hwloc_obj_t pu, int depth) {
  hwloc_obj_t object = ancestor_at(pu, depth);
  return object != NULL ? object->sibling_rank
                        : 0; /* not every core need have each kind of cache */
}

static int by_logical_index(hwloc_obj_t a, hwloc_obj_t b) {
  return (a->logical_index > b->logical_index) - (a->logical_index < b->logical_index);
}

/* Which child of its parent, compared from the leaves to the root: packages alternate fastest,
 * then the caches inside a package, then cores, and PUs of a core come last. */
static int compare_spread(const void *left, const void *right) {
  hwloc_obj_t a = *(const hwloc_obj_t *)left;
  hwloc_obj_t b = *(const hwloc_obj_t *)right;
  for (int depth = a->depth; depth > 0; depth--) {
    unsigned rank_a = rank_at(a, depth);
    unsigned rank_b = rank_at(b, depth);
    if (rank_a != rank_b) return rank_a < rank_b ? -1 : 1;
  }
  return by_logical_index(a, b);
}

/* Which PU of its core. There may be something between them: some machines show L1 caches there. */
static unsigned rank_in_core(hwloc_obj_t pu) {
  hwloc_obj_t core = pu;
  while (core != NULL && core->type != HWLOC_OBJ_CORE) core = core->parent;
  if (core == NULL) return 0;
  hwloc_obj_t first = core;
  while (first->first_child != NULL) first = first->first_child;
  return pu->logical_index - first->logical_index;
}

/* In logical order, first PUs of all cores before second ones. */
static int compare_compact(const void *left, const void *right) {
  hwloc_obj_t a = *(const hwloc_obj_t *)left;
  hwloc_obj_t b = *(const hwloc_obj_t *)right;
  unsigned rank_a = rank_in_core(a);
  unsigned rank_b = rank_in_core(b);
  if (rank_a != rank_b) return rank_a < rank_b ? -1 : 1;
  return by_logical_index(a, b);
}

/* The PUs inside an object in an order; the caller's to free, NULL when there is no memory. */
static hwloc_obj_t *ordered_pus(const shmq_pin *pin, hwloc_obj_t outer,
                                int (*compare)(const void *, const void *), unsigned *count) {
  unsigned all = (unsigned)hwloc_get_nbobjs_by_type(pin->topology, HWLOC_OBJ_PU);
  hwloc_obj_t *list = calloc((size_t)all + 1, sizeof(hwloc_obj_t));
  *count = 0;
  for (unsigned i = 0; list != NULL && i < all; i++) {
    hwloc_obj_t pu = hwloc_get_obj_by_type(pin->topology, HWLOC_OBJ_PU, i);
    if (hwloc_bitmap_isincluded(pu->cpuset, outer->cpuset)) list[(*count)++] = pu;
  }
  if (list != NULL) qsort(list, *count, sizeof(hwloc_obj_t), compare);
  return list;
}

static int add_ordered(const shmq_pin *pin, struct places *places,
                       int (*compare)(const void *, const void *)) {
  unsigned count = 0;
  hwloc_obj_t *list = ordered_pus(pin, hwloc_get_root_obj(pin->topology), compare, &count);
  int rc = list != NULL ? 0 : -ENOMEM;
  for (unsigned i = 0; rc == 0 && i < count; i++) rc = shmq__places_add_object(places, list[i]);
  free(list);
  return rc;
}

int shmq__places_spread(const shmq_pin *pin, struct places *places) {
  return add_ordered(pin, places, compare_spread);
}

int shmq__places_compact(const shmq_pin *pin, struct places *places) {
  return add_ordered(pin, places, compare_compact);
}

/* What may pair with what below one cache. */
enum pairing { CORES, SIBLINGS };

/* The PUs of a cache that pairs are made of, two by two. CORES: the first PU of each core; their
 * spread order puts cores of different smaller caches side by side. SIBLINGS: all PUs, for a cache
 * with a single core. */
static hwloc_obj_t *partners(const shmq_pin *pin, hwloc_obj_t cache, enum pairing pairing,
                             unsigned *count) {
  hwloc_obj_t *list = ordered_pus(pin, cache, compare_spread, count);
  unsigned cores = 0;
  while (list != NULL && cores < *count && rank_in_core(list[cores]) == 0) cores++;
  if (pairing == CORES) *count = cores;
  return list;
}

/* Pair number `round` of every cache that has so many; *added counts. */
static int add_round(const shmq_pin *pin, int depth, enum pairing pairing, size_t round,
                     struct places *places, unsigned *added) {
  unsigned caches = hwloc_get_nbobjs_by_depth(pin->topology, depth);
  int rc = 0;
  for (unsigned i = 0; rc == 0 && i < caches; i++) {
    unsigned count = 0;
    hwloc_obj_t cache = hwloc_get_obj_by_depth(pin->topology, depth, i);
    hwloc_obj_t *list = partners(pin, cache, pairing, &count);
    if (list == NULL) return -ENOMEM;
    if (count >= 2 * round + 2) {
      rc = shmq__places_add_object(places, list[2 * round]);
      if (rc == 0) rc = shmq__places_add_object(places, list[2 * round + 1]);
      ++*added;
    }
    free(list);
  }
  return rc;
}

static int add_pairs(const shmq_pin *pin, int depth, enum pairing pairing, struct places *places) {
  unsigned added = 1;
  int rc = 0;
  for (size_t round = 0; rc == 0 && added > 0; round++) {
    added = 0;
    rc = add_round(pin, depth, pairing, round, places, &added);
  }
  return rc;
}

int shmq__places_pair(shmq_pin *pin, hwloc_obj_type_t cache, struct places *places) {
  const char *name = cache == HWLOC_OBJ_L2CACHE ? "L2" : "L3";
  int depth = hwloc_get_type_depth(pin->topology, cache);
  if (depth < 0) {
    return shmq__pin_fail(pin, -ENOSPC, "the system shows no %s cache on this machine", name);
  }
  int rc = add_pairs(pin, depth, CORES, places);
  if (rc == 0 && places->count == 0 && cache == HWLOC_OBJ_L2CACHE) {
    rc = add_pairs(pin, depth, SIBLINGS, places);
  }
  if (rc == 0 && places->count == 0) {
    rc = shmq__pin_fail(pin, -ENOSPC, "no %s cache is shared by two %s that this process may use",
                        name, cache == HWLOC_OBJ_L2CACHE ? "CPUs" : "cores");
  }
  return rc;
}
