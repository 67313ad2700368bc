/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQ_BASE_ALIGN_H
#define SHMQ_BASE_ALIGN_H

#include <stdint.h>

/* n rounded up to a multiple of a power of two. The caller excludes overflow. */
static inline uint64_t align_up(uint64_t n, uint64_t to) { return (n + to - 1) & ~(to - 1); }

/* The least power of two >= n, for 1 <= n <= 2^31. */
static inline uint32_t power_of_two(uint32_t n) {
  return n <= 1 ? 1 : UINT32_C(1) << (32 - __builtin_clz(n - 1));
}

#endif
