/* SPDX-License-Identifier: Apache-2.0
 *
 * Lists of places, and the operators of hwloc's location syntax on them.
 */
#include "places.h"

#include <errno.h>
#include <stdlib.h>

static int make_room(struct places *places) {
  if (places->count < places->room) return 0;
  unsigned room = places->room != 0 ? places->room * 2 : 16;
  struct place *list = reallocarray(places->list, room, sizeof(*list));
  if (list == NULL) return -ENOMEM;
  places->list = list;
  places->room = room;
  return 0;
}

static void free_place(struct place *place) {
  hwloc_bitmap_free(place->cpus);
  hwloc_bitmap_free(place->nodes);
}

int shmq__places_add(struct places *places, hwloc_const_bitmap_t cpus, hwloc_const_bitmap_t nodes) {
  if (make_room(places) != 0) return -ENOMEM;
  struct place place = {hwloc_bitmap_dup(cpus), hwloc_bitmap_dup(nodes)};
  if (place.cpus == NULL || place.nodes == NULL) {
    free_place(&place);
    return -ENOMEM;
  }
  places->list[places->count++] = place;
  return 0;
}

int shmq__places_add_object(struct places *places, hwloc_obj_t object) {
  return shmq__places_add(places, object->cpuset, object->nodeset);
}

void shmq__places_clear(struct places *places) {
  for (unsigned i = 0; i < places->count; i++) {
    free_place(&places->list[i]);
  }
  free(places->list);
  *places = (struct places){0};
}

static hwloc_bitmap_t all_cpus(const struct places *places) {
  hwloc_bitmap_t all = hwloc_bitmap_alloc();
  for (unsigned i = 0; all != NULL && i < places->count; i++) {
    if (hwloc_bitmap_or(all, all, places->list[i].cpus) != 0) {
      hwloc_bitmap_free(all);
      return NULL;
    }
  }
  return all;
}

void shmq__places_drop_empty(struct places *places) {
  unsigned count = 0;
  for (unsigned i = 0; i < places->count; i++) {
    if (hwloc_bitmap_iszero(places->list[i].cpus)) {
      free_place(&places->list[i]);
    } else {
      places->list[count++] = places->list[i];
    }
  }
  places->count = count;
}

/* Keep only `kept` in each place, and only the places in which something is left. */
static int intersect(const shmq_pin *pin, struct places *places, hwloc_const_bitmap_t kept) {
  for (unsigned i = 0; i < places->count; i++) {
    struct place *place = &places->list[i];
    if (hwloc_bitmap_isincluded(place->cpus, kept)) continue;
    if (hwloc_bitmap_and(place->cpus, place->cpus, kept) != 0 ||
        hwloc_cpuset_to_nodeset(pin->topology, place->cpus, place->nodes) != 0) {
      return -ENOMEM;
    }
  }
  shmq__places_drop_empty(places);
  return 0;
}

static int subtract(const shmq_pin *pin, struct places *places, hwloc_const_bitmap_t cpus) {
  hwloc_bitmap_t kept = hwloc_bitmap_alloc();
  int rc =
      kept != NULL && hwloc_bitmap_not(kept, cpus) == 0 ? intersect(pin, places, kept) : -ENOMEM;
  hwloc_bitmap_free(kept);
  return rc;
}

/* Move the places of `from` to the end of `places`. */
static int append(struct places *places, struct places *from) {
  for (unsigned i = 0; i < from->count; i++) {
    if (make_room(places) != 0) {
      /* Those before i have moved: they must not be freed twice. */
      for (unsigned j = i; j < from->count; j++) from->list[j - i] = from->list[j];
      from->count -= i;
      return -ENOMEM;
    }
    places->list[places->count++] = from->list[i];
  }
  from->count = 0;
  return 0;
}

int shmq__places_combine(const shmq_pin *pin, struct places *places, char operation,
                         struct places *operand) {
  hwloc_bitmap_t left = all_cpus(places);
  hwloc_bitmap_t right = all_cpus(operand);
  int rc = left != NULL && right != NULL ? 0 : -ENOMEM;
  if (rc == 0 && operation == 'x') rc = intersect(pin, places, right);
  if (rc == 0 && (operation == '~' || operation == '^')) rc = subtract(pin, places, right);
  if (rc == 0 && operation == '^') rc = subtract(pin, operand, left);
  if (rc == 0 && (operation == '^' || operation == '+')) rc = append(places, operand);
  hwloc_bitmap_free(left);
  hwloc_bitmap_free(right);
  return rc;
}
