/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon as its parts see it: sessions bring requests, resources answer them, io does the work.
 * What a shard has belongs to its thread. What shards share changes while they are stopped, or is said to be guarded.
 */
#ifndef SHMQD_DAEMON_H
#define SHMQD_DAEMON_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "alarm.h"
#include "config.h"
#include "inbox.h"
#include "io.h"
#include "rights.h"
#include "say.h"
#include "shmq/rpc.h"

struct daemon;
struct shard;
struct session;
struct resource;
struct request;

/* ---- resources ---- */

/* Dispatch and rights read the same table. */
struct operation {
  uint16_t op;
  enum right right;
  /* Answer the request, now or later, by one of the request_ calls below. */
  void (*serve)(struct request *request);
};

/* A kind of resource: one file in resource/, one row in the table in resource.c. */
struct resource_kind {
  struct section_kind section;
  size_t bytes; /* of its struct, which begins with a struct resource */
  /* Open what its section says. Says why not. */
  int (*open)(struct resource *resource);
  /* What may be asked of it, ended by one without `serve`. */
  const struct operation *operations;
  /* May it be done now? 0, or an errno and a reason. May be NULL. */
  int (*admit)(const struct resource *resource, const struct operation *operation,
               const char **why);
  /* A worker that died had begun it: answer. NULL: it is served as if that had not been. */
  void (*begun)(struct request *request);
  /* Once in each turn of the loop, after requests were taken: for what is done in groups. May be NULL. */
  void (*turn)(struct resource *resource);
  /* A session ends: give up what is kept for it. May be NULL. */
  void (*leave)(struct resource *resource, struct session *session);
  /* All sessions of the worker before are here, or have ended. May be NULL. */
  void (*sessions_known)(struct resource *resource);
  /* Nothing is under way. May be NULL: never is anything but requests. */
  bool (*idle)(const struct resource *resource);
  /* A reload has changed PARAM_LIVE settings. May be NULL. */
  void (*changed)(struct resource *resource);
  void (*close)(struct resource *resource);
};

struct resource {
  const struct resource_kind *kind;
  const struct section *section;
  struct rights *rights; /* its `allow` */
  struct shard *shard;   /* whose thread alone serves it */
  struct resource *next, *shard_next;
  uint16_t number; /* from 1 */
};

extern const struct resource_kind dir_kind, log_kind, pool_kind, timer_kind, kv_kind, stream_kind,
    process_kind;

/* A row in the table of each kind. */
#define SHARD_PARAM                                                                          \
  {                                                                                          \
    "shard", PARAM_COUNT, "0", 0, 64, NULL,                                                  \
        "the shard that it lives on, from 1; 0: one is chosen for each in turn", PARAM_FIXED \
  }

/* What the table of parameters cannot say. */
int resources_check(struct config *config, struct config_error *error);
int resources_open(struct daemon *daemon);
/* Open what `fresh` has and the daemon's configuration has not: all or nothing. */
int resources_add(struct daemon *daemon, const struct config *fresh);
void resources_close(struct daemon *daemon);
/* A reload has changed settings. */
void resources_changed(struct daemon *daemon);
void resources_turn(struct shard *shard);
void resources_know_sessions(struct shard *shard);
bool resources_idle(const struct shard *shard);
/* A session ends: the shard's resources give up what they keep for it. */
void resources_leave(struct shard *shard, struct session *session);
/* Serve a request to it, if it may be done; on its shard. */
void resource_serve(struct request *request);
/* No answer to it can be longer, for no block is. */
size_t resource_answer_most(const struct request *request);
struct resource *resource_find(struct daemon *daemon, uint16_t number);

/* ---- requests ---- */

/* An answer on its way to the session's shard. */
struct answer {
  enum answer_form { ANSWER_VALUE, ANSWER_IN_PLACE, ANSWER_ERROR, ANSWER_STATED } form;
  shmq_answer what; /* its text stays where it is */
  const void *data;
  size_t size;
};

enum request_rest {
  REQUEST_BUSY,
  REQUEST_WAITS, /* somebody else works on it, and in.data is not used meanwhile */
  REQUEST_PARKED /* it waits for what may never come: a worker that ends may leave it to the next */
};

