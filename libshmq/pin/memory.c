/* SPDX-License-Identifier: Apache-2.0
 *
 * Binding memory to NUMA nodes. Pages of a segment exist from its creation, on whatever node that
 * ran on, so binding means moving; and mbind(2) moves only pages that it finds in this process's
 * page tables, so they are brought in first. What the kernel did is then asked page by page.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "places.h"

/* Asked at a time: hwloc allocates 12 bytes for each page of a question. */
#define WINDOW_BYTES ((size_t)64 << 20)

struct area {
  char *start; /* whole pages */
  size_t bytes;
};

static struct area whole_pages(void *data, size_t bytes) {
  uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
  uintptr_t start = (uintptr_t)data & ~(page - 1);
  uintptr_t end = ((uintptr_t)data + bytes + page - 1) & ~(page - 1);
  return (struct area){(char *)start, end - start};
}

static int touch(struct area area) {
  if (madvise(area.start, area.bytes, MADV_POPULATE_READ) == 0) return 0;
  if (errno == ENOMEM || errno == EFAULT)
    return -EFAULT; /* a hole, or beyond the end of the file */
  if (errno != EINVAL) return -errno;
  size_t page = (size_t)sysconf(_SC_PAGESIZE); /* Linux before 5.14 */
  for (size_t at = 0; at < area.bytes; at += page) {
    (void)*(volatile const char *)(area.start + at);
  }
  return 0;
}

static const char *policy_name(hwloc_membind_policy_t policy) {
  switch (policy) {
  case HWLOC_MEMBIND_DEFAULT:
  case HWLOC_MEMBIND_FIRSTTOUCH: return "default";
  case HWLOC_MEMBIND_BIND: return "bind";
  case HWLOC_MEMBIND_INTERLEAVE: return "interleave";
  case HWLOC_MEMBIND_NEXTTOUCH: return "next-touch";
  case HWLOC_MEMBIND_MIXED: return "mixed";
  }
  return "unknown";
}

/* The policy of a window's first page; one mapping that was bound as a whole has one policy. */
static int read_policy(shmq_pin *pin, struct area window, hwloc_bitmap_t nodes,
                       shmq_bound_memory *memory) {
  hwloc_membind_policy_t policy = HWLOC_MEMBIND_DEFAULT;
  hwloc_bitmap_t some = hwloc_bitmap_alloc();
  int rc = some == NULL ? -1
                        : hwloc_get_area_membind(pin->topology, window.start, 1, some, &policy,
                                                 HWLOC_MEMBIND_BYNODESET);
  if (rc == 0) {
    const char *name = policy_name(policy);
    if (memory->policy[0] != '\0' && strcmp(memory->policy, name) != 0) name = "mixed";
    snprintf(memory->policy, sizeof(memory->policy), "%s", name);
    rc = hwloc_bitmap_or(nodes, nodes, some);
  }
  hwloc_bitmap_free(some);
  return rc;
}

static int read_pages(shmq_pin *pin, struct area window, hwloc_bitmap_t nodes) {
  hwloc_bitmap_t some = hwloc_bitmap_alloc();
  int rc = some == NULL ? -1
                        : hwloc_get_area_memlocation(pin->topology, window.start, window.bytes,
                                                     some, HWLOC_MEMBIND_BYNODESET);
  if (rc == 0) rc = hwloc_bitmap_or(nodes, nodes, some);
  hwloc_bitmap_free(some);
  return rc;
}

/* Fill in what the kernel tells; what it does not tell stays empty. */
static void read_back(shmq_pin *pin, struct area area, hwloc_const_bitmap_t wanted,
                      shmq_bound_memory *memory) {
  hwloc_bitmap_t policy = hwloc_bitmap_alloc();
  hwloc_bitmap_t pages = hwloc_bitmap_alloc();
  bool told = policy != NULL && pages != NULL;
  for (size_t at = 0; told && at < area.bytes; at += WINDOW_BYTES) {
    size_t left = area.bytes - at;
    struct area window = {area.start + at, left < WINDOW_BYTES ? left : WINDOW_BYTES};
    told = read_policy(pin, window, policy, memory) == 0 && read_pages(pin, window, pages) == 0;
  }
  if (told) {
    shmq__pin_list(policy, memory->nodes, sizeof(memory->nodes));
    shmq__pin_list(pages, memory->pages, sizeof(memory->pages));
    memory->there = !hwloc_bitmap_iszero(pages) && hwloc_bitmap_isincluded(pages, wanted);
  }
  hwloc_bitmap_free(policy);
  hwloc_bitmap_free(pages);
}

