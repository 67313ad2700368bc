/* SPDX-License-Identifier: Apache-2.0
 *
 * Binding threads to places, and what the kernel made of it.
 */
#include <errno.h>
#include <string.h>

#include <hwloc/linux.h>

#include "places.h"

/* The places of a text that threads can run on. */
static int parse(shmq_pin *pin, const char *text, struct places *places) {
  int rc = shmq__places_parse(pin, text, places);
  if (rc != 0) return rc;
  shmq__places_drop_empty(places);
  if (places->count > 0) return 0;
  shmq__places_clear(places);
  return shmq__pin_fail(pin, -ENOENT, "'%s' is memory without a CPU that this process may use",
                        text);
}

int shmq_pin_count(shmq_pin *pin, const char *text) {
  struct places places;
  int rc = parse(pin, text, &places);
  if (rc == 0) {
    rc = places.none ? 0 : (int)places.count;
    shmq__places_clear(&places);
  }
  return rc;
}

/* Place i of a text; its CPUs are the caller's to free. */
static int find_place(shmq_pin *pin, const char *text, unsigned i, hwloc_bitmap_t *cpus,
                      shmq_bound *bound, bool *none) {
  struct places places;
  int rc = parse(pin, text, &places);
  *bound = (shmq_bound){.cpu = -1, .node = -1}; /* not before: the text may stand in it */
  if (rc != 0) return rc;
  *none = places.none;
  *cpus = hwloc_bitmap_dup(places.list[i % places.count].cpus);
  bool shared = !places.none && i >= places.count;
  shmq__places_clear(&places);
  if (*cpus == NULL) return shmq__pin_fail(pin, -ENOMEM, "out of memory");
  shmq__pin_describe(pin, *cpus, bound);
  bound->shared = shared;
  return 0;
}

int shmq_pin_place(shmq_pin *pin, const char *text, unsigned i, shmq_bound *bound) {
  hwloc_bitmap_t cpus;
  bool none;
  int rc = find_place(pin, text, i, &cpus, bound, &none);
  if (rc == 0) hwloc_bitmap_free(cpus);
  return rc;
}

static int imagined(shmq_pin *pin) {
  return shmq__pin_fail(
      pin, -EOPNOTSUPP,
      "the topology is not this machine's (HWLOC_SYNTHETIC or HWLOC_XMLFILE without "
      "HWLOC_THISSYSTEM=1): nothing was bound");
}

/* What the kernel lets the thread run on. */
static int read_back(shmq_pin *pin, pid_t tid, hwloc_bitmap_t cpus) {
  if (hwloc_linux_get_tid_cpubind(pin->topology, tid, cpus) == 0) return 0;
  int error = errno;
  return shmq__pin_fail(pin, -error, "reading the CPUs of thread %d: %s", (int)tid,
                        strerror(error));
}

static int where(shmq_pin *pin, pid_t tid, hwloc_bitmap_t cpus, shmq_bound *bound) {
  if (!pin->real) return imagined(pin);
  int rc = read_back(pin, tid, cpus);
  if (rc == 0) shmq__pin_describe(pin, cpus, bound);
  return rc;
}

int shmq_pin_where(shmq_pin *pin, pid_t tid, shmq_bound *bound) {
  hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
  int rc =
      cpus != NULL ? where(pin, tid, cpus, bound) : shmq__pin_fail(pin, -ENOMEM, "out of memory");
  hwloc_bitmap_free(cpus);
  return rc;
}

static int set_cpus(shmq_pin *pin, pid_t tid, hwloc_const_bitmap_t cpus, const char *list) {
  if (!pin->real) return imagined(pin);
  if (hwloc_linux_set_tid_cpubind(pin->topology, tid, cpus) == 0) return 0;
  int error = errno;
  if (error == EINVAL) { /* sched_setaffinity(2): none of them is there and allowed any more */
    return shmq__pin_fail(pin, -ENOSPC, "CPU %s is not, or not any more, one that may be used",
                          list);
  }
  return shmq__pin_fail(pin, -error, "binding thread %d to CPU %s: %s", (int)tid, list,
                        strerror(error));
}

/* Compare what was asked with what the kernel says. */
static int verify(shmq_pin *pin, pid_t tid, hwloc_const_bitmap_t asked, shmq_bound *bound) {
  char list[64];
  hwloc_bitmap_t got = hwloc_bitmap_alloc();
  int rc =
      got != NULL ? where(pin, tid, got, bound) : shmq__pin_fail(pin, -ENOMEM, "out of memory");
  if (rc == 0 && !hwloc_bitmap_isequal(asked, got)) {
    shmq__pin_list(asked, list, sizeof(list));
    rc =
        shmq__pin_fail(pin, -ENOSPC, "asked for CPU %s, the kernel gave %s: the cpuset was changed",
                       list, bound->list);
  }
  hwloc_bitmap_free(got);
  return rc;
}

static int bind_and_verify(shmq_pin *pin, pid_t tid, const char *text, unsigned i,
                           shmq_bound *bound) {
  hwloc_bitmap_t cpus;
  bool none;
  int rc = find_place(pin, text, i, &cpus, bound, &none);
  if (rc != 0) return rc;
  if (none) {
    rc = pin->real ? shmq_pin_where(pin, tid, bound) : 0;
  } else {
    uint32_t shared = bound->shared;
    rc = set_cpus(pin, tid, cpus, bound->list);
    if (rc == 0) rc = verify(pin, tid, cpus, bound);
    bound->shared = shared;
  }
  hwloc_bitmap_free(cpus);
  return rc;
}

int shmq_pin_thread(shmq_pin *pin, pid_t tid, const char *text, unsigned i, shmq_bound *bound) {
  shmq_bound ignored;
  return bind_and_verify(pin, tid, text, i, bound != NULL ? bound : &ignored);
}

int shmq_pin_self(shmq_pin *pin, const char *text, unsigned i, shmq_segment *segment,
                  shmq_bound *bound) {
  shmq_bound mine;
  if (bound == NULL) bound = &mine;
  int rc = shmq_pin_thread(pin, 0, text, i, bound);
  if (rc == 0 && segment != NULL) shmq_set_cpu(segment, bound->cpu);
  return rc;
}
