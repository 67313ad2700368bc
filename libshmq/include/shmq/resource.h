/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's further resources: what a session of shmqd understands beside rpc.h's `dir` and `log`.
 * Each operation says what it takes and, after a full stop, what it answers; docs/resources.md says what they are
 * for, and what becomes of them when somebody dies.
 */
#ifndef SHMQ_RESOURCE_H
#define SHMQ_RESOURCE_H

#include <shmq/rpc.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- pool: tokens, each held by one session at a time ---- */

enum shmq_pool_op {
  SHMQ_POOL_TAKE = 1, /* value[0]: 1: wait for one until the deadline. value[0]: token; data: its text */
  SHMQ_POOL_GIVE,     /* value[0]: token; value[1]: 1: out of another session's hands (of the same user) */
  SHMQ_POOL_LIST      /* value[0]: where to begin, 0 at first; room. value[0]: where to go on, 0: the end,
                       * value[1]: requests that wait for a token; data: entries */
};

/* Its text follows, padded to 8. */
typedef struct shmq_pool_entry {
  uint64_t token;
  int64_t since_ns; /* CLOCK_MONOTONIC; 0: free, and what follows as well */
  int32_t pid;
  uint32_t uid;
  uint32_t bytes; /* of the text */
  uint32_t reserved;
} shmq_pool_entry;

/* ---- timer: an answer, or a message in a queue, at a time of CLOCK_MONOTONIC ---- */

enum shmq_timer_op {
  SHMQ_TIMER_WAIT = 1, /* value[0]: when. Answered then. value[0]: when it was due */
  SHMQ_TIMER_SET,      /* value[0]: when, value[1]: again after so many ns, 0: once;
                        * data: SEGMENT[/QUEUE] NUL message. value[0]: the timer */
  SHMQ_TIMER_CLEAR,    /* value[0]: the timer. value[0]: messages it has put */
  SHMQ_TIMER_LIST      /* value[0]: below the first to list; room. value[0]: the last listed, 0: the end; entries */
};
#define SHMQ_TIMER_PERIOD_MIN INT64_C(1000000) /* ns */

/* The queue's name follows, padded to 8. */
typedef struct shmq_timer_entry {
  uint64_t timer;
  int64_t due_ns;
  int64_t period_ns;
  uint64_t put;    /* messages */
  uint64_t missed; /* times it could not put one, or was too late to */
  uint32_t uid;
  uint32_t bytes; /* of the name */
} shmq_timer_entry;

/* ---- kv: an ordered map, kept through a log ----
 * A version is the number of the change that made a value: it grows over the whole map. */

enum shmq_kv_op {
  SHMQ_KV_GET = 1, /* data: key; room. value[0]: version, value[1]: bytes; data: value */
  SHMQ_KV_PUT,     /* value[0]: bytes of the key; data: key, value. value[0]: version */
  SHMQ_KV_CAS,     /* as PUT, if the version is still value[1]; 0: if there is none. value[0]: version */
  SHMQ_KV_ADD,     /* value[0]: a signed number to add to a value in decimal, 0 where there is none; data: key.
                    * value[0]: version, value[1]: the sum */
  SHMQ_KV_DELETE,  /* data: key; value[1]: its version, 0: whichever. value[0]: number of the deletion */
  SHMQ_KV_SCAN,    /* value[0]: bytes of a prefix; data: prefix, then the last key seen, nothing at first; room.
                    * value[0]: 1: there is more, value[1]: entries; data: entries in order of keys */
  SHMQ_KV_STATUS   /* value[0]: keys, value[1]: number of the last change */
};
#define SHMQ_KV_KEY_MAX 1024u

/* Key and value follow, padded to 8. */
typedef struct shmq_kv_entry {
  uint64_t version;
  uint32_t key_bytes;
  uint32_t value_bytes;
} shmq_kv_entry;

/* ---- stream: one connection for many clients; process: programs spoken to over standard input and output ---- */

enum shmq_stream_op {
  SHMQ_STREAM_ASK = 1, /* value[0]: frames in the request and in its answer, 0: 1; data: the frames.
                        * value[0]: frames; data: the answer's */
  SHMQ_STREAM_STATUS   /* data: a text of key=value lines */
};

enum shmq_process_op {
  SHMQ_PROCESS_ASK = 1, /* as SHMQ_STREAM_ASK, of whichever process is free. value[1]: its pid */
  SHMQ_PROCESS_SIGNAL,  /* value[0]: which, from 1, 0: all; value[1]: the signal. value[0]: how many got it */
  SHMQ_PROCESS_STATUS   /* data: a text, a line for each */
};

#ifdef __cplusplus
}
#endif
#endif
