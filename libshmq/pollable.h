/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQ_POLLABLE_H
#define SHMQ_POLLABLE_H

#include "queue.h"

void shmq__pollable_free(shmq *q);

#endif
