/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts of places: the location syntax of hwloc(7). hwloc has it in its tools only, not in its
 * library.
 *
 *   places   = "none" | "pair:l2" | "pair:l3" | location { blank location }
 *   location = [ "~" | "x" | "^" ] ( "spread" | "compact" | "all" | "root" | mask | tuples )
 *   tuples   = TYPE ":" index { "." TYPE ":" index }
 *   index    = N | N "-" | N "-" M | N ":" COUNT | "all" | "odd" | "even"
 *   mask     = "0x" ...   as hwloc_bitmap_sscanf takes it
 *
 * Stricter than hwloc-calc, which warns and goes on where we refuse: an object that is not there,
 * a CPU that may not be used, N-M with M below N.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "places.h"

#define BLANKS " \t\n\r"

/* The indexes that a tuple names among n objects. `open`: it takes what there is. */
struct range {
  unsigned first, count, step;
  bool open;
};

/* A whole number at *text, which moves behind it. */
static bool number(const char **text, unsigned *value) {
  size_t digits = strspn(*text, "0123456789");
  if (digits == 0 || digits > 9) return false;
  *value = (unsigned)strtoul(*text, NULL, 10);
  *text += digits;
  return true;
}

/* Returns 0, -EINVAL not an index, -ENOENT beyond the n objects. */
static int parse_range(const char *text, unsigned n, struct range *range) {
  unsigned last = 0;
  *range = (struct range){.count = n, .step = 1, .open = true};
  if (strcmp(text, "all") == 0) return n > 0 ? 0 : -ENOENT;
  if (strcmp(text, "even") == 0 || strcmp(text, "odd") == 0) {
    range->step = 2;
    range->first = text[0] == 'o';
    range->count = (n + 1 - range->first) / 2;
    return range->count > 0 ? 0 : -ENOENT;
  }
  if (!number(&text, &range->first)) return -EINVAL;
  if (strcmp(text, "-") == 0) {
    if (range->first >= n) return -ENOENT;
    range->count = n - range->first;
    return 0;
  }
  range->open = false;
  range->count = 1;
  if (*text == '-') {
    text++;
    if (!number(&text, &last) || last < range->first) return -EINVAL;
    range->count = last - range->first + 1;
    if (last >= n) return *text == '\0' ? -ENOENT : -EINVAL;
  } else if (*text == ':') {
    text++;
    if (!number(&text, &range->count) || range->count == 0) return -EINVAL;
  }
  if (*text != '\0') return -EINVAL;
  return range->first < n && range->count <= n ? 0 : -ENOENT;
}

/* The level of the tree that a type names. */
static int parse_type(shmq_pin *pin, const char *word, const char *type, int *depth) {
  hwloc_obj_type_t kind;
  if (type[strspn(type, "0123456789")] == '\0') {
    const char *rest = type;
    unsigned level = 0;
    if (!number(&rest, &level) || level >= (unsigned)hwloc_topology_get_depth(pin->topology)) {
      return shmq__pin_fail(pin, -ENOENT, "'%s': the tree has no level '%s'", word, type);
    }
    *depth = (int)level;
    return 0;
  }
  if (hwloc_type_sscanf_as_depth(type, &kind, pin->topology, depth) != 0 ||
      !(hwloc_obj_type_is_normal(kind) || hwloc_obj_type_is_memory(kind))) {
    return shmq__pin_fail(pin, -EINVAL, "'%s': '%s' is not a kind of place", word, type);
  }
  if (*depth == HWLOC_TYPE_DEPTH_MULTIPLE) {
    return shmq__pin_fail(
        pin, -EINVAL, "'%s': there are several levels of '%s', name one by its number", word, type);
  }
  return 0;
}

/* The objects of a level inside another object, in logical order; NULL and errno when there is no
 * memory. */
static hwloc_obj_t *objects_inside(const shmq_pin *pin, hwloc_obj_t outer, int depth,
                                   unsigned *count) {
  unsigned most = hwloc_get_nbobjs_by_depth(pin->topology, depth);
  hwloc_obj_t *list = calloc((size_t)most + 1, sizeof(hwloc_obj_t));
  *count = 0;
  for (unsigned i = 0; list != NULL && i < most; i++) {
    hwloc_obj_t object = hwloc_get_obj_by_depth(pin->topology, depth, i);
    /* Memory nodes without CPUs are inside the machine only. */
    if (outer->parent == NULL || (hwloc_bitmap_isincluded(object->cpuset, outer->cpuset) &&
                                  !hwloc_bitmap_iszero(object->cpuset))) {
      list[(*count)++] = object;
    }
  }
  return list;
}

/* One location while it is read. */
struct reading {
  shmq_pin *pin;
  const char *word; /* all of it, for complaints */
  struct places *found;
};

static int parse_tuples(struct reading *reading, const char *text, hwloc_obj_t outer, bool lenient);

