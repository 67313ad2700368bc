/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts of files that are read again and again, mapped and locked in memory. A read that the page cache can answer costs the
 * kernel more to find the page, and to be entered and left, than to copy it: such a part is copied from the mapping
 * instead. A mapping is the page cache, so what was written by whomever is what is read.
 *
 *   M1  Nothing is read behind the file's end. Pages that are cut off go (M3), and what is cut off a page is zeros from then
 *       on, when the cut has returned, unless somebody stores behind the end through a mapping of his own: bytes that end in anything else were
 *       the file's when they were copied. Of those that end in zero the length is asked for, after the request was taken, as for what lies behind the end that
 *       was known.
 *   M2  Reads seldom wait for the device. What is mapped is locked, on a helper thread; but a file that is cut, or written past
 *       the page cache, loses pages all the same. So it is asked now and then whether it has changed, and read by the kernel if so, until it has
 *       not changed for a while and is locked anew.
 *   M3  What is cut off while it is copied is found out (cut.h) and the copy thrown away.
 *
 * Windows belong to the descriptor through which they were read: two that look like one file may be two (overlayfs). All of it
 * belongs to the resource's thread.
 */
#ifndef SHMQD_RESOURCE_MAPPED_H
#define SHMQD_RESOURCE_MAPPED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mapped; /* a resource's */
struct mapped_file;
struct session;
struct shard;

/* At most so many bytes at a time. */
int mapped_open(struct mapped **out, struct shard *shard, uint64_t budget);
void mapped_close(struct mapped *mapped);
/* No helper works for it. */
bool mapped_is_idle(const struct mapped *mapped);

/* A descriptor that a session reads; *place is set to it, or to NULL: it is not to be mapped. It is set to NULL when it is
 * forgotten. */
void mapped_file_add(struct mapped *mapped, const struct session *session, void **place);
/* Before the descriptor is closed. */
void mapped_file_forget(struct mapped_file *file);
void mapped_leave(struct mapped *mapped, const struct session *session);

/* How much was copied, 0: the file ends there, -EAGAIN: it has to be read. */
ssize_t mapped_read(struct mapped_file *file, int fd, void *to, size_t bytes, uint64_t offset);
/* The page cache had what was read there: a few more of these and it is mapped. */
void mapped_seen(struct mapped_file *file, int fd, uint64_t offset);

#endif
