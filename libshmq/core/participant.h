/* SPDX-License-Identifier: Apache-2.0
 *
 * Participants: who is in a segment, and who of them lives. The exclusive lock on byte i of the segment's
 * file, held through an open file description that nothing else uses, makes a process participant i and
 * proves that it lives. The slot's words only describe it.
 */
#ifndef SHMQ_CORE_PARTICIPANT_H
#define SHMQ_CORE_PARTICIPANT_H

#include "core/segment.h"

/* Enter an attachment into the process's list, and leave it: forked children let go of their parent's
 * locks through that list. */
int shmq__attachment_register(struct shmq_segment *s);
void shmq__attachment_unregister(struct shmq_segment *s);

/* Take a slot; a dead owner's is recovered first. role and label may be NULL. Returns 0, -ENOSPC. */
int shmq__participant_join(struct shmq_segment *s, const char *role, const char *label);

/* Give back everything held and the slot. */
void shmq__participant_leave(struct shmq_segment *s);

/* Get a role whose word names its holder, from a dead one if need be. -EBUSY a living one has it, -EBADMSG. */
int shmq__role_get(struct shmq_segment *s, _Atomic uint32_t *role);

/* Does somebody else guard the segment, alive just now? */
bool shmq__guarded(const struct shmq_segment *s);

/* Recover every dead participant. Returns how many, or -errno. */
int shmq__recover_dead(struct shmq_segment *s);

/* Recover participant i if it is dead. Returns 1 recovered or clean already, 0 alive, -errno. */
int shmq__recover_if_dead(struct shmq_segment *s, uint32_t i);

#endif
