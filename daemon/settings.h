/* SPDX-License-Identifier: Apache-2.0
 *
 * What the command line says, and the configuration that files, environment and command line make together.
 */
#ifndef SHMQD_SETTINGS_H
#define SHMQD_SETTINGS_H

#include "config.h"

struct arguments {
  const char *config; /* read instead of the system's and the user's */
  const char *directory;
  const char **settings; /* of --set, in order */
  int setting_count;
  bool system; /* root, or --system: not a user's own daemon */
  bool check, show, verbose, quiet;
  int ready_fd;
};

/* 0: go on; 1: done (--help and the like); negative: a usage error was said. */
int arguments_parse(struct arguments *arguments, int argc, char **argv);
void arguments_free(struct arguments *arguments);

/* Every kind of section there is, ended by NULL: add a row for a new one. */
extern const struct section_kind *const section_kinds[];

/* Read all sources. When it fails there is a text, and nothing to free. */
int settings_read(struct config *config, const struct arguments *arguments,
                  struct config_error *error);

#endif
