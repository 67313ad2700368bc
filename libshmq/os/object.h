/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory objects: POSIX shm by name, memfds by descriptor.
 */
#ifndef SHMQ_OS_OBJECT_H
#define SHMQ_OS_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* "/shmq." NAME; shm_open adds the directory. out has room for SHMQ__PATH_MAX bytes. */
#define SHMQ__PATH_MAX 224
#define SHMQ__DIRECTORY "/dev/shm"
#define SHMQ__PREFIX "shmq."
/* -EINVAL: empty, with a slash, or starting with a dot; -ENAMETOOLONG. */
int shmq__object_path(const char *name, char out[SHMQ__PATH_MAX]);

int shmq__object_open(const char *path, bool writable);      /* fd, O_CLOEXEC, or -errno */
int shmq__object_create(const char *path, mode_t mode);      /* the same; -EEXIST */
int shmq__object_memfd(const char *name);                    /* sealable */
int shmq__object_seal(int fd);                               /* no shrinking, no growing, no more seals */
int shmq__object_reopen(int fd);                             /* another description of the same object */
int shmq__object_unlink(const char *path);

struct shmq__object_status {
  uint64_t bytes, device, inode;
  unsigned links;
  uint32_t mode, uid, gid;
};
int shmq__object_status(int fd, struct shmq__object_status *out);

/* Give the object `bytes` of real memory, zeroed, dropping what it held. On -ENOSPC *available says
 * what there is. */
int shmq__object_allocate(int fd, uint64_t bytes, uint64_t *available);
int shmq__object_set_mode(int fd, mode_t mode);

/* Returns NULL on failure with errno set. */
void *shmq__object_map(int fd, uint64_t bytes, bool writable);
void shmq__object_unmap(void *memory, uint64_t bytes);
ssize_t shmq__object_read(int fd, void *out, size_t bytes, uint64_t offset);
void shmq__object_close(int fd);

int shmq__random(void *out, size_t bytes);

#endif
