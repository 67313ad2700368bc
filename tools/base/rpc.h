/* SPDX-License-Identifier: Apache-2.0
 *
 * What the commands that ask have in common.
 */
#ifndef TOOLS_BASE_RPC_H
#define TOOLS_BASE_RPC_H

#include <stdbool.h>

#include <shmq/rpc.h>

/* Become an asker of the service NAME; complains. Returns a status. */
int rpc_open(const char *name, shmq_client **client);

/* Ask and wait for the next part of the answer, or for all of it; SIGINT and SIGTERM cancel.
 * `future` is NULL at first and freed by rpc_done. Returns as shmq_await. */
int rpc_ask(shmq_client *client, const shmq_ask *ask, int64_t deadline_ns, shmq_future **future,
            shmq_result *result);

/* Complain about an error that came back. Returns the status that fits. */
int rpc_fail(const char *subject, const shmq_result *result);

const char *rpc_executed(unsigned executed);

#endif