/* One request from its taking to its answer. in.header is our own checked copy; in.data is the client's, who
 * may change it at any time: copy what is parsed. It belongs to the shard of its session and, from request_send until it
 * is answered, to that of its resource. */
struct request {
  shmq_incoming in;
  struct session *session;
  struct resource *resource;
  struct request *next; /* the resource's, or the session's free list */
  bool away;            /* sent to another shard: changed only on the session's */
  _Atomic enum request_rest rest;
  _Atomic bool unwanted; /* cancelled while it was away */
  union {
    struct { /* the resource's, until it has answered */
      struct io_op op;
      uint64_t scratch[6];
    };
    struct answer answer;
  };
  void *memory; /* the resource's; freed with the request */
  struct post post;
};

/* What its resource does with it now. It is BUSY when it comes, and when it is answered. Who says that it is more than
 * that says BUSY again before in.data is used: it may be another then. */
void request_rest(struct request *r, enum request_rest rest);
/* On the session's shard: have it leave the session's queue to others if it stands in their way, and rests. */
void request_make_way(struct request *r);

/* As shmq_cancelled. */
bool request_cancelled(struct request *r);

void request_value(struct request *r, uint64_t value0, uint64_t value1, const void *data,
                   size_t size);
void request_in_place(struct request *r, uint64_t value0, uint64_t value1, size_t size);
void request_error(struct request *r, int status, const char *text);
void request_fail(struct request *r, int status, enum shmq_executed executed, const char *text);

/* An error that left everything as it was. */
static inline void request_refuse(struct request *r, int status, const char *text) {
  request_fail(r, status, SHMQ_EXECUTED_NO, text);
}

/* What a worker has died of is delivered again. Say that executing it begins, where a second execution would not be the
 * same, or would not find its payload as it was; may be called on a helper thread. */
void request_begin(struct request *r);
/* Has a worker that died begun it? */
bool request_begun(const struct request *r);
/* It was asked of somebody who has died since: class PEER_DIED, UNKNOWN. */
void request_died(struct request *r, int status, const char *text);
/* The answer if that matters: -ERESTART, or -ESTALE for what died with that worker; class RESTARTED. */
void request_restarted(struct request *r, int status, enum shmq_executed executed,
                       const char *text);

/* Does the resource allow it to who asks? For what depends on more than the operation. */
bool request_may(const struct request *r, enum right right);

/* Copy the payload as a C string without NULs inside: -EINVAL, -ENAMETOOLONG. */
int request_text(const struct request *r, char *to, size_t room);

static inline uint64_t request_arg(const struct request *r, int i) { return r->in.header.value[i]; }

/* An error's text is a literal: it may have to travel. */

/* ---- handles: descriptors that a client names by number ---- */

/* Of the request's session and resource. Returns a handle (> 0) or -EMFILE. The descriptor is the session's from
 * then on. */
int64_t handle_add(const struct request *r, int fd);
/* Its descriptor, or -EBADF, or -ESTALE: an earlier worker's. */
int handle_fd(const struct request *r, uint64_t handle);
/* What it was opened with. */
int handle_flags(const struct request *r, uint64_t handle);
/* A place for what the resource keeps with it, NULL at first, until the handle is closed or its session has left. */
void **handle_own(const struct request *r, uint64_t handle);
/* An operation on it begins, ends: the descriptor is closed after the last. */
void handle_hold(const struct request *r, uint64_t handle);
void handle_release(const struct request *r, uint64_t handle);
int handle_close(const struct request *r, uint64_t handle);

/* ---- sessions ---- */

/* Serve a session on a shard: both descriptors are the session's from then on unless it fails, when the memory's is
 * closed. To be called on the first shard. */
