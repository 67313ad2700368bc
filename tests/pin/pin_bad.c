/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts that name no place: the right error, a line that says why, never a crash.
 */
#include <ctype.h>

#include "machine.h"

static const struct {
  const char *places;
  int error;
} bad[] = {
    /* not a text of places */
    {"", -EINVAL},
    {" ", -EINVAL},
    {"\t\n", -EINVAL},
    {"core", -EINVAL},
    {"3", -EINVAL},
    {"0-3", -EINVAL},
    {"core:", -EINVAL},
    {":0", -EINVAL},
    {":", -EINVAL},
    {"core:0.", -EINVAL},
    {".core:0", -EINVAL},
    {"core:0..pu:0", -EINVAL},
    {"core:0.pu", -EINVAL},
    {"core:0.pu:", -EINVAL},
    {"core:0.:0", -EINVAL},
    {"core.0", -EINVAL},
    {"core 0", -EINVAL},
    {"core: 0", -EINVAL},
    {"core :0", -EINVAL},
    {"core:0,core:1", -EINVAL},
    {"core:0,2", -EINVAL},
    {"core=0", -EINVAL},
    {"\xff\xfe", -EINVAL},
    {"%s%n", -EINVAL},
    {"\x1b[31m:0", -EINVAL},
    /* kinds */
    {"corx:0", -EINVAL},
    {"cpu:0", -EINVAL},
    {"thread:0", -EINVAL},
    {"pci:0", -EINVAL},
    {"os:0", -EINVAL},
    {"misc:0", -EINVAL},
    {"bridge:0", -EINVAL},
    {"os=eth0", -EINVAL},
    {"pci=0000:00:00.0", -EINVAL},
    {"-1:0", -EINVAL},
    {"l9:0", -EINVAL},
    {"999999999999:0", -ENOENT},
    {"99:0", -ENOENT},
    {"6:0", -ENOENT},
    {"averyveryverylongnameofakind:0", -EINVAL},
    /* indexes */
    {"core:-1", -EINVAL},
    {"core:+1", -EINVAL},
    {"core:1.5", -EINVAL},
    {"core:0x1", -EINVAL},
    {"core:a", -EINVAL},
    {"core:5-2", -EINVAL},
    {"core:1-2-3", -EINVAL},
    {"core:1--2", -EINVAL},
    {"core:1-x", -EINVAL},
    {"core:1:", -EINVAL},
    {"core:1:0", -EINVAL},
    {"core:1:2:3", -EINVAL},
    {"core:1:-1", -EINVAL},
    {"core:ALL", -EINVAL},
    {"core:alle", -EINVAL},
    {"core:oddly", -EINVAL},
    {"core:1-2x", -EINVAL},
    {"core:9999999999", -EINVAL},
    {"core:0-18446744073709551616", -EINVAL},
    {"core:0:4294967297", -EINVAL},
    {"core:0123456789012345678901234567890", -EINVAL},
    /* what is not there */
    {"core:16", -ENOENT},
    {"core:0-16", -ENOENT},
    {"core:16-", -ENOENT},
    {"core:0:17", -ENOENT},
    {"core:999999999", -ENOENT},
    {"package:1.core:8", -ENOENT},
    {"core:0.pu:2", -ENOENT},
    {"core:0.l3:0", -ENOENT},
    {"pu:0.core:0", -ENOENT},
    {"core:0.package:0", -ENOENT},
    {"l3:0.numa:0", -ENOENT},
    {"numa:2", -ENOENT},
    {"machine:1", -ENOENT},
    {"l1:0", -ENOENT},
    {"l4:all", -ENOENT},
    {"machine:odd", -ENOENT},
    {"die:0", -ENOENT},
    {"core:all.pu:2", -ENOENT},
    /* masks */
    {"0x", -EINVAL},
    {"0xg", -EINVAL},
    {"0x0", -EINVAL},
    {"0x1,", -EINVAL},
    {"0x1,0x", -EINVAL},
    {"0x1;0x2", -EINVAL},
    {"0xf..f", -EINVAL},
    {"0x-1", -EINVAL},
    {"0xf...f00", -EINVAL},
    {"0x1.core:0", -EINVAL},
    {"0x100000000", -ENOSPC},
    {"0x1,0x00000000", -ENOSPC},
    {"core:0 ^0x100000001", -ENOSPC},
    {"0xf...f,0x0", -ENOSPC},
    {"~0x0", -EINVAL},
    /* operators and words */
    {"~", -EINVAL},
    {"x", -EINVAL},
    {"^", -EINVAL},
    {"~~core:0", -EINVAL},
    {"x^core:0", -EINVAL},
    {"core:0 ~", -EINVAL},
    {"+core:0", -EINVAL},
    {"|core:0", -EINVAL},
    {"core:0 ~core:99", -ENOENT},
    {"~core:0", -ENOSPC},
    {"core:0 xcore:1", -ENOSPC},
    {"all ~all", -ENOSPC},
    {"spread ^spread", -ENOSPC},
    {"none core:0", -EINVAL},
    {"core:0 none", -EINVAL},
    {"~none", -EINVAL},
    {"None", -EINVAL},
    {"nonesuch", -EINVAL},
    {"spread:2", -EINVAL},
    {"spread compactly", -EINVAL},
    {"pair", -EINVAL},
    {"pair:", -EINVAL},
    {"pair:l1", -EINVAL},
    {"pair:l22", -EINVAL},
    {"pair:core", -EINVAL},
    {"pair:l2 core:0", -EINVAL},
    {"core:0 pair:l3", -EINVAL},
    {"~pair:l2", -EINVAL},
    {"pair:l2 pair:l3", -EINVAL},
};

