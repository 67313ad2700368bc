/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq rpc: ask an owner through a queue, collect the answer when you cannot go on without it.
 *
 *   A *service* is a segment with one request queue, which any number of *askers* put into and any
 *   number of *servers* take from, and one reply queue for each asker. A request carries its
 *   asker, its deadline and a number; the answer, a value or an error, comes back under that number
 *   exactly once. A session with shmqd is a service with one asker, in a sealed memfd.
 *
 *   A reply never reaches anybody but its asker: it names the asker's participant and generation,
 *   and whoever finds somebody else's reply in a queue it has inherited drops and counts it. An asker
 *   has at most *credits* requests out, a quarter of its reply queue, so a server never waits for
 *   room to answer. A server that dies gives its requests back: the next one executes them again
 *   where that is allowed, and the asker learns -EOWNERDEAD, executed = UNKNOWN, where it is not.
 *
 * Conventions are those of shmq.h; a client, service or future that is NULL gives -EINVAL. A client or a service,
 * and all that comes from it, belongs to one thread at a time. A forked child opens its own.
 */
#ifndef SHMQ_RPC_H
#define SHMQ_RPC_H

#include <shmq/shmq.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the format: a 64-byte header and a payload in one message ------------------------------- */

#define SHMQ_RPC_MAGIC UINT32_C(0x31515253) /* "SRQ1" in memory: format 1 */
#define SHMQ_RPC_HEADER_BYTES 64u

enum shmq_rpc_kind { SHMQ_RPC_REQUEST = 1, SHMQ_RPC_REPLY = 2 };

#define SHMQ_ASK_IDEMPOTENT 1u /* executing it twice does what executing it once does */
#define SHMQ_ASK_CAST 2u       /* nobody waits for an answer */
#define SHMQ_ASK_BEGUN 4u      /* the server's: see shmq_begin */

typedef struct shmq_request_header {
  uint32_t magic;
  uint16_t kind;        /* SHMQ_RPC_REQUEST */
  uint16_t flags;       /* SHMQ_ASK_ */
  uint64_t id;          /* the asker's; unique among its requests for as long as the slot is held */
  uint32_t asker;       /* participant index and generation */
  uint32_t generation;
  uint32_t slot;        /* the asker's reply queue: "reply.SLOT" */
  uint16_t resource;    /* which of the server's resources; 0: the server itself */
  uint16_t op;          /* what to do; numbered by the resource */
  int64_t deadline_ns;  /* CLOCK_MONOTONIC; SHMQ_FOREVER: none */
  uint32_t data_offset; /* of the payload from the header's start */
  uint32_t data_bytes;  /* of it; the message may be longer: room for an answer in place */
  uint64_t value[2];
} shmq_request_header;

enum shmq_class {
  SHMQ_CLASS_OK,
  SHMQ_CLASS_CLIENT,      /* the request makes no sense */
  SHMQ_CLASS_AUTH,
  SHMQ_CLASS_NOT_FOUND,
  SHMQ_CLASS_CONFLICT,
  SHMQ_CLASS_BUSY,
  SHMQ_CLASS_QUOTA,
  SHMQ_CLASS_TIMEOUT,
  SHMQ_CLASS_CANCELLED,
  SHMQ_CLASS_IO,
  SHMQ_CLASS_PEER_DIED,
  SHMQ_CLASS_RESTARTED,
  SHMQ_CLASS_UNSUPPORTED,
  SHMQ_CLASS_INTERNAL
};

/* Was it done? NO may always be asked again; UNKNOWN only what is idempotent or carries a key. */
enum shmq_executed { SHMQ_EXECUTED_NO, SHMQ_EXECUTED_YES, SHMQ_EXECUTED_UNKNOWN };

#define SHMQ_REPLY_MORE 1u /* a part of a stream; the answer without it is the last */
#define SHMQ_REPLY_TEXT 2u /* an error: the payload is domain NUL text NUL */