static int take_object(struct reading *reading, const char *rest, hwloc_obj_t object,
                       bool lenient) {
  return rest != NULL ? parse_tuples(reading, rest, object, lenient)
                      : shmq__places_add_object(reading->found, object);
}

struct tuple {
  char type[24], index[24];
};

/* The first tuple of a text. *rest is what stands behind the dot, NULL: it was the last one. */
static int split_tuple(struct reading *reading, const char *text, struct tuple *tuple,
                       const char **rest) {
  size_t type = strcspn(text, ":.");
  size_t index = text[type] == ':' ? strcspn(text + type + 1, ".") : 0;
  if (type == 0 || type >= sizeof(tuple->type) || index == 0 || index >= sizeof(tuple->index)) {
    return shmq__pin_fail(reading->pin, -EINVAL, "'%s': '%s' is not TYPE:INDEX", reading->word,
                          text);
  }
  *tuple = (struct tuple){0};
  memcpy(tuple->type, text, type);
  memcpy(tuple->index, text + type + 1, index);
  text += type + 1 + index;
  *rest = *text == '.' ? text + 1 : NULL;
  return 0;
}

static int complain_range(struct reading *reading, int rc, const struct tuple *tuple,
                          unsigned count) {
  shmq_pin *pin = reading->pin;
  const char *word = reading->word, *type = tuple->type, *index = tuple->index;
  if (rc == -EINVAL) {
    return shmq__pin_fail(pin, rc,
                          "'%s': '%s' is not an index: write N, N-M, N-, N:COUNT, all, odd or even",
                          word, index);
  }
  if (count == 0) {
    return shmq__pin_fail(pin, rc, "'%s': there is no '%s' that this process may use", word, type);
  }
  return shmq__pin_fail(pin, rc, "'%s': there is no %s:%s, only %s:0 to %s:%u, for this process",
                        word, type, index, type, type, count - 1);
}

/* TYPE:INDEX[.REST] below `outer`. lenient: what stands before took all there is of something, so
 * that an index that one of them lacks is passed over, like the second PU of cores of which some
 * have one. */
static int parse_tuples(struct reading *reading, const char *text, hwloc_obj_t outer,
                        bool lenient) {
  struct tuple tuple;
  struct range range;
  const char *rest = NULL;
  int depth = 0;
  unsigned count = 0;
  int rc = split_tuple(reading, text, &tuple, &rest);
  if (rc == 0) rc = parse_type(reading->pin, reading->word, tuple.type, &depth);
  if (rc != 0) return rc;

  hwloc_obj_t *objects = objects_inside(reading->pin, outer, depth, &count);
  if (objects == NULL) return -ENOMEM;
  rc = parse_range(tuple.index, count, &range);
  if (rc == -EINVAL || (rc == -ENOENT && !lenient)) {
    rc = complain_range(reading, rc, &tuple, count);
  } else if (rc == -ENOENT) {
    rc = 0;
  } else {
    for (unsigned i = 0; rc == 0 && i < range.count; i++) {
      hwloc_obj_t object = objects[(range.first + i * range.step) % count];
      rc = take_object(reading, rest, object, lenient || range.open);
    }
  }
  free(objects);
  return rc;
}

/* hwloc_bitmap_sscanf would pass over what follows the dots. */
static bool is_mask(const char *word, hwloc_bitmap_t cpus) {
  static const char endless[] = "0xf...f";
  size_t length = strlen(endless);
  if (strncmp(word, endless, length) == 0 && word[length] != '\0' && word[length] != ',')
    return false;
  return word[2] != '\0' && hwloc_bitmap_sscanf(cpus, word) == 0;
}

/* May these CPUs be used? A set without end means all that there is of it; a finite one means
 * what it says. */
static bool may_use(hwloc_const_bitmap_t cpus, hwloc_const_bitmap_t usable) {
  return hwloc_bitmap_last(cpus) < 0 ? hwloc_bitmap_intersects(cpus, usable)
                                     : hwloc_bitmap_isincluded(cpus, usable);
}

static int parse_mask(struct reading *reading, char operation) {
  shmq_pin *pin = reading->pin;
  const char *word = reading->word;
  hwloc_const_bitmap_t usable = hwloc_topology_get_topology_cpuset(pin->topology);
  hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
  hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
  bool adds = operation == '+' || operation == '^';
  char list[64];
  int rc = -ENOMEM;
  if (cpus == NULL || nodes == NULL) goto out;
  if (!is_mask(word, cpus)) {
    rc = shmq__pin_fail(pin, -EINVAL, "'%s' is not a CPU set: write 0xf, 0x1,0x00000000 or 0xf...f",
                        word);
  } else if (hwloc_bitmap_iszero(cpus)) {
    rc = shmq__pin_fail(pin, -EINVAL, "'%s' names no CPU", word);
  } else if (adds && !may_use(cpus, usable)) {
    shmq__pin_list(usable, list, sizeof(list));
    rc = shmq__pin_fail(pin, -ENOSPC, "'%s' has CPUs that this process may not use; it may use %s",
                        word, list);
  } else if (hwloc_bitmap_and(cpus, cpus, usable) == 0 &&
             hwloc_cpuset_to_nodeset(pin->topology, cpus, nodes) == 0) {
    rc = shmq__places_add(reading->found, cpus, nodes);
  }
out:
  hwloc_bitmap_free(cpus);
  hwloc_bitmap_free(nodes);
  return rc;
}

