/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of services: who waits for whom, and that nobody waits for himself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/service.h"

static const char *next_word(const char *at, size_t *bytes) {
  at += strspn(at, " \t");
  *bytes = strcspn(at, " \t");
  return *bytes ? at : NULL;
}

bool service_names(const char *after, const char *name) {
  size_t n = strlen(name), bytes = 0;
  for (const char *at = after; (at = next_word(at, &bytes)); at += bytes)
    if (bytes == n && memcmp(at, name, n) == 0) return true;
  return false;
}

static const struct section *next_service(const struct section *s) {
  while (s && s->kind != &service_kind) s = s->next;
  return s;
}

static bool is_service(const struct config *config, const char *name, size_t bytes) {
  for (const struct section *s = next_service(config->sections); s; s = next_service(s->next))
    if (strlen(s->name) == bytes && memcmp(s->name, name, bytes) == 0) return true;
  return false;
}

static const char *wrong_after(const struct config *config, const struct section *s) {
  size_t bytes = 0;
  for (const char *at = section_text(s, "after"); (at = next_word(at, &bytes)); at += bytes)
    if (!is_service(config, at, bytes)) return "names a service that there is not";
  return NULL;
}

/* ---- circles ---- */

struct place {
  const struct section *section;
  bool can_start;
};

static bool waits(const struct place *places, size_t n, const struct section *s) {
  for (size_t i = 0; i < n; i++)
    if (!places[i].can_start && service_names(section_text(s, "after"), places[i].section->name))
      return true;
  return false;
}

/* Who could start, one after the other; who is left then waits for itself. */
static const struct section *find_circle(struct place *places, size_t n) {
  const struct section *left = NULL;
  for (bool moved = true; moved;) {
    moved = false;
    left = NULL;
    for (size_t i = 0; i < n; i++) {
      if (places[i].can_start) continue;
      left = places[i].section;
      places[i].can_start = !waits(places, n, left);
      moved = moved || places[i].can_start;
    }
  }
  return left;
}

static int check_circles(const struct config *config, struct config_error *error) {
  size_t n = 0;
  for (const struct section *s = next_service(config->sections); s; s = next_service(s->next)) n++;
  struct place *places = calloc(n + 1, sizeof *places);
  if (!places) return -ENOMEM;
  n = 0;
  for (const struct section *s = next_service(config->sections); s; s = next_service(s->next))
    places[n++].section = s;
  const struct section *circle = find_circle(places, n);
  free(places);
  return circle ? config_complain(error, circle, "after", "waits for itself") : 0;
}

int services_check(const struct config *config, struct config_error *error) {
  for (const struct section *s = next_service(config->sections); s; s = next_service(s->next)) {
    const char *wrong = wrong_after(config, s);
    if (wrong) return config_complain(error, s, "after", wrong);
  }
  return check_circles(config, error);
}