/* Returns 0, also when some page would not move: reading back tells. */
static int bind_pages(shmq_pin *pin, struct area area, hwloc_const_bitmap_t nodes) {
  const int flags = HWLOC_MEMBIND_BYNODESET | HWLOC_MEMBIND_STRICT | HWLOC_MEMBIND_MIGRATE;
  if (hwloc_set_area_membind(pin->topology, area.start, area.bytes, nodes, HWLOC_MEMBIND_BIND,
                             flags) == 0 ||
      errno == EIO) {
    return 0;
  }
  int error = errno;
  return shmq__pin_fail(pin, -error, "binding %zu bytes of memory: %s", area.bytes,
                        strerror(error));
}

static bool has_one_node(const shmq_pin *pin) {
  return hwloc_bitmap_weight(hwloc_topology_get_topology_nodeset(pin->topology)) == 1;
}

static int bind_area(shmq_pin *pin, struct area area, const struct places *places,
                     hwloc_const_bitmap_t nodes, shmq_bound_memory *memory) {
  if (!pin->real) {
    return shmq__pin_fail(pin, -EOPNOTSUPP,
                          "the topology is not this machine's: no memory was bound");
  }
  int rc = touch(area);
  if (rc != 0)
    return shmq__pin_fail(pin, rc, "there is no memory at %p: %s", (void *)area.start,
                          strerror(-rc));
  if (!places->none) rc = bind_pages(pin, area, nodes);
  if ((rc == -ENOSYS || rc == -EPERM) && has_one_node(pin)) rc = 0;
  if (rc != 0) return rc;
  read_back(pin, area, nodes, memory);
  if (places->none || (has_one_node(pin) && memory->pages[0] == '\0')) memory->there = 1;
  return 0;
}

static int union_of_nodes(shmq_pin *pin, const char *text, const struct places *places,
                          hwloc_bitmap_t nodes) {
  for (unsigned i = 0; i < places->count; i++) {
    if (hwloc_bitmap_or(nodes, nodes, places->list[i].nodes) != 0) {
      return shmq__pin_fail(pin, -ENOMEM, "out of memory");
    }
  }
  return hwloc_bitmap_iszero(nodes)
             ? shmq__pin_fail(pin, -ENOENT, "'%s': no memory node is near", text)
             : 0;
}

int shmq_pin_area(shmq_pin *pin, void *data, size_t bytes, const char *text,
                  shmq_bound_memory *memory) {
  shmq_bound_memory ignored;
  if (memory == NULL) memory = &ignored;
  *memory = (shmq_bound_memory){0};
  if (bytes == 0) return shmq__pin_fail(pin, -EINVAL, "there are no bytes to bind");

  struct places places;
  int rc = shmq__places_parse(pin, text, &places);
  if (rc != 0) return rc;
  struct area area = whole_pages(data, bytes);
  memory->bytes = area.bytes;
  hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
  rc = nodes != NULL ? union_of_nodes(pin, text, &places, nodes)
                     : shmq__pin_fail(pin, -ENOMEM, "out of memory");
  if (rc == 0) rc = bind_area(pin, area, &places, nodes, memory);
  hwloc_bitmap_free(nodes);
  shmq__places_clear(&places);
  return rc;
}

int shmq_pin_segment(shmq_pin *pin, shmq_segment *segment, const char *text,
                     shmq_bound_memory *memory) {
  size_t bytes = 0;
  void *data = shmq_segment_memory(segment, &bytes);
  return shmq_pin_area(pin, data, bytes, text, memory);
}
