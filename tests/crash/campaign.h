/* SPDX-License-Identifier: Apache-2.0
 *
 * A campaign kills one call, in one state and one mode, at many instructions.
 */
#ifndef CRASH_CAMPAIGN_H
#define CRASH_CAMPAIGN_H

#include "world.h"

enum kind {
  KIND_KILL,    /* SIGKILL at state n */
  KIND_STOP,    /* SIGSTOP at state n, the peer goes on, SIGCONT */
  KIND_RECOVER, /* SIGKILL at state n, then recover killed at state m */
  KIND_REJOIN,  /* SIGKILL at state n, then join into the dead one's slot killed at state m */
  KIND_TWIN,    /* SIGKILL at state n, then a second victim in the same call at state m */
  KIND_COUNT
};
extern const char *const kind_names[KIND_COUNT];

struct plan {
  bool full;       /* every instruction; else those around each shared write and each system call */
  uint32_t stride; /* and every stride-th of the others */
  int64_t only_n, only_m; /* one point, -1: all */
};

struct job {
  const struct call *call;
  enum state state;
  enum mode mode;
  enum kind kind;
};

/* Where a worker stands, for whoever finds it dead. */
struct place {
  volatile uint32_t n, m;
};

void campaign(const struct job *job, const struct plan *plan, const char *name, struct page *pages,
              struct place *place, struct tally *tally);

#endif
