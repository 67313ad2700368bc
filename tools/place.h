/* SPDX-License-Identifier: Apache-2.0
 *
 * --bind PLACES for the commands that start processes.
 */
#ifndef TOOLS_PLACE_H
#define TOOLS_PLACE_H

#include <shmq/shmq.h>

/* Can these places be had? Complains. Returns a status. */
int place_check(const char *places);

/* Bind this process to place `number` and record it in the segment; complains. Returns a status. */
int place_self(const char *places, unsigned number, shmq_segment *segment);

#endif
