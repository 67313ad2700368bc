/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of pin/ share. All of it is private to one process.
 */
#ifndef SHMQ_PIN_PLACES_H
#define SHMQ_PIN_PLACES_H

#include <stdbool.h>

#include <hwloc.h>
#include <shmq/pin.h>

struct shmq_pin {
  hwloc_topology_t topology;
  bool real; /* this machine's, so binding means something */
  char error[256];
};

struct place {
  hwloc_bitmap_t cpus;
  hwloc_bitmap_t nodes; /* memory nodes: the object's own ones, else those near its CPUs */
};

struct places {
  struct place *list;
  unsigned count, room;
  bool none; /* the word: the only place is everything, and it is not to be bound */
};

/* pin.c: keep the text for shmq_pin_error, with what is not printable made so. Returns `code`. */
int shmq__pin_fail(shmq_pin *pin, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* places.c. Each returns 0 or -ENOMEM. */
int shmq__places_add(struct places *places, hwloc_const_bitmap_t cpus, hwloc_const_bitmap_t nodes);
int shmq__places_add_object(struct places *places, hwloc_obj_t object);
int shmq__places_combine(const shmq_pin *pin, struct places *places, char operation,
                         struct places *operand);
void shmq__places_drop_empty(struct places *places); /* those without CPUs */
void shmq__places_clear(struct places *places);

/* parse.c: the places that a text names, never none at all. Errors as shmq_pin_count. */
int shmq__places_parse(shmq_pin *pin, const char *text, struct places *places);

/* policy.c: the words of our own. */
int shmq__places_spread(const shmq_pin *pin, struct places *places);
int shmq__places_compact(const shmq_pin *pin, struct places *places);
int shmq__places_pair(shmq_pin *pin, hwloc_obj_type_t cache, struct places *places);

/* describe.c. list is cut with "..." when it is too long. */
void shmq__pin_describe(const shmq_pin *pin, hwloc_const_bitmap_t cpus, shmq_bound *bound);
void shmq__pin_list(hwloc_const_bitmap_t set, char *list, size_t size);

#endif
