/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "os/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct timespec *timespec_of(int64_t ns, struct timespec *ts) {
  if (ns == INT64_MAX) return NULL;
  ts->tv_sec = ns / 1000000000;
  ts->tv_nsec = ns % 1000000000;
  return ts;
}

int shmq__futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline_ns) {
  struct timespec ts;
  /* FUTEX_WAIT_BITSET takes an absolute time, so a retry cannot stretch the deadline. */
  long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, timespec_of(deadline_ns, &ts), NULL,
                    FUTEX_BITSET_MATCH_ANY);
  return rc == 0 ? 0 : -errno;
}

int shmq__futex_wake(_Atomic uint32_t *word, int n) {
  long rc = syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
  return rc < 0 ? 0 : (int)rc;
}

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
/* Debian 12's kernel headers have these; the names are ours so that older headers do as well. */
struct waitv_entry {
  uint64_t value;
  uint64_t address;
  uint32_t flags;
  uint32_t reserved;
};
enum { WAITV_MAX = 128, WAITV_SIZE_U32 = 2 };

int shmq__futex_waitv(const struct shmq__futex_item *items, unsigned n, int64_t deadline_ns) {
  struct waitv_entry entries[WAITV_MAX];
  struct timespec ts;
  if (n == 0 || n > WAITV_MAX) return -EINVAL;
  for (unsigned i = 0; i < n; i++)
    entries[i] = (struct waitv_entry){.value = items[i].value,
                                      .address = (uint64_t)(uintptr_t)items[i].word,
                                      .flags = WAITV_SIZE_U32};
  long rc = syscall(SYS_futex_waitv, entries, n, 0, timespec_of(deadline_ns, &ts), CLOCK_MONOTONIC);
  return rc >= 0 ? 0 : -errno;
}

bool shmq__barrier_register(void) {
  /* Once a process: with several threads it waits for a grace period of the kernel's. Forked children
   * inherit it. */
  static _Atomic bool registered;
  if (atomic_load_explicit(&registered, memory_order_relaxed)) return true;
  bool ok = syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
  atomic_store_explicit(&registered, ok, memory_order_relaxed);
  return ok;
}

bool shmq__barrier_others(void) {
  return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}
