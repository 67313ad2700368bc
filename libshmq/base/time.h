/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQ_BASE_TIME_H
#define SHMQ_BASE_TIME_H

#include <stdint.h>

/* a + b of non-negative nanosecond values, saturating at INT64_MAX. */
static inline int64_t time_add(int64_t a, int64_t b) { return b > INT64_MAX - a ? INT64_MAX : a + b; }
static inline int64_t time_min(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
