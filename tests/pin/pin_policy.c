/* SPDX-License-Identifier: Apache-2.0
 *
 * spread, compact and pair.
 */
#include "machine.h"

Test(pin_policy, spread)
{
  static const struct expected table[] = {
      {"spread",
       "0|16|8|24|2|18|10|26|4|20|12|28|6|22|14|30|1|17|9|25|3|19|11|27|5|21|13|29|7|23|15|31"},
      {"spread xpackage:0", "0|8|2|10|4|12|6|14|1|9|3|11|5|13|7|15"},
  };
  EXPECT_ALL(open_machine(BIG), table);
}

Test(pin_policy, compact)
{
  static const struct expected table[] = {
      {"compact",
       "0|2|4|6|8|10|12|14|16|18|20|22|24|26|28|30|1|3|5|7|9|11|13|15|17|19|21|23|25|27|29|31"},
  };
  EXPECT_ALL(open_machine(BIG), table);
}

/* No second PU before every core has a member, also where packages differ in size. */
Test(pin_policy, spread_fills_cores_first)
{
  static const struct expected table[] = {
      {"spread", "0|8|2|4|6|1|9|3|5|7"},
  };
  EXPECT_ALL(open_part("package:2 core:4 pu:2", "0-9"), table);
}

Test(pin_policy, pairs)
{
  static const struct expected table[] = {
      /* Each L2 has one core: its two PUs. */
      {"pair:l2",
       "0|1|2|3|4|5|6|7|8|9|10|11|12|13|14|15|16|17|18|19|20|21|22|23|24|25|26|27|28|29|30|31"},
      /* One pair in each L3, then a second one. */
      {"pair:l3", "0|2|8|10|16|18|24|26|4|6|12|14|20|22|28|30"},
  };
  EXPECT_ALL(open_machine(BIG), table);
}

Test(pin_policy, pairs_of_cores)
{
  static const struct expected table[] = {
      {"pair:l2", "0|1|2|3|4|5|6|7"}, {"pair:l3", "0|2|4|6|1|3|5|7"}, /* different L2 */
  };
  EXPECT_ALL(open_machine(CLUSTERS), table);
}

/* An L2 of two cores goes before one of two PUs; a lone core has no partner. */
Test(pin_policy, uneven_pairs)
{
  static const struct expected table[] = {
      {"pair:l2",
       "0|2"}, /* CPUs 0-3 are two cores below one L2; 4 and 5 are one core below another */
      {"pair:l3", "0|4"},
  };
  EXPECT_ALL(open_part("package:1 l3:1 l2:2 core:2 pu:2", "0-5"), table);
}

/* The PUs of a core are told from those of its neighbour, whatever stands between PU and core. */
Test(pin_policy, caches_inside_cores)
{
  static const struct expected table[] = {
      {"core:all", "0-1|2-3|4-5|6-7"}, {"spread", "0|4|2|6|1|5|3|7"},
      {"compact", "0|2|4|6|1|3|5|7"},  {"pair:l2", "0|1|2|3|4|5|6|7"},
      {"pair:l3", "0|2|4|6"},
  };
  EXPECT_ALL(open_machine(L1_IN_CORE), table);
}

/* Every pair must be what it is called, on machines of many shapes. */
static void check_pair(hwloc_topology_t topology, hwloc_obj_type_t type, int a, int b,
                       const char *machine) {
  hwloc_obj_t one = hwloc_get_pu_obj_by_os_index(topology, (unsigned)a);
  hwloc_obj_t other = hwloc_get_pu_obj_by_os_index(topology, (unsigned)b);
  cr_expect_neq(a, b);
  cr_expect_eq(hwloc_get_ancestor_obj_by_type(topology, type, one),
               hwloc_get_ancestor_obj_by_type(topology, type, other), "%s: %d and %d", machine, a,
               b);
  if (type == HWLOC_OBJ_L3CACHE) {
    cr_expect_neq(hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, one),
                  hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, other), "%s: %d and %d",
                  machine, a, b);
  }
}

static int check_pairs(const char *machine, const char *places, hwloc_obj_type_t type) {
  hwloc_topology_t topology;
  hwloc_topology_init(&topology);
  hwloc_topology_set_synthetic(topology, machine);
  cr_assert_eq(hwloc_topology_load(topology), 0);
  shmq_pin *pin = open_machine(machine);
  int count = shmq_pin_count(pin, places);
  bool used[64] = {false};
  for (int i = 0; i + 1 < count; i += 2) {
    shmq_bound a, b;
    cr_assert_eq(shmq_pin_place(pin, places, (unsigned)i, &a), 0);
    cr_assert_eq(shmq_pin_place(pin, places, (unsigned)i + 1, &b), 0);
    check_pair(topology, type, a.cpu, b.cpu, machine);
    cr_expect(!used[a.cpu] && !used[b.cpu], "%s: a CPU in two pairs", machine);
    used[a.cpu] = used[b.cpu] = true;
  }
  shmq_pin_close(pin);
  hwloc_topology_destroy(topology);
  return count;
}

Test(pin_policy, pairs_are_what_they_are_called)
{
  for (int l3 = 1; l3 <= 3; l3++) {
    for (int l2 = 1; l2 <= 3; l2++) {
      for (int cores = 1; cores <= 3; cores++) {
        for (int pus = 1; pus <= 2; pus++) {
          char machine[128];
          snprintf(machine, sizeof(machine), "package:1 l3:%d l2:%d core:%d pu:%d", l3, l2, cores,
                   pus);
          int near = check_pairs(machine, "pair:l2", HWLOC_OBJ_L2CACHE);
          int far = check_pairs(machine, "pair:l3", HWLOC_OBJ_L3CACHE);
          int in_l2 = cores > 1 ? cores : pus;
          cr_expect_eq(near, in_l2 > 1 ? l3 * l2 * (in_l2 & ~1) : -ENOSPC, "%s: %d", machine, near);
          int in_l3 = l2 * cores;
          cr_expect_eq(far, in_l3 > 1 ? l3 * (in_l3 & ~1) : -ENOSPC, "%s: %d", machine, far);
        }
      }
    }
  }
}

Test(pin_policy, no_pairs)
{
  static const struct expected one[] = {
      {"pair:l2", "error: the system shows no L2 cache on this machine"},
      {"pair:l3", "error: the system shows no L3 cache on this machine"},
  };
  EXPECT_ALL(open_machine(ONE_CPU), one);
  EXPECT_ALL(open_machine(NO_CACHE), one);
  static const struct expected two[] = {
      {"pair:l2", "0|1"},
      {"pair:l3", "error: no L3 cache is shared by two cores that this process may use"},
  };
  EXPECT_ALL(open_machine(ONE_CORE_OF_TWO), two);
}

Test(pin_policy, nothing_but_cpus)
{
  static const struct expected table[] = {
      {"spread", "0|1|2|3"},
      {"compact", "0|1|2|3"},
      {"all", "0-3"},
      {"package:0", "error: 'package:0': there is no 'package' that this process may use"},
      {"l3:0", "error: 'l3:0': there is no 'l3' that this process may use"},
  };
  EXPECT_ALL(open_machine("pu:4"), table);
}
