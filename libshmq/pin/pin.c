/* SPDX-License-Identifier: Apache-2.0
 *
 * The topology: loaded once, cut down to what the process may use.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "places.h"

int shmq__pin_fail(shmq_pin *pin, int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(pin->error, sizeof(pin->error), format, arguments);
  va_end(arguments);
  for (char *c = pin->error; *c != '\0'; c++) {
    if (!isprint((unsigned char)*c)) *c = '?'; /* it may quote anything and go to a terminal */
  }
  return code;
}

/* hwloc leaves out what the cgroup forbids, but not what sched_setaffinity does. All threads
 * together count: one that has pinned itself does not take the machine from the others. */
static int restrict_to_affinity(hwloc_topology_t topology) {
  hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
  int rc = 0;
  if (allowed == NULL) return -ENOMEM;
  if (hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS) == 0) {
    if (!hwloc_bitmap_intersects(allowed, hwloc_topology_get_topology_cpuset(topology))) {
      rc = -ENOSPC;
    } else if (hwloc_topology_restrict(topology, allowed, 0) != 0) {
      rc = -errno;
    }
  }
  hwloc_bitmap_free(allowed);
  return rc;
}

static bool is_set(const char *name) {
  const char *value = getenv(name);
  return value != NULL && value[0] != '\0';
}

/* hwloc passes over a description that it cannot read, and shows the real machine instead. */
static bool description_was_ignored(const shmq_pin *pin) {
  return pin->real && (is_set("HWLOC_SYNTHETIC") || is_set("HWLOC_XMLFILE")) &&
         !is_set("HWLOC_THISSYSTEM");
}

static int load(shmq_pin *pin) {
  /* Looking at CPUs one by one would move the caller's thread around. */
  if (hwloc_topology_set_flags(pin->topology, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING) != 0 ||
      hwloc_topology_load(pin->topology) != 0) {
    return errno != 0 ? -errno : -EINVAL;
  }
  pin->real = hwloc_topology_is_thissystem(pin->topology) == 1;
  if (description_was_ignored(pin)) return -EINVAL;
  return pin->real ? restrict_to_affinity(pin->topology) : 0;
}

int shmq_pin_open(shmq_pin **out) {
  shmq_pin *pin = calloc(1, sizeof(*pin));
  if (pin == NULL) return -ENOMEM;
  if (hwloc_topology_init(&pin->topology) != 0) {
    free(pin);
    return -ENOMEM;
  }
  errno = 0;
  int rc = load(pin);
  if (rc != 0) {
    shmq_pin_close(pin);
    return rc;
  }
  *out = pin;
  return 0;
}

void shmq_pin_close(shmq_pin *pin) {
  if (pin == NULL) return;
  hwloc_topology_destroy(pin->topology);
  free(pin);
}

const char *shmq_pin_error(const shmq_pin *pin) { return pin->error; }

int shmq_pin_is_real(const shmq_pin *pin) { return pin->real; }
