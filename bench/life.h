/* SPDX-License-Identifier: Apache-2.0
 *
 * Groups of figures about one queue's life: how soon a message comes at a fixed rate, what a sleeper costs, what
 * opening, creating and recovering cost.
 */
#ifndef BENCH_LIFE_H
#define BENCH_LIFE_H

#include "suite.h"

void figures_rate(struct suite *s);
void figures_idle(struct suite *s);
void figures_open(struct suite *s);
void figures_recovery(struct suite *s);

#endif
