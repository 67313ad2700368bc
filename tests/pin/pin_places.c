/* SPDX-License-Identifier: Apache-2.0
 *
 * Which CPUs a text of places names, on machines that are described and not there.
 */
#include "machine.h"

Test(pin_places, objects)
{
  static const struct expected table[] =
      {
          {"pu:3", "3"},         {"core:0", "0-1"},
          {"core:15", "30-31"},  {"package:1", "16-31"},
          {"l3:1", "8-15"},      {"L3:1", "8-15"},
          {"l3cache:1", "8-15"}, {"l2:4", "8-9"},
          {"numa:1", "16-31"},   {"numanode:0", "0-15"},
          {"machine:0", "0-31"}, {"all", "0-31"},
          {"root", "0-31"},      {"0:0", "0-31"},
          {"1:1", "16-31"}, /* the level below the machine */
      };
  EXPECT_ALL(open_machine(BIG), table);
}

Test(pin_places, indexes)
{
  static const struct expected table[] = {
      {"core:0-2", "0-1|2-3|4-5"},
      {"core:3-3", "6-7"},
      {"core:13-", "26-27|28-29|30-31"},
      {"core:14:4", "28-29|30-31|0-1|2-3"}, /* wraps round */
      {"core:2:1", "4-5"},
      {"l3:all", "0-7|8-15|16-23|24-31"},
      {"l3:odd", "8-15|24-31"},
      {"l3:even", "0-7|16-23"},
      {"package:odd", "16-31"},
      {"core:007", "14-15"},
  };
  EXPECT_ALL(open_machine(BIG), table);
}

Test(pin_places, inside)
{
  static const struct expected table[] = {
      {"l3:1.core:0-2", "8-9|10-11|12-13"},
      {"package:1.core:0", "16-17"},
      {"package:1.core:7.pu:1", "31"},
      {"package:all.core:0.pu:0", "0|16"},
      {"core:0-3.pu:1", "1|3|5|7"},
      {"numa:1.core:1", "18-19"},
      {"package:1.numa:0", "16-31"},
      {"package:0.l3:1.l2:2.core:0.pu:0", "12"},
      {"package:0.core:6:4", "12-13|14-15|0-1|2-3"},
  };
  EXPECT_ALL(open_machine(BIG), table);
}

Test(pin_places, masks)
{
  static const struct expected table[] = {
      {"0x1", "0"},
      {"0x80000000", "31"},
      {"0xff00", "8-15"},
      {"0x3 0xc", "0-1|2-3"},
      {"0x0,0x00000010", "4"},
      {"0xf...f", "0-31"},
      {"0xf...f,0xff", "0-7"},
      {"0x100000000",
       "error: '0x100000000' has CPUs that this process may not use; it may use 0-31"},
  };
  EXPECT_ALL(open_machine(BIG), table);
}

Test(pin_places, operators)
{
  static const struct expected table[] = {
      {"core:0 core:2", "0-1|4-5"},
      {"core:0 core:0", "0-1|0-1"}, /* two members on one core, when told so */
      {"  core:0\tcore:1\n", "0-1|2-3"},
      {"core:0-3 ~core:1", "0-1|4-5|6-7"},
      {"core:0-1 ~pu:0", "1|2-3"},
      {"core:0-3 ~0x5", "1|3|4-5|6-7"},
      {"core:0-3 xl2:1", "2-3"},
      {"core:0-1 x0x6", "1|2"},
      {"0xff ^0xf0", "0-3"},
      {"core:0-1 ^core:1-2", "0-1|4-5"},
      {"^core:1", "2-3"},
      {"all ~0xf...f,0xffff0000 package:1", "0-15|16-31"},
      {"compact ~package:0 ~l3:2", "24|26|28|30|25|27|29|31"},
      {"core:0 ~core:0", "error: no CPU is left over"},
      {"~core:0", "error: no CPU is left over"},
      {"core:0 x0xc0", "error: no CPU is left over"},
      {"core:0 ~0xffffffffffff", "error: no CPU is left over"}, /* taking out more than there is */
  };
  EXPECT_ALL(open_machine(BIG), table);
}

/* Indexes are logical, masks and what is shown are the system's numbers. */
Test(pin_places, numbered_as_linux_does)
{
  static const struct expected table[] = {
      {"core:0", "0,4"},
      {"core:1", "1,5"},
      {"pu:1", "4"},
      {"0x2", "1"},
      {"core:all.pu:0", "0|1|2|3"},
      {"compact", "0|1|2|3|4|5|6|7"},
      {"spread", "0|2|1|3|4|6|5|7"},
      {"package:1", "2-3,6-7"},
  };
  EXPECT_ALL(open_machine(NUMBERED), table);
}

/* Core 0 has two PUs, the other three have one. */
Test(pin_places, uneven_cores)
{
  static const struct expected table[] = {
      {"core:all", "0-1|2|4|6"},
      {"core:all.pu:0", "0|2|4|6"},
      {"core:all.pu:1", "1"}, /* of those that have one */
      {"core:0-.pu:1", "1"},
      {"core:1.pu:1",
       "error: 'core:1.pu:1': there is no pu:1, only pu:0 to pu:0, for this process"},
      {"core:1-.pu:1", "error: 'core:1-.pu:1' names nothing that this process may use"},
      {"spread", "0|2|4|6|1"},
      {"compact", "0|2|4|6|1"},
  };
  EXPECT_ALL(open_part("package:1 core:4 pu:2", "0-2,4,6"), table);
}

