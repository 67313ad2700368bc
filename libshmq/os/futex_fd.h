/* SPDX-License-Identifier: Apache-2.0
 *
 * A descriptor that polls readable once a futex word was woken: an io_uring of two entries with one FUTEX_WAIT,
 * or, on kernels before 6.7, an eventfd and a helper thread.
 */
#ifndef SHMQ_OS_FUTEX_FD_H
#define SHMQ_OS_FUTEX_FD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct shmq__futex_fd;

/* Returns 0 or -errno. with_thread: do not try io_uring. */
int shmq__futex_fd_make(struct shmq__futex_fd **out, bool with_thread);
void shmq__futex_fd_free(struct shmq__futex_fd *f);
/* Was it made before a fork, by the parent? Then it can only be freed. */
bool shmq__futex_fd_inherited(const struct shmq__futex_fd *f);
int shmq__futex_fd_descriptor(const struct shmq__futex_fd *f);

/* Forget earlier wake-ups and become readable when *word is woken or differs from value. One wait is under way
 * at a time; arming again with the same value while it is does nothing. Not `ordered`: wakers may have missed the
 * announcement (core/wake.h), so become readable within a millisecond as well. */
int shmq__futex_fd_arm(struct shmq__futex_fd *f, _Atomic uint32_t *word, uint32_t value, bool ordered);

#endif
