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
  PARAM_CHOICE,   /* one of the words of `choices`, kept as its index */
  PARAM_RIGHTS    /* who may do what, rights.h */
};

/* When a changed value takes effect. */
enum param_change {
  PARAM_FIXED, /* at the next start: a reload that changes it is refused */
  PARAM_LIVE   /* at a reload; whoever keeps a copy looks again when told */
};

struct param {
  const char *key;
  enum param_type type;
  const char *fallback; /* as it would be written; NULL: it must be given */
  int64_t min, max;
  const char *choices; /* words separated by | */
  const char *help;
  enum param_change change;
};

struct section;

/* A kind of section and its parameters, ended by one without a key. A new kind is a row in section_kinds. */
struct section_kind {
  const char *name;
  bool named; /* [KIND:NAME], any number; else [KIND], one */
  const struct param *params;
  const char *help;
  bool addable; /* a reload may bring one more */
  /* What no row of the table can say of a section alone: NULL, or what is wrong with which parameter. May be NULL. */
  const char *(*check)(const struct section *section, const char **key);
};

struct setting {
  const struct param *param;
  char *text; /* owned; NULL: not given */
  int64_t number;
  char *source; /* owned; FILE:LINE, the name of an environment variable, "--set" or "built-in" */
};

struct section {
  struct section *next;
  const struct section_kind *kind;
  char *name;   /* "" for a kind without names */
  char *source; /* where it was first named */
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
  char text[4096 + 512];
};

void config_init(struct config *config, const struct section_kind *const *kinds);
void config_free(struct config *config);

/* Read a file, or what matches DIR/ *.conf in order. -ENOENT when there is none; -EINVAL and a text. */
int config_read_file(struct config *config, const char *path, struct config_error *error);
int config_read_directory(struct config *config, const char *path, struct config_error *error);
/* SECTION.KEY=VALUE. */
int config_set(struct config *config, const char *assignment, const char *source,
               struct config_error *error);
/* SHMQD_SECTION_KEY for the sections without a name; one that names no parameter is an error. */
int config_read_environment(struct config *config, struct config_error *error);
/* One assignment, as all of the above make it; an empty key only makes the section. */
int config_assign(struct config *config, const char *section, const char *key, const char *value,
                  const char *source, struct config_error *error);
/* Fill in what was not given; an error where it must be, and for a section that makes no sense as a whole. */
int config_complete(struct config *config, struct config_error *error);

/* "SOURCE: [SECTION] KEY: what is wrong" and -EINVAL; for what is checked by those who use a setting. The source is the
 * setting's, if it was given, else its section's. */
int config_complain(struct config_error *error, const struct section *section, const char *key,
                    const char *wrong);

/* The only section of a kind without names. */
struct section *config_section(struct config *config, const char *kind);
int64_t section_number(const struct section *section, const char *key);
const char *section_text(const struct section *section, const char *key);

/* The section of that kind and name, or NULL. */
struct section *config_find(const struct config *config, const struct section_kind *kind,
                            const char *name);

/* May a running configuration become `fresh`? Else an error that names the line of what it may not take. */
int config_may_become(const struct config *running, const struct config *fresh,
                      struct config_error *error);
/* It does; this cannot fail. Sections keep their place in memory, new ones go over from `fresh`. Returns how many
 * settings and sections are other than before. */
unsigned config_become(struct config *running, struct config *fresh);

/* Every setting and where it comes from, in a form that config_read_file reads. */
void config_show(const struct config *config, FILE *to);
/* From supervisor to worker, with the sources. What is taken is still to be completed. */
void config_pass(const struct config *config, FILE *to);
int config_take_passed(struct config *config, FILE *from, struct config_error *error);

/* Every parameter there is: as text, and as the sections of a manual page. */
void config_help(const struct section_kind *const *kinds, FILE *to);
void config_manual(const struct section_kind *const *kinds, FILE *to);
void print_troff(const char *text, FILE *to);

#endif
