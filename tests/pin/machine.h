/* SPDX-License-Identifier: Apache-2.0
 *
 * Machines to test on. Every test runs in a process of its own, so the environment may be changed.
 */
#ifndef TESTS_PIN_MACHINE_H
#define TESTS_PIN_MACHINE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <hwloc.h>
#include <shmq/pin.h>

/* Two packages, each with a memory node and two L3; four L2 below each, of one core with two PUs.
 * CPUs 0-31. */
#define BIG "package:2 [numa] l3:2 l2:4 core:1 pu:2"
/* The same numbered as Linux does it: all cores first, then their second PUs. CPUs 0-7. */
#define NUMBERED "package:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)"
/* L2 caches that two cores share. CPUs 0-7. */
#define CLUSTERS "package:1 l3:2 l2:2 core:2 pu:1"
/* Two PUs a core, each with an L1 cache of its own, as virtual machines show it. CPUs 0-7. */
#define L1_IN_CORE "package:2 l3:1 l2:2 core:1 l1:2 pu:1"
#define ONE_CPU "package:1 core:1 pu:1"
#define NO_CACHE "package:1 core:4 pu:1"
#define ONE_CORE_OF_TWO "package:1 l3:1 l2:1 core:1 pu:2"

static inline shmq_pin *open_machine(const char *synthetic) {
  shmq_pin *pin = NULL;
  setenv("HWLOC_SYNTHETIC", synthetic, 1);
  int rc = shmq_pin_open(&pin);
  cr_assert_eq(rc, 0, "%s: %s", synthetic, shmq_strerror(rc));
  return pin;
}

/* A machine of which only some CPUs exist, which no synthetic description can say. */
static inline shmq_pin *open_part(const char *synthetic, const char *cpus) {
  char file[] = "/tmp/shmq.t-pin-XXXXXX";
  hwloc_topology_t topology;
  hwloc_bitmap_t kept = hwloc_bitmap_alloc();
  int fd = mkstemp(file);
  cr_assert_geq(fd, 0);
  close(fd);
  hwloc_topology_init(&topology);
  cr_assert_eq(hwloc_topology_set_synthetic(topology, synthetic), 0);
  cr_assert_eq(hwloc_topology_load(topology), 0);
  cr_assert_eq(hwloc_bitmap_list_sscanf(kept, cpus), 0);
  cr_assert_eq(hwloc_topology_restrict(topology, kept, 0), 0);
  cr_assert_eq(hwloc_topology_export_xml(topology, file, 0), 0);
  hwloc_bitmap_free(kept);
  hwloc_topology_destroy(topology);

  shmq_pin *pin = NULL;
  setenv("HWLOC_XMLFILE", file, 1);
  int rc = shmq_pin_open(&pin);
  unlink(file);
  cr_assert_eq(rc, 0, "%s", shmq_strerror(rc));
  return pin;
}

/* The CPUs of all places of a text: "0-1|4|5"; or "error: ..." */
static inline const char *list_places(shmq_pin *pin, const char *places) {
  static char text[4096];
  int count = shmq_pin_count(pin, places);
  size_t used = 0;
  if (count < 0) {
    snprintf(text, sizeof(text), "error: %s", shmq_pin_error(pin));
    return text;
  }
  text[0] = '\0';
  for (int i = 0; i < count && used < sizeof(text); i++) {
    shmq_bound bound;
    cr_assert_eq(shmq_pin_place(pin, places, (unsigned)i, &bound), 0);
    cr_assert_eq(bound.shared, 0);
    used +=
        (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i > 0 ? "|" : "", bound.list);
  }
  return text;
}

struct expected {
  const char *places, *lists;
};

static inline void expect_all(shmq_pin *pin, const struct expected *table, size_t rows) {
  for (size_t i = 0; i < rows; i++) {
    cr_expect_str_eq(list_places(pin, table[i].places), table[i].lists, "'%s' gave %s, expected %s",
                     table[i].places, list_places(pin, table[i].places), table[i].lists);
  }
  shmq_pin_close(pin);
}

#define EXPECT_ALL(pin, table) expect_all(pin, table, sizeof(table) / sizeof((table)[0]))

#endif
