/* SPDX-License-Identifier: Apache-2.0
 *
 * What the processor's caches are like, where that decides how memory is best passed from one CPU to another.
 */
#ifndef SHMQ_OS_PROCESSOR_H
#define SHMQ_OS_PROCESSOR_H

#include <stdbool.h>
#include <stdint.h>

/* Does a line that one CPU wrote and another read stay dirty in the cache of the first ("owned"), as with AMD's? To write
 * such a line again costs several times as much as to write one that the other CPU wrote last. */
bool shmq__dirty_lines_are_shared(void);

/* Does a pause take no longer than a look at a few words, as with AMD's (20 ns)? With Intel's it takes 40. */
bool shmq__pause_is_short(void);

/* Bytes of the largest cache that a CPU has for itself; 0: not known. */
uint64_t shmq__private_cache_bytes(void);

#endif
