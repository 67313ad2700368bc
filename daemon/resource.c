/* SPDX-License-Identifier: Apache-2.0
 *
 * The resources of the configuration.
 */
#include <stdlib.h>

#include "daemon.h"

static const struct resource_kind *const kinds[] = {&dir_kind, &log_kind, &pool_kind, &timer_kind};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const struct resource_kind *kind_of(const struct section *section) {
  for (int i = 0; i < KINDS; i++)
    if (section->kind == &kinds[i]->section) return kinds[i];
  return NULL;
}

static int open_one(struct daemon *d, const struct resource_kind *kind,
                    const struct section *section) {
  struct resource *r = calloc(1, kind->bytes);
  if (!r) return -ENOMEM;
  r->kind = kind;
  r->section = section;
  r->daemon = d;
  r->number = (uint16_t)(d->resource_count + 1);
  int rc = kind->open(r);
  if (rc) {
    free(r);
    return rc;
  }
  d->resource_count++;
  r->next = d->resources;
  d->resources = r;
  return 0;
}

int resources_open(struct daemon *d) {
  for (const struct section *s = d->config.sections; s; s = s->next) {
    const struct resource_kind *kind = kind_of(s);
    int rc = kind ? open_one(d, kind, s) : 0;
    if (rc) return rc;
  }
  return 0;
}

/* The newest stand first. */
static void close_above(struct daemon *d, unsigned count) {
  for (struct resource *r; d->resource_count > count; d->resource_count--) {
    r = d->resources;
    d->resources = r->next;
    r->kind->close(r);
    free(r);
  }
}

void resources_close(struct daemon *d) { close_above(d, 0); }

int resources_add(struct daemon *d, const struct config *fresh) {
  unsigned before = d->resource_count;
  for (const struct section *s = fresh->sections; s; s = s->next) {
    const struct resource_kind *kind = kind_of(s);
    if (!kind || config_find(&d->config, s->kind, s->name)) continue;
    int rc = open_one(d, kind, s);
    if (!rc) continue;
    close_above(d, before);
    return rc;
  }
  return 0;
}

void resources_turn(struct daemon *d) {
  for (struct resource *r = d->resources; r; r = r->next)
    if (r->kind->turn) r->kind->turn(r);
}

bool resources_idle(const struct daemon *d) {
  for (const struct resource *r = d->resources; r; r = r->next)
    if (r->kind->idle && !r->kind->idle(r)) return false;
  return true;
}

struct resource *resource_find(struct daemon *d, uint16_t number) {
  struct resource *r = d->resources;
  while (r && r->number != number) r = r->next;
  return r;
}