typedef struct shmq_reply_header {
  uint32_t magic;
  uint16_t kind;     /* SHMQ_RPC_REPLY */
  uint16_t flags;    /* SHMQ_REPLY_ */
  uint64_t id;
  uint32_t asker;
  uint32_t generation;
  int32_t status;    /* 0 or a negative errno */
  uint8_t error_class; /* enum shmq_class */
  uint8_t executed;  /* enum shmq_executed */
  uint16_t epoch;    /* the low bits of its server's, see shmq_client_epoch */
  int32_t code;      /* the domain's own error code */
  uint32_t slot;     /* the asker's, as in its request */
  uint32_t data_offset;
  uint32_t data_bytes;
  uint64_t value[2];
} shmq_reply_header;

/* The class that an errno belongs to when nothing more exact is known. */
SHMQ_API enum shmq_class shmq_class_of(int status);
/* Its name in lower case with hyphens, never NULL. */
SHMQ_API const char *shmq_class_name(enum shmq_class error_class);

/* ---- asking ------------------------------------------------------------------------------ */

typedef struct shmq_client shmq_client; /* an asker of one service */
typedef struct shmq_future shmq_future; /* an answer that is still to come, or has come */

/* What a session with the daemon is to have. Zero: the daemon's defaults; it may grant less. */
typedef struct shmq_session_options {
  uint32_t credits;     /* requests out at once */
  uint32_t blocks;      /* the arena: messages longer than a cell */
  uint32_t block_bytes; /* payload of each */
  uint32_t reserved[5];
} shmq_session_options;

/* Become an asker of the service NAME, of a service's descriptor (which stays the caller's), or of the
 * daemon that listens at `path` (NULL: $SHMQD_SOCKET, else $XDG_RUNTIME_DIR/shmqd/control if that exists, else
 * /run/shmqd/control; options may be NULL). flags: SHMQ_SPIN, SHMQ_NOSPIN.
 * Errors: as shmq_attach; -ENOTTY the segment is not a service; -EUSERS every reply queue has a living
 *   holder; connect also: -ECONNREFUSED and -ENOENT no daemon there, -EACCES it refuses this user. */
SHMQ_API int shmq_client_open(shmq_client **out, const char *name, unsigned flags);
SHMQ_API int shmq_client_open_fd(shmq_client **out, int fd, unsigned flags);
SHMQ_API int shmq_client_connect(shmq_client **out, const char *path,
                                 const shmq_session_options *options, unsigned flags);

/* The handshake: the client's first packet on the daemon's SOCK_SEQPACKET socket, and the answer, which
 * carries the session's memfd. The socket stays open for as long as the session. */
#define SHMQ_HELLO_MAGIC UINT32_C(0x31445153) /* "SQD1" in memory */
typedef struct shmq_hello {
  uint32_t magic;
  int32_t status; /* of the answer: 0 or a negative errno */
  shmq_session_options options;
  char label[32]; /* who is asking, for the tools */
  uint32_t epoch; /* of the answer: see shmq_client_epoch */
  uint32_t reserved;
} shmq_hello;

/* Leave: frees every future of this client, as shmq_future_free does; requests still queued are skipped by the
 * server. */
SHMQ_API void shmq_client_close(shmq_client *client);

/* The attachment behind it, and how many requests may be out at once. */
SHMQ_API shmq_segment *shmq_client_segment(shmq_client *client);
SHMQ_API uint32_t shmq_client_credits(const shmq_client *client);

/* Which server answers, where one takes over from another that died: a number that only grows. The daemon counts its
 * workers, from 1; the count goes on over its own restarts. A session is told it when it connects and with each
 * answer, so a change is seen with the first answer of the new worker. What dies with a worker, as handles do, is
 * gone when this is above result.epoch of the answer that gave it. 0: the service does not say. */
SHMQ_API uint32_t shmq_client_epoch(const shmq_client *client);

/* What is asked. Zero-initialise.
 * Shape: the payload is gathered from parts (copied). room asks for that many bytes in which the
 *   server may answer in place; the request then travels in a block and nothing is copied. */
