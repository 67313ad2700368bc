/* SPDX-License-Identifier: Apache-2.0
 *
 * Configuration. A *parameter* is a row of a table: the daemon has one, each kind of resource has one;
 * parsing, ranges, --show-config and the manual are made from them. A *section* is [KIND] or
 * [KIND:NAME] with a setting for each parameter of its kind; a setting knows where its value came from.
 */
#ifndef SHMQD_CONFIG_H
#define SHMQD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum param_type {
  PARAM_TEXT,
  PARAM_PATH,     /* absolute, or relative to the daemon's directory */
  PARAM_COUNT,    /* a whole number */
  PARAM_BYTES,    /* with K, M, G (of 1024) */
  PARAM_DURATION, /* with ns, us, ms, s, m, h; kept in ns */
  PARAM_FLAG,     /* yes, no */
  PARAM_CHOICE    /* one of the words of `choices`, kept as its index */
};

struct param {
  const char *key;
  enum param_type type;
  const char *fallback; /* as it would be written; NULL: it must be given */
  int64_t min, max;
  const char *choices; /* words separated by | */
  const char *help;
};

/* A kind of section and its parameters, ended by one without a key. */
struct section_kind {
  const char *name;
  bool named; /* [KIND:NAME], any number; else [KIND], one */
  const struct param *params;
};

struct setting {
  const struct param *param;
  char *text; /* owned; NULL: not given */
  int64_t number;
  char source[128]; /* FILE:LINE, the name of an environment variable, or "--set" */
};

struct section {
  struct section *next;
  const struct section_kind *kind;
  char *name; /* "" for a kind without names */
  struct setting *settings;
  unsigned count;
};

struct config {
  const struct section_kind *const *kinds; /* ended by NULL */
  struct section *sections;
  struct section **end;
};

/* An error text as the caller prints it: "FILE:LINE: what is wrong". */
struct config_error {
  char text[512];
};

void config_init(struct config *config, const struct section_kind *const *kinds);
void config_free(struct config *config);

/* Read a file, or what matches DIR/ *.conf in order. -ENOENT when there is none; -EINVAL and a text. */
int config_read_file(struct config *config, const char *path, struct config_error *error);
int config_read_directory(struct config *config, const char *path, struct config_error *error);
/* SECTION.KEY=VALUE. */
int config_set(struct config *config, const char *assignment, const char *source,
               struct config_error *error);
/* SHMQD_SECTION_KEY for the sections without a name. */
int config_read_environment(struct config *config, struct config_error *error);
/* One assignment, as all of the above make it; an empty key only makes the section. */
int config_assign(struct config *config, const char *section, const char *key, const char *value,
                  const char *source, struct config_error *error);
/* Fill in what was not given; an error where it must be. */
int config_complete(struct config *config, struct config_error *error);

/* The only section of a kind without names. */
struct section *config_section(struct config *config, const char *kind);
int64_t section_number(const struct section *section, const char *key);
const char *section_text(const struct section *section, const char *key);

/* Every setting and where it comes from, in a form that config_read_file reads. */
void config_show(const struct config *config, FILE *to);
/* Every parameter there is. */
void config_help(const struct config *config, FILE *to);

#endif
