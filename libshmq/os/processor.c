/* SPDX-License-Identifier: Apache-2.0 */
#include "os/processor.h"

#include <unistd.h>

static bool is_amd(void) {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

bool shmq__dirty_lines_are_shared(void) { return is_amd(); /* not measured elsewhere */ }

bool shmq__pause_is_short(void) { return is_amd(); }

uint64_t shmq__private_cache_bytes(void) {
#ifdef _SC_LEVEL2_CACHE_SIZE
  long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? (uint64_t)bytes : 0;
#else
  return 0;
#endif
}