typedef struct shmq_ask {
  uint16_t resource;
  uint16_t op;
  uint32_t flags; /* SHMQ_ASK_IDEMPOTENT */
  uint64_t value[2];
  const struct iovec *parts;
  int part_count;
  size_t room;
} shmq_ask;

/* An answer. Shape: data, domain and text are the future's, until it is freed. */
typedef struct shmq_result {
  int status;   /* 0: a value; else the error's negative errno */
  uint8_t error_class; /* enum shmq_class */
  uint8_t executed;    /* enum shmq_executed */
  uint8_t more; /* more parts of this answer are to come, or all of it */
  uint8_t reserved;
  int32_t code; /* the error's own code in its domain */
  uint32_t epoch; /* of the server that did it, see shmq_client_epoch; 0: no server said this */
  uint64_t value[2];
  void *data;
  size_t size;
  const char *domain; /* "" unless the server said one */
  const char *text;
} shmq_result;

/* Ask and go on.
 * Shape: *future is the caller's to free. Deadline: of the request's whole life; it travels with it.
 *   SHMQ_NOWAIT: do not wait for room in the queue; the request itself then never expires.
 * Errors: -EAGAIN, -ETIMEDOUT no credit, room or block; -EMSGSIZE; -EPIPE shut down; -EOWNERDEAD no credit or room, and
 *   the daemon has gone; -ESTALE the client is the parent's, from before a fork: open another; -EBUSY an answer that
 *   somebody looked at long ago is still read in place and would stop the reply queue: free it. */
SHMQ_API int shmq_request(shmq_client *client, const shmq_ask *ask, int64_t deadline_ns,
                          shmq_future **future);

/* Ask and forget: no answer will come. Errors: as shmq_request. */
SHMQ_API int shmq_cast(shmq_client *client, const shmq_ask *ask, int64_t deadline_ns);

/* Ask and wait. Returns the result's status, or shmq_request's error with *result filled alike. A signal that is
 * handled meanwhile cancels the request and ends the call with -EINTR, executed = UNKNOWN once it was sent.
 * Shape: *result's data is valid until the next shmq_call of this client or shmq_call_done. Of an answer in parts it is
 *   the first, and the others are given up. */
SHMQ_API int shmq_call(shmq_client *client, const shmq_ask *ask, shmq_result *result,
                       int64_t deadline_ns);
SHMQ_API void shmq_call_done(shmq_client *client);

/* Wait for the answer, or the next part of it.
 * Returns: the result's status; with result->more set, -EAGAIN: still pending at deadline_ns, or -EINTR: still
 *   pending when a signal was handled. An answer that has come can be awaited again; the parts of a stream come one
 *   by one, the last with more = 0.
 * Errors: -EBUSY, with result->more set: an answer that somebody looked at long ago is still read in place and stops
 *   the reply queue: free it.
 * Errors in the result: -ETIMEDOUT the request's deadline passed, -EOWNERDEAD its server died,
 *   -ECANCELED, or whatever the server answered. */
SHMQ_API int shmq_await(shmq_future *future, shmq_result *result, int64_t deadline_ns);

/* Has it settled (or has a part come)? Never waits. Returns 1 or 0. */
SHMQ_API int shmq_poll(shmq_future *future);

/* Wait until any, or all, of n futures (of any clients of this thread) have settled.
 * Returns: any: the index of a settled one; all: 0. Errors: -EAGAIN still pending at deadline_ns, -EINTR, -EBUSY as
 *   shmq_await; any: -EINVAL none, or of more than 64 clients. */
SHMQ_API int shmq_await_any(shmq_future **futures, int n, int64_t deadline_ns);
SHMQ_API int shmq_await_all(shmq_future **futures, int n, int64_t deadline_ns);

/* Ask for it not to be done. One that no server has taken is not executed; a running one sees a flag. The
 * future still gets its one answer, often -ECANCELED. Errors: -EALREADY settled. */
SHMQ_API int shmq_cancel(shmq_future *future);

/* Free; a pending one is cancelled first and its answer dropped. An error that nobody has looked at is
 * reported to the client's hook. NULL is allowed. */
SHMQ_API void shmq_future_free(shmq_future *future);

