/* SPDX-License-Identifier: Apache-2.0
 *
 * Places in words, for people and tools.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "places.h"

void shmq__pin_list(hwloc_const_bitmap_t set, char *list, size_t size) {
  int length = hwloc_bitmap_list_snprintf(list, size, set);
  if (length >= (int)size) {
    memcpy(list + size - 4, "...", 4);
  }
}

/* Groups and smaller caches would only make the text long. */
static bool worth_naming(hwloc_obj_t object) {
  switch (object->type) {
  case HWLOC_OBJ_PACKAGE:
  case HWLOC_OBJ_DIE:
  case HWLOC_OBJ_L3CACHE:
  case HWLOC_OBJ_L2CACHE:
  case HWLOC_OBJ_CORE:
  case HWLOC_OBJ_PU: return true;
  default: return false;
  }
}

/* TYPE:INDEX of an object, as it can be typed. */
static int name_object(hwloc_obj_t object, char *text, size_t size) {
  char type[24] = "numa";
  if (object->type != HWLOC_OBJ_NUMANODE) {
    hwloc_obj_type_snprintf(type, sizeof(type), object, 0);
  }
  for (char *c = type; *c != '\0'; c++) *c = (char)tolower((unsigned char)*c);
  return snprintf(text, size, "%s:%u", type, object->logical_index);
}

/* The names of what is around an object, from the outside, and its own. Returns the length. */
static size_t name_outwards(hwloc_obj_t object, char *text, size_t size) {
  size_t used = object->parent != NULL ? name_outwards(object->parent, text, size) : 0;
  if (!worth_naming(object) || used + 1 >= size) return used;
  if (used > 0) text[used++] = ' ';
  return used + (size_t)name_object(object, text + used, size - used);
}

static void name_place(hwloc_obj_t around, char *text, size_t size) {
  if (name_outwards(around, text, size) == 0) snprintf(text, size, "machine:0");
}

static int32_t only_node(const shmq_pin *pin, hwloc_const_bitmap_t cpus) {
  hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
  int32_t node = -1;
  if (nodes != NULL && hwloc_cpuset_to_nodeset(pin->topology, cpus, nodes) == 0 &&
      hwloc_bitmap_weight(nodes) == 1) {
    node = hwloc_bitmap_first(nodes);
  }
  hwloc_bitmap_free(nodes);
  return node;
}

static bool within_core(hwloc_obj_t object) {
  while (object != NULL && object->type != HWLOC_OBJ_CORE) object = object->parent;
  return object != NULL;
}

void shmq__pin_describe(const shmq_pin *pin, hwloc_const_bitmap_t cpus, shmq_bound *bound) {
  /* NULL when the kernel tells of CPUs that were not there, or not allowed, when the topology was
   * loaded. */
  hwloc_obj_t around = hwloc_get_obj_covering_cpuset(pin->topology, cpus);
  int weight = hwloc_bitmap_weight(cpus);
  *bound = (shmq_bound){
      .cpu = -1, .cpus = weight > 0 ? (uint32_t)weight : 0, .node = only_node(pin, cpus)};
  if (weight == 1 || within_core(around)) bound->cpu = hwloc_bitmap_first(cpus);
  shmq__pin_list(cpus, bound->list, sizeof(bound->list));
  if (around != NULL) name_place(around, bound->where, sizeof(bound->where));
}

/* ---- the tree ---------------------------------------------------------------------------- */

static uint64_t bytes_of(hwloc_obj_t object) {
  if (object->type == HWLOC_OBJ_NUMANODE) return object->attr->numanode.local_memory;
  return hwloc_obj_type_is_cache(object->type) ? object->attr->cache.size : 0;
}

static void fill_object(hwloc_obj_t object, uint32_t depth, shmq_pin_object *out) {
  int weight = hwloc_bitmap_weight(object->cpuset);
  *out = (shmq_pin_object){
      .depth = depth,
      .index = object->logical_index,
      .os_index = object->os_index == HWLOC_UNKNOWN_INDEX ? -1 : (int64_t)object->os_index,
      .bytes = bytes_of(object),
      .cpus = weight > 0 ? (uint32_t)weight : 0};
  name_object(object, out->name, sizeof(out->name));
  shmq__pin_list(object->cpuset, out->list, sizeof(out->list));
}

static int walk(hwloc_obj_t object, uint32_t depth,
                int (*fn)(const shmq_pin_object *object, void *ctx), void *ctx) {
  shmq_pin_object filled;
  fill_object(object, depth, &filled);
  int rc = fn(&filled, ctx);
  for (hwloc_obj_t child = object->memory_first_child; rc == 0 && child != NULL;
       child = child->next_sibling) {
    rc = walk(child, depth + 1, fn, ctx);
  }
  for (hwloc_obj_t child = object->first_child; rc == 0 && child != NULL;
       child = child->next_sibling) {
    rc = walk(child, depth + 1, fn, ctx);
  }
  return rc;
}

int shmq_pin_walk(shmq_pin *pin, int (*fn)(const shmq_pin_object *object, void *ctx), void *ctx) {
  return walk(hwloc_get_root_obj(pin->topology), 0, fn, ctx);
}
