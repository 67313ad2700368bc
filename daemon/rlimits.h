/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel is to allow the programs that the daemon starts.
 */
#ifndef SHMQD_RLIMITS_H
#define SHMQD_RLIMITS_H

#include <sys/resource.h>

#include "config.h"

/* Rows for the table of every section that starts programs. */
#define LIMIT_PARAMS                                                                             \
  {"limit_memory",                                                                               \
   PARAM_BYTES,                                                                                  \
   "0",                                                                                          \
   0,                                                                                            \
   INT64_C(1) << 50,                                                                             \
   NULL,                                                                                         \
   "address space of each of its processes; 0: no limit",                                        \
   PARAM_FIXED},                                                                                 \
      {"limit_cpu",                                                                              \
       PARAM_DURATION,                                                                           \
       "0s",                                                                                     \
       0,                                                                                        \
       INT64_C(1) << 60,                                                                         \
       NULL,                                                                                     \
       "processor time of each of its processes, in whole seconds; who has used it up gets "     \
       "SIGXCPU and a second later SIGKILL; 0s: no limit",                                       \
       PARAM_FIXED},                                                                             \
      {"limit_files",                                                                            \
       PARAM_COUNT,                                                                              \
       "0",                                                                                      \
       0,                                                                                        \
       1 << 30,                                                                                  \
       NULL,                                                                                     \
       "descriptors of each of its processes; 0: what the daemon was started with",              \
       PARAM_FIXED},                                                                             \
  {                                                                                              \
    "limit_file_bytes", PARAM_BYTES, "0", 0, INT64_C(1) << 60, NULL,                             \
        "size of a file that it writes; 0: no limit", PARAM_FIXED                                \
  }

enum { LIMITS = 4 };

struct limits {
  rlim_t value[LIMITS]; /* 0: as the daemon's */
};

void limits_read(struct limits *limits, const struct section *section);
/* In a new process; only what may be called between fork and exec. 0 or a negative errno. */
int limits_set(const struct limits *limits);

/* The daemon takes all descriptors that it may have. What it starts does not: programs that close or scan all they
 * could have, or use select(2), expect few. */
void limits_raise_own(void);

#endif
