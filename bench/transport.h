/* SPDX-License-Identifier: Apache-2.0
 *
 * What is measured: shmq, its peers and the limits behind one small table, so that each figure is taken
 * with the same workload in the same run. Every send and receive copies unless the name says otherwise.
 */
#ifndef BENCH_TRANSPORT_H
#define BENCH_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>

struct shape {
  size_t bytes;  /* of a message */
  unsigned depth; /* messages that fit */
  unsigned producers, consumers;
  bool sleeping; /* waits sleep at once; otherwise they poll */
};

/* A one-way channel. make runs once, before the processes fork; attach in each of them; state and the
 * descriptors are theirs. */
struct channel {
  const struct transport *transport;
  struct shape shape;
  int number; /* tells channels of one window apart */
  void *shared;
  size_t shared_bytes;
  void *handle;
  int fds[2];
};

struct transport {
  const char *name;
  bool threads; /* an in-process design: its two sides are threads here */
  int (*make)(struct channel *c); /* 0, or -1: cannot do this shape */
  int (*attach)(struct channel *c, bool producer);
  void (*send)(struct channel *c, const void *data, size_t n); /* waits for room */
  void (*receive)(struct channel *c, void *data, size_t n);    /* waits for a message */
  /* Optional: up to `count` messages of n bytes, back to back in data; how many were moved, at least 1. */
  int (*send_batch)(struct channel *c, const void *data, size_t n, int count);
  int (*receive_batch)(struct channel *c, void *data, size_t n, int count);
  void (*detach)(struct channel *c);
  void (*destroy)(struct channel *c);
  void (*flush)(struct channel *c); /* optional: publish what send has kept back */
};

/* By name; NULL when it was not built in. */
const struct transport *transport_find(const char *name);

extern const struct transport transport_call, transport_shmq, transport_shmq_single, transport_shmq_in_place,
    transport_shmq_default, transport_pipe, transport_unix, transport_mq, transport_eventfd,
    transport_line, transport_flag, transport_memcpy, transport_futex;
#ifdef BENCH_CK
extern const struct transport transport_ck_spsc, transport_ck_mpmc;
#endif
#ifdef BENCH_DPDK
extern const struct transport transport_rte_spsc, transport_rte_mpmc;
#endif
#ifdef BENCH_CXX
extern const struct transport transport_boost, transport_moodycamel, transport_readerwriter;
#endif
#ifdef BENCH_ZMQ
extern const struct transport transport_zmq;
#endif
#ifdef BENCH_NNG
extern const struct transport transport_nng;
#endif

#endif
