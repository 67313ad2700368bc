/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of a session, for the files that share it:
 *
 *   session.c  its beginning and its end
 *   turn.c     sleeping behind the doorbell, taking requests
 *   request.c  a request's struct, and its answer
 *   away.c     requests on other shards, and its end there
 *   handle.c   what a client names by number
 *
 * A session is OPEN -> ENDING -> freed. ENDING takes nothing more and waits until every
 * operation has come back, because the ring may still read or write the client's memory until then. It belongs to its
 * shard; others look at what does not change, and each has a table of handles of its own in it.
 */
#ifndef SHMQD_SESSION_H
#define SHMQD_SESSION_H

#include <sys/socket.h>

#include "daemon.h"

enum session_state { SESSION_OPEN, SESSION_ENDING };

struct handle;

/* What a session is to another shard. */
struct elsewhere {
  struct post post; /* the session leaves; and back: it has left */
  struct session *session;
  struct shard *shard;
  bool visited; /* it has sent requests there */
  bool leaving; /* the post is under way */
  bool again;   /* it is to be sent once more */
};

struct session {
  struct shard *shard;
  struct session *next, *prev;
  LIST_ENTRY(session) in_open; /* daemon.open */
  struct session *hot_next, *hot_prev;
  enum session_state state;
  bool hot;
  bool shut; /* its queue is shut and empty: it ends with its last answer */
  struct peer peer;
  int socket;
  shmq_service *service;
  int64_t active_ns; /* when it last had a request or was answered, as of its turns */
  bool woken;        /* it has become hot since its last turn */
  bool answered;     /* since then, too */
  bool waiting;      /* it had requests under way when it became cold */
  bool soon[2];      /* was it hot again soon, when it had none under way and when it had some? */

  struct request *requests, *free_requests;
  struct request *taken; /* in their order, not begun yet and not counted in in_flight */
  struct session *unsent_next;
  bool unsent; /* it has answers that are kept back */
  uint32_t credits, in_flight;
  uint32_t unlooked; /* requests taken since it was looked at which of them stand in the way */
  struct handle **handles; /* a table for each shard, when it has opened any */
  uint32_t handles_most;
  _Atomic uint32_t handle_count; /* in all of them */
  uint32_t epoch;                /* whose handles these are, see handle.c */

  struct post post;            /* to its shard, when it is new */
  struct elsewhere *elsewhere; /* one for each shard; NULL: there is only one */
  pthread_mutex_t places;      /* with others: where requests lie that are there, and whether they rest */
  struct io_op socket_op, bell_op, cancel_op[2];
  unsigned polls; /* of the four above and of elsewhere's posts, under way */
  bool socket_polled, bell_polled;
};

/* ---- session.c ---- */
void session_make_hot(struct session *session);
void session_make_cold(struct session *session);
/* The last thing under way has come back: the end, if it was waited for. */
void session_free_if_over(struct session *session);
/* The resources give up what they keep for it. */
void session_leave_resources(struct session *session);

/* ---- turn.c ---- */
/* It has an answer to send: at the latest when the loop comes round. */
void session_answered(struct session *session);
/* Take it out of the list of those. */
void session_forget_answers(struct session *session);

/* ---- away.c ---- */
int elsewhere_open(struct session *session);
void elsewhere_close(struct session *session);
/* Tell the shards that it has sent requests to that it leaves. */
void session_leave_others(struct session *session);

/* ---- request.c ---- */
int requests_open(struct session *session);
void requests_close(struct session *session);
/* Take up to `most` requests from the queue (at least 1; as many structs are free) into session->taken. Returns how
 * many, 0, or why the session cannot go on. */
int requests_take(struct session *session, unsigned most);
void request_free(struct request *request);
/* Those that stand in the way of others. */
void requests_make_way(struct session *session);

/* ---- handle.c ---- */
int handles_open(struct session *session);
void handles_close(struct session *session);

#endif