/* Called once for each error that nobody collected. */
typedef void shmq_uncollected_fn(const shmq_result *error, void *ctx);
SHMQ_API void shmq_client_on_uncollected(shmq_client *client, shmq_uncollected_fn *fn, void *ctx);

/* A step of a chain. It gets the result so far and may change it; it returns 0 to go on with a
 * value, or a negative errno to go on with an error. */
typedef int shmq_step_fn(shmq_result *result, void *ctx);

/* Add a step to the chain of a future: on_value runs if what came before is a value, on_error if it is an
 * error; either may be NULL: what came before goes on unchanged. Steps run in
 * shmq_run_pending, or at once there when the future has settled already. Errors: -ENOMEM. */
SHMQ_API int shmq_then(shmq_future *future, shmq_step_fn *on_value, shmq_step_fn *on_error, void *ctx);

/* Take answers in and run the chains that became ready, on this thread; wait for the first until the deadline.
 * Returns how many chains ran, 0 when none was ready in time. Errors: -EINTR, -EBUSY as shmq_await; -EOWNERDEAD the
 * daemon has gone and nothing is pending. */
SHMQ_API int shmq_run_pending(shmq_client *client, int64_t deadline_ns);

/* For event loops, as shmq_event_fd and shmq_event_arm: readable when an answer has come; arming returns 1 also when
 * another call has taken one in since, so look at all futures, and run what is pending, before you arm again. Deadlines
 * and the deaths of servers are noticed by shmq_poll, shmq_run_pending and whatever waits: have a timer call one. */
SHMQ_API int shmq_client_event_fd(shmq_client *client);
SHMQ_API int shmq_client_event_arm(shmq_client *client);

/* Counters of a client. */
typedef struct shmq_client_stats {
  uint64_t asked, answered, expired, owner_died;
  uint64_t dropped; /* answers to somebody else, to an earlier holder of the slot, or to nobody */
} shmq_client_stats;
SHMQ_API void shmq_client_get_stats(const shmq_client *client, shmq_client_stats *stats);

/* ---- serving ----------------------------------------------------------------------------- */

typedef struct shmq_service shmq_service; /* a server of one service */

/* What becomes of a request whose server died in the middle. Part of the service's geometry. */
enum shmq_redeliver {
  SHMQ_REDELIVER_IDEMPOTENT, /* executed again if its asker called it idempotent (default) */
  SHMQ_REDELIVER_ALWAYS,
  SHMQ_REDELIVER_NEVER
};

typedef struct shmq_service_options {
  uint32_t askers;        /* at once; 0: 32, at most 500 */
  uint32_t credits;       /* requests of one asker at once; a power of two; 0: 32 */
  uint32_t capacity;      /* of the request queue; 0: askers * credits */
  uint32_t message_bytes; /* payload that travels in a cell, beside the header; 0: 192 */
  uint32_t blocks;        /* for longer ones; 0: none */
  uint32_t block_bytes;   /* payload of a block */
  uint32_t participants;  /* askers and servers; 0: askers + 32 */
  uint32_t mode;          /* permissions; 0: 0600 */
  uint32_t redeliver;     /* enum shmq_redeliver; at most 3 executions of one request */
  uint32_t single;        /* 1: one asker and one server, which need no atomic swaps: a session */
  uint32_t aside;         /* requests that may be put aside, of one server at a time (shmq_reply_later); 0: none */
  uint32_t reserved[5];
} shmq_service_options;

/* Create the segment of a service. Errors: as shmq_create. Remove it with shmq_unlink. */
SHMQ_API int shmq_service_create(const char *name, const shmq_service_options *options);
SHMQ_API int shmq_service_create_memfd(const shmq_service_options *options, int *fd);

/* For those who serve many services: answers do not wait for room (-EAGAIN, still to be answered); shmq_serve
 * says -EBADMSG once for each request that makes no sense, and -EAGAIN after it has skipped many. */
