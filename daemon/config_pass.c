/* SPDX-License-Identifier: Apache-2.0
 *
 * A checked configuration on its way from the supervisor to the worker: four strings for each setting, each ended by a
 * NUL. A file's lines have a limit that what comes from the environment or the command line has not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "config.h"

enum { SECTION, KEY, VALUE, SOURCE, STRINGS };

static void pass_section(const struct section *s, FILE *to) {
  for (unsigned i = 0; i < s->count; i++) {
    const struct setting *setting = &s->settings[i];
    fprintf(to, "%s%s%s%c%s%c%s%c%s%c", s->kind->name, *s->name ? ":" : "", s->name, 0,
            setting->param->key, 0, setting->text, 0, setting->source, 0);
  }
}

void config_pass(const struct config *config, FILE *to) {
  for (const struct section *s = config->sections; s; s = s->next) pass_section(s, to);
}

static bool read_strings(FILE *from, char *strings[STRINGS], size_t sizes[STRINGS]) {
  for (int i = 0; i < STRINGS; i++)
    if (getdelim(&strings[i], &sizes[i], 0, from) < 0) return false;
  return true;
}

int config_take_passed(struct config *config, FILE *from, struct config_error *error) {
  char *strings[STRINGS] = {NULL};
  size_t sizes[STRINGS] = {0};
  int rc = 0;
  while (!rc && read_strings(from, strings, sizes))
    rc = config_assign(config, strings[SECTION], strings[KEY], strings[VALUE], strings[SOURCE],
                       error);
  if (!rc && ferror(from)) rc = -EIO;
  for (int i = 0; i < STRINGS; i++) free(strings[i]);
  return rc;
}
