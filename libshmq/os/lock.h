/* SPDX-License-Identifier: Apache-2.0
 *
 * Open-file-description locks on single bytes of a file: the kernel's word on who lives. A lock belongs
 * to the open file description, so it goes when the last descriptor of it does: at the owner's death, in
 * any pid namespace, whatever else the process closes.
 */
#ifndef SHMQ_OS_LOCK_H
#define SHMQ_OS_LOCK_H

#include <stdint.h>

/* Take the exclusive lock on `byte`. Returns 0, -EAGAIN somebody else's description holds it, -errno. A
 * description that holds the lock already gets 0. */
int shmq__lock_try(int fd, uint32_t byte);
void shmq__lock_release(int fd, uint32_t byte);

/* Would shmq__lock_try fail? Disturbs nobody and needs no write access. Returns 1, 0 or -errno. */
int shmq__lock_is_held(int fd, uint32_t byte);

#endif
