/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_GUARD_H
#define FUZZ_GUARD_H

struct shmq_segment;

/* Poison what lies in an attached segment and belongs to nobody. */
void guard_poison(const struct shmq_segment *s);

#endif
