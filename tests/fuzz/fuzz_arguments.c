/* SPDX-License-Identifier: Apache-2.0
 *
 * Command lines of `shmq`: the first byte chooses a command, the rest are its arguments, separated by NUL or
 * newline. Flags of all commands are read; only `create` goes on, up to where it would make a segment.
 * The bare functions that turn texts into values are tried with every argument too.
 */
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/parse.h"
#include "base/report.h"
#include "check.h"
#include "command.h"
#include "input.h"
#include "shmq/pin.h"

enum { ARGUMENTS_MAX = 24, VALUES_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* ---- in place of what would be said or done (the linker puts these in front) ---- */

void __wrap_complain(const char *format, ...);
int __wrap_usage(const char *format, ...);
int __wrap_shmq_create(const char *name, const shmq_options *options);

static void format_only(const char *format, va_list values) {
  char text[2048];
  check(vsnprintf(text, sizeof text, format, values) >= 0, "a complaint that cannot be printed");
}

void __wrap_complain(const char *format, ...) {
  va_list values;
  va_start(values, format);
  format_only(format, values);
  va_end(values);
}

int __wrap_usage(const char *format, ...) {
  va_list values;
  va_start(values, format);
  format_only(format, values);
  va_end(values);
  return STATUS_USAGE;
}

int __wrap_shmq_create(const char *name, const shmq_options *options) {
  check(*name && !strchr(name, '/'), "a segment's name that the library refuses");
  int64_t bytes = shmq_segment_bytes(options);
  check(bytes > 0 || bytes == -EINVAL, "options that cannot be judged");
  return bytes < 0 ? (int)bytes : 0;
}

/* ---- flags start from their defaults each time ---- */

struct saved {
  const struct flag *flag;
  struct texts list; /* the largest of what a flag's value may be */
};
static struct saved defaults[32][VALUES_MAX];

static size_t value_bytes(const struct flag *flag) {
  switch (flag->kind) {
    case FLAG_SET: return sizeof(bool);
    case FLAG_BYTES: return sizeof(struct bytes);
    case FLAG_LIST: return sizeof(struct texts);
    default: return 8;
  }
}

static void save_defaults(void) {
  for (int c = 0; all_commands[c] && c < 32; c++)
    for (int f = 0; all_commands[c]->flags && all_commands[c]->flags[f].name; f++) {
      struct saved *saved = &defaults[c][f];
      check(f < VALUES_MAX, "more flags than the fuzzer has room for");
      saved->flag = &all_commands[c]->flags[f];
      memcpy(&saved->list, saved->flag->value, value_bytes(saved->flag));
    }
}

static void restore_defaults(int command) {
  for (const struct saved *saved = defaults[command]; saved->flag; saved++) {
    struct bytes before, *after = saved->flag->value;
    memcpy(&before, &saved->list, sizeof before);
    if (saved->flag->kind == FLAG_BYTES && after->data != before.data) free((void *)(uintptr_t)after->data);
    memcpy(saved->flag->value, &saved->list, value_bytes(saved->flag));
  }
}

/* ---- arguments: each in memory of its own, for the address sanitizer ---- */

static int split(const uint8_t *data, size_t size, char **argv) {
  int argc = 1;
  argv[0] = strdup("shmq");
  while (size > 0 && argc < ARGUMENTS_MAX) {
    size_t n = 0;
    while (n < size && data[n] != 0 && data[n] != '\n') n++;
    argv[argc++] = strndup((const char *)data, n);
    n += n < size;
    data += n;
    size -= n;
  }
  argv[argc] = NULL;
  return argc;
}

/* What a flag was given is in its range; its default may be anything. */
static void check_values(int command) {
  for (const struct saved *saved = defaults[command]; saved->flag; saved++) {
    const struct flag *flag = saved->flag;
    uint64_t value;
    if (flag->kind != FLAG_NUMBER && flag->kind != FLAG_SIZE) continue;
    if (memcmp(flag->value, &saved->list, sizeof value) == 0) continue;
    memcpy(&value, flag->value, sizeof value);
    check(value >= flag->min && value <= flag->max, "a value out of its range");
  }
}

static void read_flags(int number, int argc, char **argv) {
  const struct command *command = all_commands[number];
  int first = 0;
  optind = 0;
  if (flags_parse(command, argc, argv, &first) != FLAGS_RUN) return;
  check(first >= 1 && first <= argc, "more flags than arguments");
  check_values(number);
  int count = argc - first;
  if (command == &create_command && count >= command->least && count <= command->most)
    (void)command->run(count, argv + first);
}

/* ---- texts to values ---- */

static shmq_pin *pin;

static void read_value(const char *text) {
  static const char *const words[] = {"block", "fail", NULL};
  uint64_t number;
  int64_t ns;
  struct bytes bytes;
  struct address address;
  if (!parse_number(text, 3, 70000, &number)) check(number >= 3 && number <= 70000, "a number");
  if (!parse_size(text, 1, 1 << 20, &number)) check(number >= 1 && number <= 1 << 20, "a size");
  if (!parse_mode(text, &number)) check(number <= 0777, "a mode");
  if (!parse_duration(text, 1, &ns)) check(ns >= 1 && ns <= INT64_C(1000000000000000000), "a duration");
  if (!parse_choice(text, words, &number)) check(number < 2, "a choice");
  if (!parse_bytes(text, &bytes)) {
    check(bytes.size <= strlen(text), "escapes that make a text longer");
    free((void *)(uintptr_t)bytes.data);
  }
  if (!parse_address(text, &address))
    check(*address.segment && strlen(address.segment) <= SHMQ_NAME_MAX, "an address");
  int places = shmq_pin_count(pin, text);
  check(places >= 0 || places == -EINVAL || places == -ENOENT || places == -ENOSPC, "places");
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  setenv("HWLOC_SYNTHETIC", "pack:2 l3:2 core:2 pu:2", 1);
  check(shmq_pin_open(&pin) == 0, "no topology");
  save_defaults();
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *argv[ARGUMENTS_MAX + 1], *owned[ARGUMENTS_MAX + 1];
  int commands = 0;
  if (size == 0) return 0;
  while (all_commands[commands] && commands < 32) commands++;
  int command = data[0] % commands;
  int argc = split(data + 1, size - 1, argv);
  memcpy(owned, argv, sizeof owned);
  for (int i = 1; i < argc; i++) read_value(argv[i]);
  read_flags(command, argc, argv);
  restore_defaults(command);
  for (int i = 0; i < argc; i++) free(owned[i]);
  return 0;
}
