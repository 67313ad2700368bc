/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of a server; shared by service.c, reply.c and cancelled.c.
 */
#ifndef SHMQ_RPC_SERVICE_H
#define SHMQ_RPC_SERVICE_H

#include "rpc/format.h"

enum { INCOMING_DONE = 0, INCOMING_OPEN = 1 };

/* One asker's queues, opened when its first request comes, and what was last known of it. */
struct reply_slot {
  shmq *reply;
  shmq *cancel;
  uint32_t asker;
  uint32_t generation;
  int64_t looked_ns; /* when it was last seen to live */
};

struct shmq_service {
  shmq_segment *segment;
  shmq *requests;
  shmq_view *view; /* opened when somebody cancels for the first time */
  char *name;      /* to open the view by, or */
  int fd;          /* a duplicate to open it by; -1: by name */
  unsigned flags;
  enum shmq_redeliver redeliver;
  uint32_t slots;
  struct reply_slot *slot;
  shmq_service_stats stats;
};

/* The slot a request names, its queues open. NULL: it names none. */
struct reply_slot *shmq__slot_of(shmq_service *service, const shmq_request_header *header);

/* Does the asker live? Asks the kernel at most every few ms for one asker unless `now`. */
bool shmq__asker_alive(shmq_service *service, const shmq_request_header *header, bool now);

/* Does the asker's cancel queue name this request? */
bool shmq__is_cancelled(shmq_service *service, const shmq_request_header *header);

#endif