#define SHMQ_NEVER_WAIT 0x100u
/* Answers are written at once and sent together, as one step with the ends of their requests, by shmq_service_flush:
 * or when there are eight, before a call of shmq_serve waits, and at the close. Those whose requests were put aside, those
 * that are not in place and whose requests would not be executed again, and those to what shmq_serve refuses, go at once;
 * an asker sees its answers in order. A part of a stream sends what is kept. */
#define SHMQ_GROUP_ANSWERS 0x200u

/* Become a server of it. flags: SHMQ_SPIN, SHMQ_NOSPIN, SHMQ_NEVER_WAIT, SHMQ_GROUP_ANSWERS. Errors: as shmq_attach;
 * -ENOTTY not a service. */
SHMQ_API int shmq_service_open(shmq_service **out, const char *name, unsigned flags);
SHMQ_API int shmq_service_open_fd(shmq_service **out, int fd, unsigned flags);
SHMQ_API void shmq_service_close(shmq_service *service);
SHMQ_API shmq_segment *shmq_service_segment(shmq_service *service);

/* What its answers say as their epoch, for services with one server at a time: above its predecessor's. */
SHMQ_API void shmq_service_set_epoch(shmq_service *service, uint32_t epoch);

/* Take no new requests: askers get -EPIPE, shmq_serve gives what is queued and then -EPIPE. */
SHMQ_API int shmq_service_shutdown(shmq_service *service);

/* A request taken by a server and not answered yet.
 * Shape: header is the server's own copy, checked; data points into the segment, where a hostile asker may
 *   still change it: copy what you parse. room >= size: bytes from data on that may be overwritten
 *   to answer in place; if the server dies then, the next one finds what was written instead of the
 *   payload. The struct may be copied and kept: an answer may come in any order. */
typedef struct shmq_incoming {
  shmq_request_header header;
  void *data;
  size_t size;
  size_t room;
  uint32_t attempts; /* executions begun, this one included: above 1 an earlier server died */
  uint32_t state;    /* the library's */
  shmq_service *service;
  shmq_message message;
  struct shmq__aside *aside; /* the library's */
} shmq_incoming;

/* Take the next request that is to be executed. Skipped without bothering the caller, and counted:
 * what has expired, was cancelled, makes no sense, or whose asker has died; what an earlier server died
 * of and must not be repeated is answered -EOWNERDEAD. Errors: as shmq_lease. */
SHMQ_API int shmq_serve(shmq_service *service, shmq_incoming *incoming, int64_t deadline_ns);

/* Take up to n of them, at most eight, into *incoming[0] and so on. Where there are several servers, a slow one keeps
 * from the others what it has taken. Returns how many, at least 1. */
SHMQ_API int shmq_serve_batch(shmq_service *service, shmq_incoming **incoming, int n, int64_t deadline_ns);

/* Send the answers that SHMQ_GROUP_ANSWERS keeps back. Returns 0, or the error of one that could not be sent. */
SHMQ_API int shmq_service_flush(shmq_service *service);

/* Answer with a value. The request is done with after any of these calls, whatever they return (but -EAGAIN).
 * Returns: 0; -ECONNRESET the asker has gone and the answer was dropped; -EMSGSIZE, -ENOBUFS it did not fit or no
 *   block was free: the asker got that as its error. A cast takes its answer and drops it. */
SHMQ_API int shmq_reply(shmq_incoming *incoming, const void *data, size_t size);
SHMQ_API int shmq_reply_value(shmq_incoming *incoming, const uint64_t value[2], const void *data,
                              size_t size);

/* Answer with the first `size` bytes at incoming->data, which the caller wrote there, size <= room. */
SHMQ_API int shmq_reply_in_place(shmq_incoming *incoming, const uint64_t value[2], size_t size);

/* Answer with an error: a negative errno, and optionally what the domain (say "sqlite") calls it. */
SHMQ_API int shmq_reply_error(shmq_incoming *incoming, int status, const char *domain, int code,
                              const char *text);

