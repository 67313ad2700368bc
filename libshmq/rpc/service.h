/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of a server.
 */
#ifndef SHMQ_RPC_SERVICE_H
#define SHMQ_RPC_SERVICE_H

#include <sys/queue.h>

#include "rpc/format.h"

enum { INCOMING_DONE = 0, INCOMING_OPEN = 1 };
enum { GROUP_MAX = SHMQ_COMMIT_MAX / 2 };

/* An answer that is written and not sent yet, and the request that ends with it. */
struct kept_answer {
  shmq *queue;
  shmq_message answer, request;
};

/* A request that was put aside: where it stands now. */
struct shmq__aside {
  TAILQ_ENTRY(shmq__aside) in_held;
  shmq_message message;
  unsigned char *bytes; /* of the message: of its block, or the copy */
  _Alignas(16) unsigned char copy[];
};

/* One asker's queues, opened when its first request comes, and what was last known of it. */
struct reply_slot {
  shmq *reply;
  shmq *cancel;
  uint32_t asker;
  uint32_t generation;
  int64_t looked_ns; /* when it was last seen to live */
};

/* A request that is not executed, and whose asker could not be told yet. */
struct refusal {
  struct refusal *next;
  shmq_incoming incoming;
  int status;
  uint8_t executed;
};

struct shmq_service {
  shmq_segment *segment;
  shmq *requests;
  shmq_view *view; /* opened when somebody cancels for the first time */
  char *name;      /* to open the view by, or */
  int fd;          /* a duplicate to open it by; -1: by name */
  unsigned flags;
  uint32_t epoch;
  enum shmq_redeliver redeliver;
  size_t cell_bytes; /* of requests and of replies */
  uint32_t slots;
  struct reply_slot *slot;
  struct refusal *refusals; /* SHMQ_NEVER_WAIT only */
  shmq_message ahead[GROUP_MAX]; /* leased together, not looked at yet */
  int ahead_next, ahead_end;
  struct shmq__aside *ahead_aside[GROUP_MAX]; /* where they stand if a predecessor had put them aside */
  uint64_t newest;                            /* position of the latest request taken from the ring */
  struct kept_answer kept[GROUP_MAX]; /* SHMQ_GROUP_ANSWERS only */
  unsigned kept_count;
  int group; /* how many requests were taken last */
  shmq *aside;        /* NULL: the service has none */
  bool aside_is_ours; /* we are its consumer, and what a predecessor left there is taken */
  bool look_aside;    /* something may have been left there */
  uint32_t aside_count;
  uint64_t aside_end; /* behind the newest that we know of */
  TAILQ_HEAD(aside_list, shmq__aside) aside_held; /* in the order of their positions */
  shmq_service_stats stats;
};

/* ---- aside.c ---- */
int shmq__aside_open(shmq_service *service);
void shmq__aside_close(shmq_service *service);
/* Lease up to n of what a predecessor left into service->ahead. Returns how many, or a negative errno. */
int shmq__aside_inherit(shmq_service *service, int n);
/* It is done with: ack its message if that is still there. */
void shmq__aside_end(shmq_incoming *incoming);

/* Its message, wherever it stands, and the queue that it stands in. */
static inline shmq_message *shmq__message_of(shmq_incoming *in) {
  return in->aside ? &in->aside->message : &in->message;
}
static inline shmq *shmq__queue_of(const shmq_incoming *in) {
  return in->aside ? in->service->aside : in->service->requests;
}

/* The end of a request, if nothing else has ended it. */
static inline void shmq__request_end(shmq_incoming *in) {
  if (in->aside)
    shmq__aside_end(in);
  else if (in->message.data)
    shmq_ack(in->service->requests, &in->message);
}

/* ---- refuse.c ---- */
void shmq__refuse(shmq_incoming *incoming, int status, uint8_t executed);
void shmq__forget(shmq_incoming *incoming);
/* Those that could not be told before. */
void shmq__refuse_again(shmq_service *service);
void shmq__refusals_free(shmq_service *service);

/* ---- reply.c ---- */
/* Send what an earlier server wrote over its request and did not live to send. */
void shmq__finish_in_place(shmq_incoming *incoming);

/* ---- service.c, cancelled.c ---- */
struct reply_slot *shmq__slot_open(shmq_service *service, uint32_t slot);
/* The slot a request names, its queues open. NULL: it names none. */
static inline struct reply_slot *shmq__slot_of(shmq_service *s, const shmq_request_header *h) {
  if (h->slot < s->slots && s->slot[h->slot].cancel) return &s->slot[h->slot];
  return shmq__slot_open(s, h->slot);
}

/* Does this service execute a request again whose server died? */
static inline bool shmq__repeats(const shmq_service *s, const shmq_request_header *h) {
  return s->redeliver == SHMQ_REDELIVER_ALWAYS ||
         (s->redeliver == SHMQ_REDELIVER_IDEMPOTENT && (h->flags & SHMQ_ASK_IDEMPOTENT));
}

/* Does the asker live? Asks the kernel at most every few ms for one asker unless `now`. */
bool shmq__asker_alive(shmq_service *service, const shmq_request_header *header, bool now);
/* The same for who has just looked at the clock. */
bool shmq__asker_alive_at(shmq_service *service, const shmq_request_header *header, bool now,
                          int64_t now_ns);

/* Does the asker's cancel queue name this request? */
bool shmq__is_cancelled(shmq_service *service, const shmq_request_header *header);

#endif
