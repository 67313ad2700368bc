/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQ_ATTACH_H
#define SHMQ_ATTACH_H

#include "core/segment.h"

/* Map the object of fd read-only or writable and check its immutable part; fills the parts of *s that do not
 * depend on the lock. -ENOENT never completed, -EPROTO, -EBADMSG, -ETIMEDOUT, -ENOMEM. */
int shmq__segment_map(struct shmq_segment *s, int fd, bool writable);
void shmq__segment_unmap(struct shmq_segment *s);

/* Join, and note for shmq_nospace_detail what was missing. */
int shmq__join(struct shmq_segment *s, const char *role, const char *label);

void shmq__nospace_set(enum shmq_nospace what, uint64_t needed, uint64_t available);

#endif
