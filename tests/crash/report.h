/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRASH_REPORT_H
#define CRASH_REPORT_H

#include "campaign.h"

/* crash-report.json: totals and one case per job. Returns 0 or -1. */
int report_json(const char *path, const struct job *jobs, const struct tally *tallies, unsigned n);
/* The kill table of docs/design/crash-safety.md: one row per call and kind. */
int report_markdown(const char *path, const struct job *jobs, const struct tally *tallies,
                    unsigned n);
/* Sum of everything that must be zero. */
uint64_t report_faults(const struct tally *t);
void tally_add(struct tally *sum, const struct tally *t);

#endif