static int parse_location(struct reading *reading, char operation) {
  const char *word = reading->word;
  const shmq_pin *pin = reading->pin;
  hwloc_obj_t root = hwloc_get_root_obj(pin->topology);
  if (strcmp(word, "all") == 0 || strcmp(word, "root") == 0) {
    return shmq__places_add_object(reading->found, root);
  }
  if (strcmp(word, "spread") == 0) return shmq__places_spread(pin, reading->found);
  if (strcmp(word, "compact") == 0) return shmq__places_compact(pin, reading->found);
  if (strncmp(word, "0x", 2) == 0) return parse_mask(reading, operation);
  if (strchr(word, ':') == NULL) {
    return shmq__pin_fail(
        reading->pin, -EINVAL,
        "'%s' is not a place: write TYPE:INDEX, a CPU set 0x..., all, spread, compact, "
        "pair:l2, pair:l3 or none",
        word);
  }
  return parse_tuples(reading, word, root, false);
}

/* One word: operator and location, into `places`. */
static int parse_word(shmq_pin *pin, const char *word, struct places *places) {
  struct places found = {0};
  char operation = '+';
  if (strchr("~x^", word[0]) != NULL) operation = *word++;
  struct reading reading = {pin, word, &found};
  int rc;
  if (strcmp(word, "none") == 0 || strncmp(word, "pair:", 5) == 0) {
    rc = shmq__pin_fail(pin, -EINVAL, "'%s' stands alone", word);
  } else {
    rc = parse_location(&reading, operation);
  }
  if (rc == 0 && found.count == 0) {
    rc = shmq__pin_fail(pin, -ENOENT, "'%s' names nothing that this process may use", word);
  }
  if (rc == 0) rc = shmq__places_combine(pin, places, operation, &found);
  shmq__places_clear(&found);
  return rc;
}

static int parse_words(shmq_pin *pin, char *text, struct places *places) {
  int rc = 0;
  char *rest = NULL;
  for (char *word = strtok_r(text, BLANKS, &rest); rc == 0 && word != NULL;
       word = strtok_r(NULL, BLANKS, &rest)) {
    rc = parse_word(pin, word, places);
  }
  if (rc == 0 && places->count == 0) {
    rc = shmq__pin_fail(pin, -ENOSPC, "no CPU is left over");
  }
  return rc;
}

/* The words that stand alone. Returns 1 when it was none of them. */
static int parse_alone(shmq_pin *pin, const char *text, struct places *places) {
  if (strcmp(text, "none") == 0) {
    places->none = true;
    return shmq__places_add_object(places, hwloc_get_root_obj(pin->topology));
  }
  if (strcmp(text, "pair:l2") == 0) return shmq__places_pair(pin, HWLOC_OBJ_L2CACHE, places);
  if (strcmp(text, "pair:l3") == 0) return shmq__places_pair(pin, HWLOC_OBJ_L3CACHE, places);
  if (strncmp(text, "pair:", 5) == 0 && strpbrk(text, BLANKS) == NULL) {
    return shmq__pin_fail(
        pin, -EINVAL, "'%s': a pair shares an L2 or an L3 cache: write pair:l2 or pair:l3", text);
  }
  return 1;
}

int shmq__places_parse(shmq_pin *pin, const char *text, struct places *places) {
  char copy[SHMQ_PLACES_MAX + 1];
  *places = (struct places){0};
  text += strspn(text, BLANKS);
  size_t length = strnlen(text, sizeof(copy));
  if (length == 0) return shmq__pin_fail(pin, -EINVAL, "no place is named: the text is empty");
  if (length > SHMQ_PLACES_MAX) {
    return shmq__pin_fail(pin, -EINVAL, "the text is longer than %d bytes", SHMQ_PLACES_MAX);
  }
  memcpy(copy, text, length + 1);
  while (strchr(BLANKS, copy[length - 1]) != NULL) copy[--length] = '\0';

  int rc = parse_alone(pin, copy, places);
  if (rc == 1) rc = parse_words(pin, copy, places);
  if (rc == -ENOMEM) shmq__pin_fail(pin, rc, "out of memory");
  if (rc != 0) shmq__places_clear(places);
  return rc;
}
