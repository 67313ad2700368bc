/* SPDX-License-Identifier: Apache-2.0
 *
 * Segments that others may cut short. Who may write to a segment's file may truncate it as well, and whoever has it mapped
 * and touches what was cut off gets SIGBUS. The worker looks into such segments for the guard and for services; the missing
 * page is then replaced by one of zeros of its own, so that what it was about to do comes to an end: what it finds there makes
 * no sense, and code that looks into segments is made for that. (The memory of sessions is sealed and cannot be cut.)
 */
#ifndef SHMQD_CUT_H
#define SHMQD_CUT_H

/* From now on, in all threads. */
void cut_survive(void);
/* How many pages were missing so far, of what this thread has touched. If that has grown over an operation, what it was
 * done to is not shared any more, where it was cut: nothing that was found is true, and it is to be let go. */
unsigned cut_pages(void);

#endif
