/* SPDX-License-Identifier: Apache-2.0
 *
 * A new configuration, which the supervisor has checked: take all of it or nothing. What can fail (opening what is new)
 * comes first; what then changes cannot fail.
 */
#include "daemon.h"

/* Copies of settings are made anew. */
static void tell_changed(struct daemon *d) {
  daemon_read_spin(d);
  resources_changed(d);
  guard_changed(d);
}

int daemon_reload(struct daemon *d, struct config *fresh) {
  struct config_error error;
  int rc = config_may_become(&d->config, fresh, &error);
  if (!rc) rc = resources_add(d, fresh);
  if (rc) return rc;
  config_become(&d->config, fresh);
  tell_changed(d);
  return 0;
}
