/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of an asker. A future's life:
 *
 *   FREE -> PENDING -> SETTLED -> FREE     the answer came, was looked at, and the caller freed it
 *           PENDING -> SETTLED -> ORPHAN -> FREE   it expired; its answer may still come
 *           PENDING -> ORPHAN -> FREE      the caller freed it first
 *
 * `answered` is apart from the state: until the server has answered, the request holds its credit,
 * because there must be room for that answer whether anybody wants it or not.
 */
#ifndef SHMQ_RPC_CLIENT_H
#define SHMQ_RPC_CLIENT_H

#include "rpc/format.h"

enum future_state { FUTURE_FREE, FUTURE_PENDING, FUTURE_SETTLED, FUTURE_ORPHAN };

enum { ANSWERS_MOST = 16 }; /* taken in at once */

/* A part of a streamed answer, copied. */
struct part {
  struct part *next;
  shmq_result result;
  _Alignas(16) unsigned char data[];
};

/* A step of a chain. */
struct step {
  struct step *next;
  shmq_step_fn *on_value, *on_error;
  void *ctx;
};

struct shmq_future {
  shmq_client *client;
  uint64_t id; /* serial << 16 | index in the client's table */
  enum future_state state;
  bool answered; /* the server's last word came: the credit is back */
  bool idempotent;
  bool cancelled;
  bool observed; /* somebody has collected the result */
  bool seen;     /* somebody may keep a pointer into its payload */
  bool in_ready; /* on the client's ready list */
  bool running;  /* a step of its chain is on the stack */
  int64_t deadline_ns;
  shmq_result result;
  shmq_message held; /* the answer's message while it is read in place; data NULL: none */
  struct shmq_future *held_next, *held_prev; /* by age */
  void *moved; /* its payload when it had to make way before anybody looked */
  struct part *parts, **parts_end, *current;
  struct step *steps, **steps_end;
  struct shmq_future *ready_next;
  _Alignas(16) unsigned char copy[]; /* payload of an answer that fitted a cell */
};

struct shmq_client {
  shmq_segment *segment;
  shmq *requests, *reply, *cancels;
  shmq_view *view; /* opened at the first look */
  uint32_t aside;  /* the number of that queue; 0: there is none */
  char *name;
  int fd;
  int socket; /* the daemon's, or -1 */
  enum shmq_redeliver redeliver;
  uint32_t slot, asker, generation, credits;
  uint32_t epoch; /* the latest that any answer told */
  size_t cell_bytes;
  unsigned char *scratch; /* ANSWERS_MOST cells' worth: the answers being taken in */
  unsigned spins;

  uint32_t outstanding; /* requests without an answer */
  uint64_t serial;
  shmq_future **table; /* by index; FREE ones are kept for the next request */
  uint32_t table_count, table_room;
  uint32_t free_hint;
  shmq_future *oldest_held, *newest_held;
  uint64_t last_position; /* of the newest answer taken; but for tombstones */
  shmq_future *ready, **ready_end;
  bool news; /* came since the descriptor was armed, and no chain waits for it */
  bool hung_up; /* the daemon has gone, for good */
  shmq_future *call;             /* of the latest shmq_call */
  uint32_t cancels_queued;       /* messages in the cancel queue */
  uint32_t cancels_pending;      /* futures they may still concern */
  int64_t look_ns, look_step_ns; /* the next look for the dead */
  shmq_uncollected_fn *uncollected;
  void *uncollected_ctx;
  shmq_client_stats stats;
};

/* ---- client.c ---- */
int shmq__client_open_view(shmq_client *client);

/* ---- settle.c: what an answer does to its future ---- */
shmq_future *shmq__future_new(shmq_client *client);
/* The one that waits for the answer to this request. */
shmq_future *shmq__future_find(shmq_client *client, uint64_t id);
void shmq__future_reset(shmq_future *future);
/* Take one answer in, waiting for it until the deadline. 0, or the lease's error. */
int shmq__take_answer(shmq_client *client, int64_t deadline_ns);
/* An error that nobody collected goes to the hook, once. */
void shmq__report_uncollected(shmq_future *future);
/* Settle it from this side. */
void shmq__settle_locally(shmq_future *future, int status, uint8_t executed);
void shmq__make_ready(shmq_future *future);
/* Copy held answers out of the reply queue until the outstanding answers and `more` have room.
 * -EBUSY: somebody has looked at one where it lies. */
int shmq__make_way(shmq_client *client, uint32_t more);
void shmq__tidy_cancels(shmq_client *client);
static inline bool shmq__has_news(const shmq_future *f) {
  return f->state == FUTURE_SETTLED || f->parts;
}

/* ---- wait.c: sleeping, deadlines, and who has died ---- */
/* Take at least one answer, or wait until the deadline or until something expired or died.
 * 0: something happened; -EAGAIN, -ETIMEDOUT: the deadline; -EBUSY as shmq__make_way; -EOWNERDEAD: the daemon has gone
 * and nothing is left that could happen; another error: the queue is unusable. */
int shmq__wait_news(shmq_client *client, int64_t deadline_ns);
/* Has the daemon of this session gone? */
bool shmq__session_over(shmq_client *client);
/* Settle what has expired and, when it is time for that, what died with its server. True: there was any. */
bool shmq__look(shmq_client *client, int64_t now_ns);
/* When to wake up by oneself: the deadline, a future's, or to look. */
void shmq__begin_wait(shmq_client *client, int64_t now_ns);
int64_t shmq__wake_at(const shmq_client *client, int64_t deadline_ns);

#endif
