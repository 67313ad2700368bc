/* SPDX-License-Identifier: Apache-2.0
 *
 * What client and server must agree on beside the headers: the names of a service's queues.
 *
 *   requests[.always|.never]  many askers, many servers. What becomes of a dead server's requests is a
 *                             part of the name: it is fixed with the geometry, in one step.
 *   reply.0 .. reply.N-1      one for each asker, who holds it by the consumer's role.
 *   aside                     requests that the server keeps for long, of services that have it: aside.c
 *   cancel.0 .. cancel.N-1    requests that asker N takes back: {request id} each. Servers never take
 *                             from it, they look (inspect.h); the asker removes what has settled.
 */
#ifndef SHMQ_RPC_FORMAT_H
#define SHMQ_RPC_FORMAT_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shmq/inspect.h"
#include "shmq/rpc.h"

enum {
  REPLIES_PER_CREDIT =
      4, /* reply queue cells: answers, held answers, stream parts, a predecessor's */
  CANCELS_PER_CREDIT = 4,
  ASIDE_CELLS = 2, /* for each request that may be put aside */
  ASIDE_CELLS_MIN = 16,
  ASKERS_DEFAULT = 32,
  ASKERS_MAX = 500,
  CREDITS_DEFAULT = 32,
  CREDITS_MAX = 1 << 16,
  PAYLOAD_DEFAULT = 192,
  ATTEMPTS_DEFAULT = 3,
  SHORT_BYTES =
      PAYLOAD_DEFAULT + SHMQ_RPC_HEADER_BYTES /* messages that are copied, not written in place */
};

_Static_assert(sizeof(shmq_request_header) == SHMQ_RPC_HEADER_BYTES, "one line");
_Static_assert(sizeof(shmq_reply_header) == SHMQ_RPC_HEADER_BYTES, "one line");

#define ASIDE_NAME "aside"

typedef struct shmq__cancel {
  uint64_t id;
  uint32_t asker;
  uint32_t generation;
} shmq__cancel;

static inline void shmq__slot_name(char name[SHMQ_QUEUE_NAME_MAX + 1], const char *what,
                                   uint32_t slot) {
  snprintf(name, SHMQ_QUEUE_NAME_MAX + 1, "%s.%u", what, slot);
}

/* Name of the request queue of a service with this policy. */
const char *shmq__requests_name(enum shmq_redeliver redeliver);

/* Open the request queue of an attached service and learn its policy. -ENOTTY: it is none. */
int shmq__open_requests(shmq **out, shmq_segment *segment, unsigned flags,
                        enum shmq_redeliver *redeliver);

#endif
