/* SPDX-License-Identifier: Apache-2.0
 *
 * Services: programs that serve a queue, each section [service:NAME] with its instances.
 */
#ifndef SHMQD_SERVICE_H
#define SHMQD_SERVICE_H

#include "config.h"
#include "supervisor/restart.h"

struct supervisor;
struct channel_message;

extern const struct section_kind service_kind;

/* What no section can say by itself: names in `after` that are not there, circles. */
int services_check(const struct config *config, struct config_error *error);
/* Is that name one of the words of an `after`? */
bool service_names(const char *after, const char *name);

int services_open(struct supervisor *supervisor);
void services_close(struct supervisor *supervisor);
/* Something has become ready, or has gone: start who waited for it; or, draining, stop who is not needed. */
void services_go_on(struct supervisor *supervisor);
/* The worker has looked into a service's segment. */
void services_seen(struct supervisor *supervisor, const struct channel_message *message);

/* The parameters of a restart policy, in every section that has one. */
#define RESTART_PARAMS(most)                                                                     \
  {"restart_first",                                                                              \
   PARAM_DURATION,                                                                               \
   "100ms",                                                                                      \
   0,                                                                                            \
   INT64_C(3600000000000),                                                                       \
   NULL,                                                                                         \
   "how long after a death it is started again; doubled by each further death",                  \
   PARAM_FIXED},                                                                                 \
      {"restart_most", PARAM_DURATION,           most,       0, INT64_C(3600000000000),          \
       NULL,           "the longest such delay", PARAM_FIXED},                                   \
      {"restart_reset",                                                                          \
       PARAM_DURATION,                                                                           \
       "60s",                                                                                    \
       0,                                                                                        \
       INT64_MAX,                                                                                \
       NULL,                                                                                     \
       "what has lived so long begins with the first delay again",                               \
       PARAM_FIXED},                                                                             \
      {"restart_failures",                                                                       \
       PARAM_COUNT,                                                                              \
       "5",                                                                                      \
       0,                                                                                        \
       RESTART_FAILURES_MAX,                                                                     \
       NULL,                                                                                     \
       "so many deaths in restart_within, and it has failed; 0: never",                          \
       PARAM_FIXED},                                                                             \
  {                                                                                              \
    "restart_within", PARAM_DURATION, "10s", 0, INT64_MAX, NULL, "the time of restart_failures", \
        PARAM_FIXED                                                                              \
  }
struct restart_policy restart_policy_of(const struct section *section);

#endif