int session_new(struct shard *shard, int socket, int memory, uint32_t credits);
/* End it: nothing more is taken, what is under way finishes first. */
void session_end(struct session *session, const char *why);
/* Take and begin requests, a bounded number; returns how many. */
int sessions_turn(struct shard *shard);
/* Send the answers that were given since. */
void sessions_send(struct shard *shard);
/* Close the doors for draining; or, for the next worker to go on, only take nothing more. */
void sessions_shut(struct shard *shard);
void sessions_pause(struct shard *shard);
bool sessions_idle(const struct shard *shard);
const struct peer *session_peer(const struct session *session);
uint32_t session_uid(const struct session *session);
int32_t session_pid(const struct session *session);
/* Of its memory: a session has it under every worker, and no other ever does. */
void session_uuid(const struct session *session, uint8_t uuid[16]);
/* On any shard. */
bool session_exists(struct daemon *daemon, const uint8_t uuid[16]);

/* ---- guarding segments ---- */

struct guard;
int guard_open(struct daemon *daemon); /* nothing unless it is configured */
/* A reload has changed settings. */
void guard_changed(struct daemon *daemon);
void guard_stop(struct daemon *daemon);
void guard_close(struct daemon *daemon);

/* ---- shards ---- */

/* One thread, its ring, and the sessions and resources that live on it for life. */
struct shard {
  struct daemon *daemon;
  unsigned index;
  pthread_t thread; /* of all but the first */
  int error;        /* of its opening */
  struct io *io;
  struct alarms alarms;
  struct resource *resources;
  struct session *sessions; /* all */
  struct session *hot;      /* those that are polled, not asleep behind a doorbell */
  struct session *unsent;   /* those with answers that are kept back */
  unsigned lingering;       /* batches that wait for clients that were just answered */
  int64_t patient_ns;       /* when this turn began in which all that are polled are polled beyond `spin`; 0: not all, or none */
  int64_t taken_ns;         /* when others had taken the processor for long */
  int64_t crowded_until_ns; /* nothing is, until then */
  uint64_t takes;           /* raised in each turn, and after requests were taken or came from another shard */
  _Atomic unsigned session_count;
  _Atomic uint64_t requests;    /* ever taken */
  _Atomic uint64_t redelivered; /* of them, a worker had died of */
  _Atomic uint64_t mapped;      /* bytes of files that its resources have mapped */

  /* With others only: shard.c, away.c. */
  int64_t awake_until_ns; /* it was sent something, and may be sent more */
  unsigned away;          /* requests of its sessions that are on other shards */
  struct alarm away_look;
  uint64_t quiet_serial;
  _Atomic uint64_t quiet; /* while draining, which time it is quiet; 0: it is not */
  struct post errand;
  _Atomic unsigned errands;
  struct inbox inbox; /* others write here: a line of its own */
};

/* ---- the daemon ---- */

/* What its shards share. */
struct daemon {
  struct config config;
  const struct section *settings; /* [daemon] */
  const char *directory;          /* NULL: none */
  uint32_t epoch;                 /* of this worker: shmq_client_epoch */
  struct shard *shards;
  unsigned shard_count;
  struct resource *resources; /* all, the newest first */
  uint16_t resource_count;
  int64_t spin_ns, spin_most_ns;
  _Atomic bool draining;
  _Atomic bool keeping; /* the sessions go on with the next worker */
  _Atomic bool over;    /* the loops end */

  /* The first shard's. */
  struct guard *guard;
  struct io_op channel_op; /* the supervisor's words */
  int64_t drain_until_ns;

  /* Several shards. */
  pthread_barrier_t stopped; /* passed by all when they have stopped, and when they go on */
  struct shmq_pin *machine;  /* while they start */
  pthread_mutex_t lock;      /* guards what follows, and the machine */
  LIST_HEAD(, session) open; /* sessions that have not ended */
  char *news;                /* what the supervisor knows of its children, or NULL */
};

/* Become this configuration, wholly, or say why not; `fresh` is still to be freed. */
int daemon_reload(struct daemon *daemon, struct config *fresh);
/* Copies of settings that the loops look at all the time. */
void daemon_read_spin(struct daemon *daemon);
/* Finish what is under way, until a deadline. `keep`: the next worker has the sessions. */
void daemon_drain(struct daemon *daemon, int64_t until_ns, bool keep);

/* The loop of a shard, until all have drained. */
int shard_run(struct shard *shard);
/* Draining has begun: what that means for its sessions. */
void shard_drain(struct shard *shard);
/* Answer a request to resource 0. */
void daemon_serve(struct daemon *daemon, struct request *request);

#endif
