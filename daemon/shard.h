/* SPDX-License-Identifier: Apache-2.0
 *
 * Several shards: their threads, and what one asks of another. The first runs on the worker's own thread, and has the
 * supervisor's words and the guard; it alone calls what takes a daemon.
 */
#ifndef SHMQD_SHARD_H
#define SHMQD_SHARD_H

#include "daemon.h"

enum { SHARDS_MAX = 64 };

/* Make them, each with its thread pinned and its ring open. All but the first are stopped; if it fails, until the
 * process ends. */
int shards_open(struct daemon *daemon);
/* Have the others stop between two turns, and go on: meanwhile everything is the caller's. */
void shards_stop(struct daemon *daemon);
void shards_go(struct daemon *daemon);
/* End the others' loops, and wait for that. */
void shards_end(struct daemon *daemon);

/* Send something to another shard. It is delivered there, in the order in which it was sent from here. */
void shard_post(struct shard *to, struct post *post);

/* What a shard is asked to do, once however often it was asked before it came to it. */
enum errand {
  ERRAND_LOOK = 1,  /* something that it looks at in each turn has changed */
  ERRAND_DRAIN = 2, /* draining has begun */
  ERRAND_KNOW = 4,  /* all sessions of the worker before are here */
  ERRAND_STOP = 8
};
void shard_ask(struct shard *shard, enum errand errand);
void shards_ask_others(struct daemon *daemon, enum errand errand);

/* Deliver what was sent to it; returns how much. */
int shard_deliver(struct shard *shard);
/* Nothing was found in this turn: may it sleep in its ring? */
bool shard_may_sleep(struct shard *shard);

/* While draining: whether anything is under way here; and, at one moment, on none. */
void shard_set_quiet(struct shard *shard, bool quiet);
bool shards_quiet(const struct daemon *daemon);

/* ---- away.c: requests of a session for resources of another shard ---- */

/* Have its resource's shard serve it. */
void request_send(struct request *r);
/* It was answered there: take the answer to where its session is. `data` is copied unless it is the request's memory. */
void request_return(struct request *r, const struct answer *answer);
/* Answer with what came back. */
void request_answer(struct request *r, const struct answer *answer);

#endif
