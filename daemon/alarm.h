/* SPDX-License-Identifier: Apache-2.0
 *
 * What is to happen at a time. The loop waits no longer than until the first alarm is due; nothing is asked of
 * the kernel for each. The struct stands in whatever it is for, so setting one cannot fail.
 */
#ifndef SHMQD_ALARM_H
#define SHMQD_ALARM_H

#include <bsd/sys/tree.h>
#include <stdbool.h>
#include <stdint.h>

struct alarm {
  int64_t due_ns; /* CLOCK_MONOTONIC */
  void (*ring)(struct alarm *alarm);
  bool set;
  RB_ENTRY(alarm) node;
};

/* Ordered by time. Zero-initialised it is empty. */
RB_HEAD(alarms, alarm);

/* Set it, or move it. It rings once. */
void alarm_set(struct alarms *alarms, struct alarm *alarm, int64_t due_ns);
void alarm_clear(struct alarms *alarms, struct alarm *alarm);
/* When the first is due; SHMQ_FOREVER: there is none. */
int64_t alarms_next(struct alarms *alarms);
/* Ring those that are due. */
void alarms_run(struct alarms *alarms);

#endif
