/* SPDX-License-Identifier: Apache-2.0 */
#include "place.h"

#include <errno.h>

#include <shmq/pin.h>

#include "base/report.h"

/* What the pin library said about the places, with the status that fits. */
static int complain_about(const char *places, shmq_pin *pin, int error) {
  const char *text = pin != NULL ? shmq_pin_error(pin) : "";
  complain("--bind %s: %s", places, *text != '\0' ? text : shmq_strerror(error));
  return error == -EINVAL ? STATUS_USAGE : error == -ENOENT ? STATUS_NOT_FOUND : STATUS_FAILED;
}

int place_check(const char *places) {
  shmq_pin *pin = NULL;
  int rc = shmq_pin_open(&pin);
  if (rc == 0) {
    rc = shmq_pin_count(pin, places);
  }
  int status = rc < 0 ? complain_about(places, pin, rc) : STATUS_OK;
  shmq_pin_close(pin);
  return status;
}

int place_self(const char *places, unsigned number, shmq_segment *segment) {
  shmq_pin *pin = NULL;
  int rc = shmq_pin_open(&pin);
  if (rc == 0) {
    rc = shmq_pin_self(pin, places, number, segment, NULL);
  }
  int status = rc < 0 ? complain_about(places, pin, rc) : STATUS_OK;
  shmq_pin_close(pin);
  return status;
}
