/* SPDX-License-Identifier: Apache-2.0
 *
 * os/ for processes of the scheduler: its sleepers, its locks, its clock, and one mapping for all.
 */
#include <errno.h>
#include <stddef.h>

#include "model_hooks.h"
#include "os/futex.h"
#include "os/lock.h"
#include "os/object.h"
#include "os/process.h"
#include "os/processor.h"
#include "scheduler.h"

int shmq__futex_wait(_Atomic uint32_t *word, uint32_t value, int64_t deadline_ns) {
  return sched_sleep(word, value, deadline_ns);
}
int shmq__futex_wake(_Atomic uint32_t *word, int n) { return sched_wake(word, n); }
int shmq__futex_waitv(const struct shmq__futex_item *items, unsigned n, int64_t deadline_ns) {
  (void)items, (void)n, (void)deadline_ns;
  return -ENOSYS;
}
/* Interleavings are sequentially consistent here; wake.pml is about store buffers. */
bool shmq__barrier_register(void) { return true; }
bool shmq__barrier_others(void) {
  model_step(NULL, MODEL_BARRIER);
  return true;
}

int shmq__lock_try(int fd, uint32_t byte) { return sched_lock(fd, byte); }
void shmq__lock_release(int fd, uint32_t byte) { sched_unlock(fd, byte); }
int shmq__lock_is_held(int fd, uint32_t byte) {
  (void)fd;
  return sched_locked(byte);
}

int64_t shmq__now_ns(void) { return sched_clock(); }
int64_t shmq__wall_clock_ns(void) { return 1; }
void shmq__sleep_ns(int64_t ns) { (void)ns; }
int shmq__cpu_count(void) { return 1; } /* nobody spins */
bool shmq__dirty_lines_are_shared(void) { return true; } /* what is done about it is to change nothing */
uint64_t shmq__private_cache_bytes(void) { return UINT64_MAX; }
bool shmq__pause_is_short(void) { return true; }
uint64_t shmq__pid_namespace(void) { return 1; }
void shmq__process_self(struct shmq__process *out) {
  *out = (struct shmq__process){.pid = 1, .pid_ns = 1, .start_time = 1};
}
char shmq__process_state(const struct shmq__process *process, int32_t *wait_status) {
  (void)process;
  if (wait_status) *wait_status = -1;
  return 0;
}
int shmq__at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void)) {
  (void)before, (void)in_parent, (void)in_child;
  return 0;
}

/* Everybody attaches to the same mapping (linked with --wrap). */
void *__real_shmq__object_map(int fd, uint64_t bytes, bool writable);
void *__wrap_shmq__object_map(int fd, uint64_t bytes, bool writable);
void __wrap_shmq__object_unmap(void *memory, uint64_t bytes);
void *model_memory;
void *__wrap_shmq__object_map(int fd, uint64_t bytes, bool writable) {
  (void)writable;
  if (!model_memory) model_memory = __real_shmq__object_map(fd, bytes, true);
  return model_memory;
}
void __wrap_shmq__object_unmap(void *memory, uint64_t bytes) { (void)memory, (void)bytes; }