static void expect_clear_text(shmq_pin *pin, const char *places) {
  const char *text = shmq_pin_error(pin);
  cr_expect_gt(strlen(text), 10, "'%s'", places);
  for (const char *c = text; *c != '\0'; c++) {
    cr_assert(isprint((unsigned char)*c), "'%s': a byte %#x in the text", places,
              (unsigned char)*c);
  }
}

Test(pin_bad, table)
{
  shmq_pin *pin = open_machine(BIG);
  cr_expect_str_empty(shmq_pin_error(pin));
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    shmq_bound bound;
    int rc = shmq_pin_count(pin, bad[i].places);
    cr_expect_eq(rc, bad[i].error, "'%s': %d, expected %d: %s", bad[i].places, rc, bad[i].error,
                 shmq_pin_error(pin));
    expect_clear_text(pin, bad[i].places);
    cr_expect_eq(shmq_pin_place(pin, bad[i].places, 0, &bound), bad[i].error);
  }
  shmq_pin_close(pin);
}

Test(pin_bad, length)
{
  shmq_pin *pin = open_machine(BIG);
  char *text = malloc(SHMQ_PLACES_MAX + 3);
  memset(text, ' ', SHMQ_PLACES_MAX + 2);
  memcpy(text + SHMQ_PLACES_MAX - 6, "core:0", 6);
  text[SHMQ_PLACES_MAX] = '\0';
  text[0] = 'x';
  cr_expect_eq(shmq_pin_count(pin, text), -EINVAL); /* an operator alone */
  memcpy(text, "all", 3);
  cr_expect_eq(shmq_pin_count(pin, text), 2, "as long as allowed: %s", shmq_pin_error(pin));
  text[SHMQ_PLACES_MAX] = ' ';
  text[SHMQ_PLACES_MAX + 1] = '\0';
  cr_expect_eq(shmq_pin_count(pin, text), -EINVAL, "one more");
  memset(text, '0', SHMQ_PLACES_MAX);
  memcpy(text, "0x", 2);
  text[SHMQ_PLACES_MAX - 1] = '1';
  text[SHMQ_PLACES_MAX] = '\0';
  cr_expect_eq(shmq_pin_count(pin, text), 1, "%s", shmq_pin_error(pin));
  memset(text, 'f', SHMQ_PLACES_MAX);
  memcpy(text, "0x", 2);
  cr_expect_eq(shmq_pin_count(pin, text), -ENOSPC);
  free(text);
  shmq_pin_close(pin);
}

/* Pieces of the language in any order, and now and then any byte. The seed is fixed: a failure
 * comes again. */
static const char *const pieces[] = {
    "core",       "pu",
    "l3",         "l2",
    "numa",       "package",
    "machine",    ":",
    ":",          ":",
    ".",          ".",
    " ",          " ",
    "~",          "x",
    "^",          "0",
    "1",          "2",
    "7",          "31",
    "-",          "all",
    "odd",        "even",
    "0x",         "f",
    "...",        ",",
    "spread",     "compact",
    "pair:",      "none",
    "root",       "99999999",
    "4294967296", "core:0",
    "core:all",   "pu:0-3",
    "0x3",        "l3:1.core:0-2",
    " ~core:0",   " xpackage:1",
    " ^0xff",     " core:1",
    " l3:odd ",   " spread ",
    " 0xf0 ",     "core:2.pu:1 ",
    "numa:1",     " package:0",
    " compact",
};

static size_t next_random(size_t below) {
  static uint64_t state = 88172645463325252u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (size_t)(state % below);
}

static void random_text(char *text, size_t size) {
  size_t parts = 1 + next_random(10);
  text[0] = '\0';
  while (parts-- > 0) {
    const char *piece = pieces[next_random(sizeof(pieces) / sizeof(pieces[0]))];
    if (strlen(text) + strlen(piece) < size) strcat(text, piece);
  }
  if (next_random(8) == 0) text[next_random(strlen(text))] = (char)(1 + next_random(255));
}

Test(pin_bad, anything, .timeout = 60)
{
  shmq_pin *pin = open_machine(BIG);
  unsigned good = 0, wrong = 0;
  for (int i = 0; i < 20000; i++) {
    char text[256];
    random_text(text, sizeof(text));
    int rc = shmq_pin_count(pin, text);
    if (rc < 0) {
      cr_assert(rc == -EINVAL || rc == -ENOENT || rc == -ENOSPC, "'%s': %d", text, rc);
      expect_clear_text(pin, text);
      wrong++;
    } else if (rc > 0) {
      shmq_bound bound;
      cr_assert_eq(shmq_pin_place(pin, text, (unsigned)rc - 1, &bound), 0, "'%s'", text);
      cr_assert(bound.cpus >= 1 && bound.cpus <= 32 && bound.shared == 0, "'%s'", text);
      good++;
    }
  }
  cr_expect(good > 500 && wrong > 5000, "the generator makes both kinds: %u good, %u bad", good,
            wrong);
  shmq_pin_close(pin);
}

Test(pin_bad, descriptions_of_machines)
{
  static const char *const machines[] = {"nonsense", "pu:0", "core:2 package:2", "pu:"};
  for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
    shmq_pin *pin = NULL;
    setenv("HWLOC_SYNTHETIC", machines[i], 1);
    int rc = shmq_pin_open(&pin);
    cr_expect_lt(rc, 0, "'%s' was taken", machines[i]);
    if (rc == 0) shmq_pin_close(pin);
  }
  shmq_pin_close(NULL);
}
