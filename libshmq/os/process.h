/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernel says of processes, and the clocks.
 */
#ifndef SHMQ_OS_PROCESS_H
#define SHMQ_OS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

int64_t shmq__now_ns(void);          /* CLOCK_MONOTONIC */
int64_t shmq__wall_clock_ns(void);   /* CLOCK_REALTIME */
void shmq__sleep_ns(int64_t ns);
int shmq__cpu_count(void);           /* online; where this thread is pinned to says nothing about its peers */

struct shmq__process {
  int32_t pid;
  uint64_t pid_ns;     /* inode of the pid namespace, 0: not known */
  uint64_t start_time; /* field 22 of /proc/PID/stat, 0: not known */
};
/* This process. Costs two looks into /proc; the caller keeps the answer until it forks. */
void shmq__process_self(struct shmq__process *out);

/* The state letter of a process in this pid namespace as /proc/PID/stat has it, 0: no such process, or one
 * with another start time. *wait_status, when not NULL, gets a zombie's, or -1. */
char shmq__process_state(const struct shmq__process *process, int32_t *wait_status);
uint64_t shmq__pid_namespace(void);

/* Run these around each fork of this process: before it and after it in the parent, and in the child
 * before fork returns there. Registers once, for the library. Returns 0 or -errno. */
int shmq__at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void));

#endif