/* The same with the class and whether it was executed stated; for servers that know better. */
typedef struct shmq_answer {
  int status;
  uint8_t error_class;
  uint8_t executed;
  uint8_t reserved[2];
  int32_t code;
  uint64_t value[2];
  const char *domain, *text;
} shmq_answer;
SHMQ_API int shmq_reply_answer(shmq_incoming *incoming, const shmq_answer *answer);

/* Say that executing it begins, where a second execution would not be the same. A server that takes a request with
 * attempts above 1 sees in header.flags & SHMQ_ASK_BEGUN whether an earlier one had got so far; that answer is worth no
 * more than the asker, who can write it, too. */
SHMQ_API void shmq_begin(shmq_incoming *incoming);

/* The identity of its message: the same when it is delivered again, and nobody else's. It is another after the request
 * was put aside. */
SHMQ_API void shmq_incoming_id(const shmq_incoming *incoming, shmq_id *id);

/* Keep the request in *kept (the caller's, any number of them) and answer it from there later.
 * Requests stand in a ring, and one that is kept in its place stops all askers when as many more as `capacity` have
 * been asked. So in a service that has `aside` it is moved to a queue of its own; where another server holds that queue,
 * or it is full, it keeps its place. kept->data may be another than incoming->data, and stays what it is then.
 * Errors: -EBADMSG the segment is damaged, and the request may be lost; it may still be answered.
 * Crash: it is delivered again, to the next server first of all. That it waited is no execution: deliveries are
 *   counted from the last time that it was moved. */
SHMQ_API int shmq_reply_later(shmq_incoming *incoming, shmq_incoming *kept);

/* For who keeps requests without shmq_reply_later, because most are kept for a short time, and looks at them now and
 * then: put this one aside if that is due, for half of the capacity was taken behind it, or a server has died that had
 * it. incoming->data may change. Errors: as shmq_reply_later. */
SHMQ_API int shmq_make_way(shmq_incoming *incoming);

/* Send one part of an answer; shmq_reply or shmq_reply_error ends it. Waits until the asker has taken enough of the
 * earlier parts. Errors: -EAGAIN, -ETIMEDOUT; -ECONNRESET the asker has gone; -ECANCELED it does
 * not want more; -EMSGSIZE, -ENOBUFS as shmq_reply. The request is still to be answered then. */
SHMQ_API int shmq_reply_stream(shmq_incoming *incoming, const void *data, size_t size,
                               int64_t deadline_ns);

/* Has the asker cancelled it, or let its deadline pass, or died? Returns 1 or 0. */
SHMQ_API int shmq_cancelled(shmq_incoming *incoming);

/* A server's loop. A handler answers its request with one of the calls above and returns 0; a negative
 * errno returned without an answer is sent as the error. Anything above 0 ends the loop. */
typedef int shmq_handler_fn(shmq_incoming *incoming, void *ctx);
typedef struct shmq_handler {
  uint16_t op;
  shmq_handler_fn *fn;
} shmq_handler;

/* Serve until a handler returns above 0 (returned), the queue is shut down and empty (0), or the
 * deadline has passed (-ETIMEDOUT). An op without a handler is answered -EOPNOTSUPP. */
SHMQ_API int shmq_service_run(shmq_service *service, const shmq_handler *handlers, int n, void *ctx,
                              int64_t deadline_ns);

/* For event loops, as shmq_event_fd and shmq_event_arm: readable when a request has come. */
SHMQ_API int shmq_service_event_fd(shmq_service *service);
SHMQ_API int shmq_service_event_arm(shmq_service *service);
/* As shmq_event_word. */
SHMQ_API int shmq_service_event_word(shmq_service *service, uint32_t **word, uint32_t *value);

typedef struct shmq_service_stats {
  uint64_t taken, answered, failed; /* failed: answered with an error */
  uint64_t skipped_expired, skipped_cancelled, skipped_dead, malformed;
  uint64_t redelivered, refused_redelivery;
  uint64_t dropped; /* answers to askers that have gone */
} shmq_service_stats;
SHMQ_API void shmq_service_get_stats(const shmq_service *service, shmq_service_stats *stats);

/* ---- the daemon's resources: what a session of shmqd understands --------------------------------- */

