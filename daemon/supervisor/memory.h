/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQD_MEMORY_H
#define SHMQD_MEMORY_H

#include "config.h"
#include "shmq/rpc.h"

/* The memory of a session, sealed: what it would like to have, within what it may. */
int session_memory(const struct section *settings, const shmq_session_options *wanted,
                   uint32_t *credits, int *fd);

#endif
