/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "supervisor/restart.h"

static const int64_t ms = 1000000, second = 1000000000;
static const struct restart_policy policy = {.first_ns = 100000000,
                                             .most_ns = 30000000000,
                                             .reset_ns = 60000000000,
                                             .failures = 5,
                                             .within_ns = 10000000000};

Test(restart, the_delay_doubles_up_to_the_longest)
{
  struct restart r = {0};
  int64_t wanted = 100 * ms, now = 0;
  for (int i = 0; i < 20; i++) {
    cr_assert_eq(restart_after(&r, &policy, now, now + second, 0), wanted / 4 * 3, "%d", i);
    now += 20 * second;
    wanted = 2 * wanted < 30 * second ? 2 * wanted : 30 * second;
  }
}

Test(restart, the_delay_is_spread_by_a_quarter)
{
  for (uint64_t random = 0; random <= UINT32_MAX; random += UINT32_MAX / 16) {
    struct restart r = {0};
    int64_t delay = restart_after(&r, &policy, 0, second, (uint32_t)random);
    cr_assert(delay >= 75 * ms && delay <= 125 * ms, "%ld", (long)delay);
  }
}

Test(restart, who_lived_long_begins_anew)
{
  struct restart r = {0};
  for (int i = 0; i < 4; i++) restart_after(&r, &policy, 20 * i * second, (20 * i + 1) * second, 0);
  cr_assert_eq(restart_after(&r, &policy, 100 * second, 159 * second, 0), 1600 * ms / 4 * 3);
  cr_assert_eq(restart_after(&r, &policy, 200 * second, 260 * second, 0), 75 * ms);
}

Test(restart, five_deaths_in_ten_seconds_are_too_many)
{
  struct restart r = {0};
  for (int i = 0; i < 4; i++) cr_assert_geq(restart_after(&r, &policy, 0, 2 * i * second, 0), 0);
  cr_assert_eq(restart_after(&r, &policy, 0, 10 * second, 0), -1);
  struct restart slower = {0};
  for (int i = 0; i < 4; i++) restart_after(&slower, &policy, 0, 2 * i * second, 0);
  cr_assert_geq(restart_after(&slower, &policy, 0, 10 * second + 1, 0), 0);
}

Test(restart, zero_failures_means_never_too_many)
{
  struct restart r = {0};
  struct restart_policy patient = policy;
  patient.failures = 0;
  for (int i = 0; i < 1000; i++) cr_assert_geq(restart_after(&r, &patient, 0, 1, 0), 0);
}
