/* SPDX-License-Identifier: Apache-2.0
 *
 * SIGHUP: read the configuration anew and take all of it, or say which line forbids it and go on as before. What can
 * fail (reading, checking, opening what is new) comes first; what then changes cannot fail.
 */
#include "daemon.h"
#include "settings.h"

/* Copies of settings are made anew. */
static void tell_changed(struct daemon *d) {
  d->spin_ns = section_number(d->settings, "spin");
  for (struct resource *r = d->resources; r; r = r->next)
    if (r->kind->changed) r->kind->changed(r);
}

static int try_reload(struct daemon *d, struct config *fresh, struct config_error *error) {
  int rc = config_may_become(&d->config, fresh, error);
  if (rc) return rc;
  rc = resources_add(d, fresh);
  if (rc)
    snprintf(error->text, sizeof error->text, "what is new could not be opened");
  else
    say(SAY_NOTICE, "reloaded: %u changes", config_become(&d->config, fresh));
  return rc;
}

void daemon_reload(struct daemon *d) {
  struct config fresh;
  struct config_error error;
  notify_systemd("RELOADING=1");
  int rc = settings_read(&fresh, d->arguments, &error);
  if (!rc) {
    rc = try_reload(d, &fresh, &error);
    config_free(&fresh);
  }
  if (rc)
    say(SAY_ERROR, "not reloaded: %s", error.text);
  else
    tell_changed(d);
  notify_systemd("READY=1");
}
