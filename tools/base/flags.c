/* SPDX-License-Identifier: Apache-2.0 */
#include "base/flags.h"

#include <getopt.h>
#include <string.h>

#include "base/parse.h"
#include "base/report.h"
#include "command.h"

enum { FLAGS_MAX = 31, HELP_VALUE = 256, FIRST_VALUE = 257 };

struct getopt_table {
  struct option long_options[FLAGS_MAX + 2];
  char letters[2 * FLAGS_MAX + 4];
};

static size_t count_flags(const struct flag *flags) {
  size_t count = 0;
  while (flags != NULL && flags[count].name != NULL) {
    count++;
  }
  return count < FLAGS_MAX ? count : FLAGS_MAX;
}

static void build_table(struct getopt_table *table, const struct flag *flags, size_t count) {
  memset(table, 0, sizeof *table);
  char *letter = table->letters;
  *letter++ = ':'; /* tell a missing value from an unknown flag */
  *letter++ = 'h';
  for (size_t i = 0; i < count; i++) {
    bool takes_value = flags[i].kind != FLAG_SET;
    table->long_options[i] =
        (struct option){.name = flags[i].name,
                        .has_arg = takes_value ? required_argument : no_argument,
                        .val = FIRST_VALUE + (int)i};
    if (flags[i].letter != 0) {
      *letter++ = flags[i].letter;
      if (takes_value) {
        *letter++ = ':';
      }
    }
  }
  table->long_options[count] = (struct option){.name = "help", .val = HELP_VALUE};
}

static const struct flag *flag_of(const struct flag *flags, size_t count, int value) {
  if (value >= FIRST_VALUE) {
    return &flags[value - FIRST_VALUE];
  }
  for (size_t i = 0; i < count; i++) {
    if (flags[i].letter == value) {
      return &flags[i];
    }
  }
  return NULL;
}

static const char *append(struct texts *list, const char *text) {
  if (list->count == TEXTS_MAX) {
    return "is given too often";
  }
  list->items[list->count++] = text;
  return NULL;
}

const char *flag_store(const struct flag *flag, const char *text) {
  switch (flag->kind) {
  case FLAG_SET: *(bool *)flag->value = true; return NULL;
  case FLAG_NUMBER: return parse_number(text, flag->min, flag->max, flag->value);
  case FLAG_SIZE: return parse_size(text, flag->min, flag->max, flag->value);
  case FLAG_MODE: return parse_mode(text, flag->value);
  case FLAG_DURATION: return parse_duration(text, (int64_t)flag->min, flag->value);
  case FLAG_TEXT: *(const char **)flag->value = text; return NULL;
  case FLAG_CHOICE: return parse_choice(text, flag->choices, flag->value);
  case FLAG_BYTES: return parse_bytes(text, flag->value);
  case FLAG_LIST: return append(flag->value, text);
  }
  return "is not understood";
}

static enum flags_result complain_about(int found, char **argv, const struct flag *flag) {
  if (found == ':' && flag != NULL) {
    usage("--%s needs a value (%s)", flag->name, flag->argument);
  } else if (optopt > 0 && optopt < HELP_VALUE) {
    usage("unknown flag -%c", optopt);
  } else if (optopt != 0) {
    usage("a value for %s, which takes none", argv[optind - 1]);
  } else {
    usage("unknown flag %s", argv[optind - 1]);
  }
  return FLAGS_WRONG;
}

enum flags_result flags_parse(const struct command *command, int argc, char **argv, int *first) {
  struct getopt_table table;
  size_t count = count_flags(command->flags);
  build_table(&table, command->flags, count);
  opterr = 0;
  for (int found;
       (found = getopt_long(argc, argv, table.letters, table.long_options, NULL)) != -1;) {
    if (found == 'h' || found == HELP_VALUE) {
      return FLAGS_HELP;
    }
    bool wrong = found == ':' || found == '?';
    const struct flag *flag = flag_of(command->flags, count, wrong ? optopt : found);
    if (wrong || flag == NULL) {
      return complain_about(found, argv, flag);
    }
    const char *fault = flag_store(flag, optarg);
    if (fault != NULL) {
      usage("--%s '%s' %s", flag->name, optarg, fault);
      return FLAGS_WRONG;
    }
  }
  *first = optind;
  return FLAGS_RUN;
}
