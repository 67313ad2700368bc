/* SPDX-License-Identifier: Apache-2.0 */
#include "rlimits.h"

#include <errno.h>

static const struct {
  const char *key;
  __rlimit_resource_t resource;
} table[LIMITS] = {{"limit_memory", RLIMIT_AS},
                   {"limit_cpu", RLIMIT_CPU},
                   {"limit_files", RLIMIT_NOFILE},
                   {"limit_file_bytes", RLIMIT_FSIZE}};

static const int64_t second_ns = 1000000000;
static rlim_t files_before; /* 0: they were not raised */

void limits_raise_own(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) return;
  files_before = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

void limits_read(struct limits *limits, const struct section *section) {
  for (int i = 0; i < LIMITS; i++) {
    int64_t value = section_number(section, table[i].key);
    if (table[i].resource == RLIMIT_CPU) value = (value + second_ns - 1) / second_ns;
    limits->value[i] = (rlim_t)value;
  }
}

static rlim_t least(rlim_t a, rlim_t b) { return a < b ? a : b; }

/* Both the soft limit and the hard one, so that it cannot be raised again; never above the daemon's own. */
static int set_one(__rlimit_resource_t resource, rlim_t value) {
  struct rlimit limit;
  if (getrlimit(resource, &limit)) return -errno;
  if (value) {
    limit.rlim_max = least(resource == RLIMIT_CPU ? value + 1 : value, limit.rlim_max);
    limit.rlim_cur = least(value, limit.rlim_max);
  } else if (resource == RLIMIT_NOFILE && files_before) {
    limit.rlim_cur = files_before;
  }
  return setrlimit(resource, &limit) ? -errno : 0;
}

int limits_set(const struct limits *limits) {
  int rc = 0;
  for (int i = 0; !rc && i < LIMITS; i++) rc = set_one(table[i].resource, limits->value[i]);
  return rc;
}
