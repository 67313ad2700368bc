/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQ_OS_FUTEX_H
#define SHMQ_OS_FUTEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Sleep while *word == value, until the absolute CLOCK_MONOTONIC deadline (INT64_MAX: for ever).
 * Returns 0 woken (or spuriously), -EAGAIN the word differs, -ETIMEDOUT, -EINTR. */
int shmq__futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline_ns);

/* Wake up to n sleepers in any process. Returns how many were woken. */
int shmq__futex_wake(_Atomic uint32_t *word, int n);

struct shmq__futex_item {
  _Atomic uint32_t *word;
  uint32_t value;
};
/* Sleep on several words at once, at most 128. Returns as shmq__futex_wait; -ENOSYS before Linux 5.16. */
int shmq__futex_waitv(const struct shmq__futex_item *items, unsigned n, int64_t deadline_ns);

/* Ask the kernel to count this process among those that shmq__barrier_others orders. False: the
 * process must order its own fast path. */
bool shmq__barrier_register(void);

/* Every registered process executes a full barrier before this returns. False: it could not be had. */
bool shmq__barrier_others(void);

#endif
