/* SPDX-License-Identifier: Apache-2.0
 *
 * Flags as data: what a flag is called, what it accepts and where the value goes. getopt_long reads
 * the command line by this table; help, manual and completion print it.
 */
#ifndef TOOLS_BASE_FLAGS_H
#define TOOLS_BASE_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct command;

enum flag_kind {
  FLAG_SET,      /* bool: true when given */
  FLAG_NUMBER,   /* uint64_t within min..max */
  FLAG_SIZE,     /* uint64_t within min..max; K, M and G are powers of 1024 */
  FLAG_MODE,     /* uint64_t: octal permission bits */
  FLAG_DURATION, /* int64_t nanoseconds, at least min */
  FLAG_TEXT,     /* const char * */
  FLAG_CHOICE,   /* uint64_t: index into choices */
  FLAG_BYTES,    /* struct bytes: text with the escapes of C */
  FLAG_LIST      /* struct texts: may be repeated */
};

struct bytes {
  const char *data;
  size_t size;
};

#define TEXTS_MAX 64
struct texts {
  const char *items[TEXTS_MAX];
  size_t count;
};

struct flag {
  const char *name; /* long name, without the dashes */
  char letter;      /* short name, 0: none */
  enum flag_kind kind;
  void *value;                /* as the kind says; holds the default before */
  const char *argument;       /* what help calls the value */
  const char *help;           /* one line */
  uint64_t min, max;          /* FLAG_NUMBER, FLAG_SIZE; FLAG_DURATION: min */
  const char *const *choices; /* FLAG_CHOICE; ends with NULL */
};

/* The rows of a table. `key` is the letter, 0: none; `where` the address of the value. */
#define SET_FLAG(text, key, where, said) \
  { .name = (text), .letter = (key), .kind = FLAG_SET, .value = (where), .help = (said) }
#define VALUE_FLAG(type, text, key, where, called, said)                                   \
  .name = (text), .letter = (key), .kind = (type), .value = (where), .argument = (called), \
  .help = (said)
#define TEXT_FLAG(text, key, where, called, said) \
  { VALUE_FLAG(FLAG_TEXT, text, key, where, called, said) }
#define MODE_FLAG(text, key, where, called, said) \
  { VALUE_FLAG(FLAG_MODE, text, key, where, called, said) }
#define BYTES_FLAG(text, key, where, called, said) \
  { VALUE_FLAG(FLAG_BYTES, text, key, where, called, said) }
#define LIST_FLAG(text, key, where, called, said) \
  { VALUE_FLAG(FLAG_LIST, text, key, where, called, said) }
#define NUMBER_FLAG(text, key, where, called, least, most, said) \
  { VALUE_FLAG(FLAG_NUMBER, text, key, where, called, said), .min = (least), .max = (most) }
#define SIZE_FLAG(text, key, where, called, least, most, said) \
  { VALUE_FLAG(FLAG_SIZE, text, key, where, called, said), .min = (least), .max = (most) }
#define DURATION_FLAG(text, key, where, called, least, said) \
  { VALUE_FLAG(FLAG_DURATION, text, key, where, called, said), .min = (least) }
#define CHOICE_FLAG(text, key, where, called, words, said) \
  { VALUE_FLAG(FLAG_CHOICE, text, key, where, called, said), .choices = (words) }
#define JSON_FLAG(where) SET_FLAG("json", 0, where, "print JSON")
#define TIMEOUT_FLAG(where)                      \
  DURATION_FLAG("timeout", 't', where, "DUR", 0, \
                "give up after DUR (0: do not wait; default: wait for ever)")
#define END_OF_FLAGS \
  { .name = NULL }

/* Store the value that `text` gives the flag. Returns what is wrong with it, as parse.h does, or
 * NULL. */
const char *flag_store(const struct flag *flag, const char *text);

enum flags_result { FLAGS_RUN, FLAGS_HELP, FLAGS_WRONG };

/* Read the flags of `command`, argv[0] being its name. *first is then the index of the first
 * positional argument, all of which have been moved behind the flags. */
enum flags_result flags_parse(const struct command *command, int argc, char **argv, int *first);

#endif