/* Find a resource of the daemon by its configured name. Returns its number (> 0), or -ENOENT. */
SHMQ_API int shmq_resource(shmq_client *client, const char *name);

/* Resource 0, the daemon itself. */
enum shmq_daemon_op {
  SHMQ_DAEMON_NULL,    /* nothing: for measuring */
  SHMQ_DAEMON_RESOLVE, /* data: a name. value[0]: the resource, data: its kind */
  SHMQ_DAEMON_STATUS,  /* data: a text of key=value lines */
  SHMQ_DAEMON_CHILDREN /* room. data: a line of key=value words for each child of the supervisor, then for each that
                        * died, the newest first */
};

enum shmq_dir_op {
  SHMQ_DIR_OPEN = 1, /* value[0]: SHMQ_DIR_ flags, value[1]: mode; data: path. value[0]: handle, [1]: size */
  SHMQ_DIR_CLOSE,    /* value[0]: handle */
  SHMQ_DIR_READ,     /* value[0]: handle, value[1]: offset; room: bytes. Answered in place */
  SHMQ_DIR_STAT,     /* data: path. data: shmq_dir_stat */
  SHMQ_DIR_LIST,     /* value[0]: cursor, 0 at first; data: path; room. value[0]: next cursor, 0 at the
                      * end; data: entries {type 1 byte, name, NUL} */
  SHMQ_DIR_WRITE,    /* value[0]: handle, value[1]: offset; data. value[0]: bytes written */
  SHMQ_DIR_TRUNCATE, /* value[0]: handle, value[1]: size */
  SHMQ_DIR_SYNC,     /* value[0]: handle, value[1]: 1: data only */
  SHMQ_DIR_MKDIR,    /* value[1]: mode; data: path */
  SHMQ_DIR_RENAME,   /* data: old NUL new */
  SHMQ_DIR_UNLINK,   /* value[0]: 1: a directory; data: path */
  SHMQ_DIR_GET,      /* open, read and close as one. data: path; room. value[0]: size of the file, value[1]: a handle
                      * to go on with if the contents exceed the room, else 0. Answered in place */
  SHMQ_DIR_PUT       /* value[0]: bytes of the path, value[1]: mode; data: path, contents. Atomic and durable */
};
#define SHMQ_DIR_WRITABLE 1u  /* open for reading and writing */
#define SHMQ_DIR_CREATE 2u
#define SHMQ_DIR_EXCLUSIVE 4u
#define SHMQ_DIR_TRUNC 8u
/* Read past the page cache; with no other flag. Offsets are multiples of what the file system demands (512 bytes or
 * 4 KiB), and the room of a READ is 512 bytes more than is to be read: the contents lie where the device can write. */
#define SHMQ_DIR_DIRECT 16u

typedef struct shmq_dir_stat {
  uint64_t size;
  int64_t mtime_ns;
  uint64_t inode;
  uint32_t mode;
  uint32_t links;
  uint32_t uid;
  uint32_t gid;
} shmq_dir_stat;

enum shmq_log_op {
  SHMQ_LOG_APPEND = 1, /* value[0]: enum shmq_log_ack, value[1]: SHMQ_LOG_KEYED; data: [shmq_id] record.
                        * value[0]: the record's number; value[1]: 1: recorded before under this key */
  SHMQ_LOG_READ,       /* value[0]: first number; room. Entries {number, bytes, record, padding to 8} */
  SHMQ_LOG_FOLLOW,     /* as read, but waits for the first */
  SHMQ_LOG_TRIM,       /* value[0]: the records below it may go */
  SHMQ_LOG_STATUS      /* value[0]: first number, value[1]: next number */
};
enum shmq_log_ack { SHMQ_LOG_ACK_MEMORY, SHMQ_LOG_ACK_KERNEL, SHMQ_LOG_ACK_DISK };
#define SHMQ_LOG_KEYED 1u

typedef struct shmq_log_entry {
  uint64_t number;
  uint32_t bytes;
  uint32_t reserved;
} shmq_log_entry;

#ifdef __cplusplus
}
#endif
#endif
