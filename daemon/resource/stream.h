/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of `stream`: stream.c sends requests and finds their answers, stream_connect.c makes the connection.
 *
 *   DOWN -> RESOLVING -> CONNECTING -> UP -> CLOSING -> DOWN
 */
#ifndef SHMQD_RESOURCE_STREAM_H
#define SHMQD_RESOURCE_STREAM_H

#include <sys/socket.h>

#include "resource/duplex.h"
#include "resource/framing.h"
#include "supervisor/restart.h"
#include "wait_list.h"

enum stream_state { STREAM_DOWN, STREAM_RESOLVING, STREAM_CONNECTING, STREAM_UP, STREAM_CLOSING };
struct address {
  struct sockaddr_storage name;
  socklen_t bytes;
};

struct stream {
  struct resource base;
  enum stream_state state;
  enum framing framing;
  int fd; /* while it connects */
  struct address address;
  struct io_op op, cancel;
  unsigned pending;
  unsigned attempts;
  int error; /* why it is down */
  int64_t since_ns;
  struct restart backoff;
  struct alarm again;  /* the next attempt */
  struct alarm limit;  /* of an attempt, and of the peer's silence */
  struct duplex duplex;
  struct framer framer;
  struct wait_list waiting;
  struct request *sent, **sent_end, *unwritten; /* unwritten: the first in `sent` not begun */
  unsigned sent_count;
  uint64_t queued;             /* bytes ever put into the buffer of this connection */
  uint64_t answered, connects; /* for the status */
};

static inline int64_t stream_setting(const struct stream *s, const char *key) {
  return section_number(s->base.section, key);
}
static inline struct alarms *stream_alarms(const struct stream *s) {
  return &s->base.shard->alarms;
}
static inline struct io *stream_io(const struct stream *s) { return s->base.shard->io; }

/* ---- stream.c ---- */
/* The connection is there; the descriptor is the stream's. */
void stream_went_up(struct stream *stream, int fd);
/* It is not, or not any more: tried again later. */
void stream_went_down(struct stream *stream, int error);

/* ---- stream_connect.c ---- */
/* RESOLVING, and so on: ends with one of the above. */
void stream_connect(struct stream *stream);
/* CONNECTING: ends it, as if the peer had not answered in time. */
void stream_cancel_connect(struct stream *stream);

#endif
