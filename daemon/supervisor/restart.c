/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/restart.h"

#include <stdbool.h>

static bool too_many(const struct restart *r, const struct restart_policy *p, int64_t now_ns) {
  if (p->failures == 0 || r->count < p->failures) return false;
  int64_t oldest = r->died_ns[(r->count - p->failures) % RESTART_FAILURES_MAX];
  return now_ns - oldest <= p->within_ns;
}

/* Between three and five quarters of it: what died together does not come back together. */
static int64_t spread(int64_t delay_ns, uint32_t random) {
  return delay_ns / 4 * 3 + (int64_t)((double)delay_ns / 2 * random / UINT32_MAX);
}

int64_t restart_after(struct restart *r, const struct restart_policy *p, int64_t started_ns,
                      int64_t now_ns, uint32_t random) {
  r->died_ns[r->count++ % RESTART_FAILURES_MAX] = now_ns;
  if (too_many(r, p, now_ns)) return -1;
  if (now_ns - started_ns >= p->reset_ns) r->delay_ns = 0;
  int64_t delay = r->delay_ns ? r->delay_ns : p->first_ns;
  if (delay > p->most_ns) delay = p->most_ns;
  r->delay_ns = delay > p->most_ns / 2 ? p->most_ns : 2 * delay;
  return spread(delay, random);
}