Test(pin_places, description)
{
  shmq_pin *pin = open_machine(BIG);
  shmq_bound bound;
  cr_assert_eq(shmq_pin_place(pin, "package:1.l3:1.core:2.pu:1", 0, &bound), 0);
  cr_expect_eq(bound.cpu, 29);
  cr_expect_eq(bound.cpus, 1);
  cr_expect_eq(bound.node, 1);
  cr_expect_str_eq(bound.where, "package:1 l3:3 l2:14 core:14 pu:29");
  cr_assert_eq(shmq_pin_place(pin, bound.where, 4, &bound), 0); /* can be typed back */
  cr_expect_str_eq(bound.list, "29");

  cr_assert_eq(shmq_pin_place(pin, "core:3", 0, &bound), 0);
  cr_expect_eq(bound.cpu, 6, "the lowest of a core");
  cr_expect_eq(bound.cpus, 2);
  cr_assert_eq(shmq_pin_place(pin, "l3:3", 0, &bound), 0);
  cr_expect_eq(bound.cpu, -1, "several cores");
  cr_expect_eq(bound.node, 1);
  cr_expect_str_eq(bound.where, "package:1 l3:3");
  cr_assert_eq(shmq_pin_place(pin, "none", 7, &bound), 0);
  cr_expect_eq(bound.cpus, 32);
  cr_expect_eq(bound.node, -1);
  cr_expect_eq(bound.shared, 0);
  cr_expect_str_eq(bound.where, "machine:0");
  cr_expect_eq(shmq_pin_count(pin, "none"), 0);
  shmq_pin_close(pin);
}

/* More members than places: from the first again, and it says so. */
Test(pin_places, used_again)
{
  shmq_pin *pin = open_machine(ONE_CPU);
  static const char *const texts[] = {"spread", "compact", "core:all", "0x1", "all"};
  for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
    for (unsigned member = 0; member < 3; member++) {
      shmq_bound bound;
      cr_assert_eq(shmq_pin_place(pin, texts[i], member, &bound), 0);
      cr_expect_str_eq(bound.list, "0");
      cr_expect_eq(bound.shared, member > 0, "%s, member %u", texts[i], member);
    }
  }
  shmq_pin_close(pin);
}

/* CPUs 0, 2, 4 ... 400: the list does not fit. */
Test(pin_places, long_list_is_cut)
{
  shmq_pin *pin = open_machine("package:1 core:201 pu:2");
  shmq_bound bound;
  char places[4096] = "all";
  for (int i = 0; i < 201; i++) snprintf(places + strlen(places), 16, " ~pu:%d", 2 * i + 1);
  cr_assert_eq(shmq_pin_place(pin, places, 0, &bound), 0, "%s", shmq_pin_error(pin));
  cr_expect_eq(bound.cpus, 201);
  cr_expect_eq(strlen(bound.list), sizeof(bound.list) - 1);
  cr_expect(strcmp(bound.list + strlen(bound.list) - 3, "...") == 0);
  shmq_pin_close(pin);
}

/* Each name can be typed, and names that object. */
static int name_means_it(const shmq_pin_object *object, void *ctx) {
  shmq_bound bound;
  cr_assert_eq(shmq_pin_place(ctx, object->name, 0, &bound), 0, "%s", object->name);
  cr_expect_str_eq(bound.list, object->list);
  cr_expect_eq(bound.cpus, object->cpus);
  return 0;
}

Test(pin_places, names)
{
  shmq_pin *pin = open_machine("package:2 [numa] die:2 group:2 l3:1 l2:2 l1:1 core:2 pu:2");
  cr_expect_eq(shmq_pin_walk(pin, name_means_it, pin), 0);
  shmq_pin_close(pin);
}

static int count_object(const shmq_pin_object *object, void *ctx) {
  unsigned *seen = ctx;
  if (strncmp(object->name, "numa:", 5) == 0) {
    cr_expect_eq(seen[1], seen[0] + 1, "below its package and before what else is there");
    seen[0]++;
  }
  if (strncmp(object->name, "package:", 8) == 0) seen[1]++;
  if (strncmp(object->name, "pu:", 3) == 0) {
    cr_expect_eq(object->index, seen[2]);
    cr_expect_eq(object->os_index, (int64_t)seen[2]);
    cr_expect_eq(object->depth, 5);
    seen[2]++;
  }
  if (strncmp(object->name, "l3:", 3) == 0) {
    cr_expect_eq(object->cpus, 8);
    cr_expect_eq(object->os_index, -1);
    cr_expect_gt(object->bytes, 0);
  }
  return strcmp(object->name, "pu:20") == 0 ? 42 : 0;
}

Test(pin_places, walk)
{
  unsigned seen[3] = {0};
  shmq_pin *pin = open_machine(BIG);
  cr_expect_eq(shmq_pin_walk(pin, count_object, seen), 42, "ends when told to");
  cr_expect_eq(seen[0], 2);
  cr_expect_eq(seen[2], 21);
  shmq_pin_close(pin);
}
