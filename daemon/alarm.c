/* SPDX-License-Identifier: Apache-2.0 */
#include "alarm.h"

#include "shmq/shmq.h"

static int compare(const struct alarm *a, const struct alarm *b) {
  if (a->due_ns != b->due_ns) return a->due_ns < b->due_ns ? -1 : 1;
  return (uintptr_t)a < (uintptr_t)b ? -1 : a != b;
}

/* Not static: we use only some of them. */
RB_PROTOTYPE(alarms, alarm, node, compare)
RB_GENERATE(alarms, alarm, node, compare)

void alarm_clear(struct alarms *alarms, struct alarm *alarm) {
  if (alarm->set) RB_REMOVE(alarms, alarms, alarm);
  alarm->set = false;
}

void alarm_set(struct alarms *alarms, struct alarm *alarm, int64_t due_ns) {
  alarm_clear(alarms, alarm);
  alarm->due_ns = due_ns;
  alarm->set = true;
  RB_INSERT(alarms, alarms, alarm);
}

int64_t alarms_next(struct alarms *alarms) {
  const struct alarm *first = RB_MIN(alarms, alarms);
  return first ? first->due_ns : SHMQ_FOREVER;
}

/* One that sets itself again does so for later than now. */
void alarms_run(struct alarms *alarms) {
  if (RB_EMPTY(alarms)) return;
  int64_t now = shmq_now_ns();
  for (struct alarm *a; (a = RB_MIN(alarms, alarms)) && a->due_ns <= now;) {
    alarm_clear(alarms, a);
    a->ring(a);
  }
}
