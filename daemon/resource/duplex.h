/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes to and from a peer that may be slow, silent or gone: a connection's socket, a child's pipes. The descriptors
 * are polled and never waited for.
 */
#ifndef SHMQD_RESOURCE_DUPLEX_H
#define SHMQD_RESOURCE_DUPLEX_H

#include "io.h"

struct duplex {
  struct io *io;
  /* There are more bytes in `in`. */
  void (*received)(struct duplex *duplex);
  /* Bytes below this number, counted from the beginning, are about to be written. */
  void (*writing)(struct duplex *duplex, uint64_t below);
  /* It broke, or was told to: both descriptors are closed. */
  void (*closed)(struct duplex *duplex, int error);

  int in_fd, out_fd; /* not the same number: each is polled by itself */
  bool closing;
  int error;
  char *in;
  size_t in_bytes, in_room;
  char *out;
  size_t out_bytes, out_room;
  uint64_t written; /* ever */
  struct io_op poll[2], cancel[2];
  bool polled[2];
  unsigned pending; /* of the four */
};

/* Non-blocking descriptors, which become the duplex's; the functions are set by then. */
void duplex_open(struct duplex *duplex, struct io *io, int in_fd, int out_fd);
/* Queue bytes. 0 or -ENOMEM. They go with duplex_flush. */
int duplex_put(struct duplex *duplex, const char *data, size_t bytes);
void duplex_flush(struct duplex *duplex);
/* What was received first has been used. */
void duplex_consume(struct duplex *duplex, size_t bytes);
/* `closed` is called once, now or later. */
void duplex_break(struct duplex *duplex, int error);
/* The peer is gone: take what it has left behind, and then break. */
void duplex_finish(struct duplex *duplex, int error);
/* At the end of all, when nothing runs any more. */
void duplex_free(struct duplex *duplex);

#endif
