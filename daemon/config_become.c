/* SPDX-License-Identifier: Apache-2.0
 *
 * A running configuration becomes another one: wholly, or not at all. What refuses, refuses before
 * anything has changed.
 */
#include <stdlib.h>
#include <string.h>

#include "config.h"

static int refuse_setting(const struct section *s, const struct setting *was,
                          const struct setting *now, struct config_error *error) {
  char wrong[256];
  snprintf(wrong, sizeof wrong, "cannot change from '%.80s' to '%.80s' without a restart",
           was->text, now->text);
  return config_complain(error, s, now->param->key, wrong);
}

static int may_change(const struct section *was, const struct section *now,
                      struct config_error *error) {
  for (unsigned i = 0; i < now->count; i++)
    if (now->settings[i].param->change == PARAM_FIXED &&
        strcmp(was->settings[i].text, now->settings[i].text) != 0)
      return refuse_setting(now, &was->settings[i], &now->settings[i], error);
  return 0;
}

int config_may_become(const struct config *running, const struct config *fresh,
                      struct config_error *error) {
  for (const struct section *s = running->sections; s; s = s->next) {
    const struct section *now = config_find(fresh, s->kind, s->name);
    if (!now)
      return config_complain(error, s, "", "is in use and cannot go without a restart");
    int rc = may_change(s, now, error);
    if (rc) return rc;
  }
  for (const struct section *s = fresh->sections; s; s = s->next)
    if (!s->kind->addable && !config_find(running, s->kind, s->name))
      return config_complain(error, s, "", "cannot be added without a restart");
  return 0;
}

static void swap_text(char **a, char **b) {
  char *was = *a;
  *a = *b;
  *b = was;
}

/* Swapped, so that what was is freed with `fresh`. A text that is the same stays where it is: a helper thread may be
 * reading it. */
static bool take_setting(struct setting *running, struct setting *fresh) {
  swap_text(&running->source, &fresh->source);
  if (strcmp(running->text, fresh->text) == 0) return false;
  swap_text(&running->text, &fresh->text);
  running->number = fresh->number;
  return true;
}

unsigned config_become(struct config *running, struct config *fresh) {
  unsigned changed = 0;
  for (struct section **at = &fresh->sections, *s; (s = *at);) {
    struct section *same = config_find(running, s->kind, s->name);
    for (unsigned i = 0; same && i < s->count; i++)
      changed += take_setting(&same->settings[i], &s->settings[i]);
    if (same) {
      at = &s->next;
      continue;
    }
    *at = s->next;
    s->next = NULL;
    *running->end = s;
    running->end = &s->next;
    changed++;
  }
  return changed;
}
