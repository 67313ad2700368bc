// SPDX-License-Identifier: Apache-2.0
//
// Peers written in C++: boost::interprocess::message_queue, and moodycamel's queues, which are in-process designs
// and therefore run on threads.
#include <atomic>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <concurrentqueue/blockingconcurrentqueue.h>
#include <cstdio>
#include <cstring>
#include <readerwriterqueue/readerwriterqueue.h>
#include <unistd.h>

extern "C" {
#include "transport.h"
extern const struct transport transport_boost, transport_moodycamel, transport_readerwriter;
}

namespace {

namespace ipc = boost::interprocess;

void boost_name(const channel *c, char name[48]) {
  snprintf(name, 48, "bench-boost-%d-%d", c->fds[0], c->number);
}
int boost_make(channel *c) {
  char name[48];
  c->fds[0] = getpid();
  boost_name(c, name);
  ipc::message_queue::remove(name);
  try {
    ipc::message_queue made(ipc::create_only, name, c->shape.depth, c->shape.bytes);
  } catch (const ipc::interprocess_exception &) {
    return -1;
  }
  return 0;
}
int boost_attach(channel *c, bool) {
  char name[48];
  boost_name(c, name);
  c->handle = new ipc::message_queue(ipc::open_only, name);
  return 0;
}
void boost_send(channel *c, const void *data, size_t n) {
  static_cast<ipc::message_queue *>(c->handle)->send(data, n, 0);
}
void boost_receive(channel *c, void *data, size_t n) {
  ipc::message_queue::size_type size;
  unsigned priority;
  static_cast<ipc::message_queue *>(c->handle)->receive(data, n, size, priority);
}
void boost_detach(channel *c) { delete static_cast<ipc::message_queue *>(c->handle); }
void boost_destroy(channel *c) {
  char name[48];
  boost_name(c, name);
  ipc::message_queue::remove(name);
}

struct m64 {
  unsigned char bytes[64];
};

using blocking_queue = moodycamel::BlockingConcurrentQueue<m64>;
int moody_make(channel *c) {
  if (c->shape.bytes != 64) return -1;
  c->shared = new blocking_queue(c->shape.depth);
  return 0;
}
void moody_send(channel *c, const void *data, size_t) {
  m64 m;
  memcpy(&m, data, sizeof m);
  static_cast<blocking_queue *>(c->shared)->enqueue(m);
}
void moody_receive(channel *c, void *data, size_t) {
  m64 m;
  auto *q = static_cast<blocking_queue *>(c->shared);
  if (c->shape.sleeping) q->wait_dequeue(m);
  else
    while (!q->try_dequeue(m)) {
    }
  memcpy(data, &m, sizeof m);
}
int moody_send_batch(channel *c, const void *data, size_t, int count) {
  static_cast<blocking_queue *>(c->shared)->enqueue_bulk(static_cast<const m64 *>(data), count);
  return count;
}
int moody_receive_batch(channel *c, void *data, size_t, int count) {
  auto *q = static_cast<blocking_queue *>(c->shared);
  return static_cast<int>(q->wait_dequeue_bulk(static_cast<m64 *>(data), count));
}
void moody_destroy(channel *c) { delete static_cast<blocking_queue *>(c->shared); }

using pair_queue = moodycamel::ReaderWriterQueue<m64>;
int pair_make(channel *c) {
  if (c->shape.bytes != 64 || c->shape.producers != 1 || c->shape.consumers != 1) return -1;
  c->shared = new pair_queue(c->shape.depth);
  return 0;
}
void pair_send(channel *c, const void *data, size_t) {
  m64 m;
  memcpy(&m, data, sizeof m);
  while (!static_cast<pair_queue *>(c->shared)->try_enqueue(m)) {
  }
}
void pair_receive(channel *c, void *data, size_t) {
  m64 m;
  while (!static_cast<pair_queue *>(c->shared)->try_dequeue(m)) {
  }
  memcpy(data, &m, sizeof m);
}
void pair_destroy(channel *c) { delete static_cast<pair_queue *>(c->shared); }

}  // namespace

const struct transport transport_boost = {"boost",       false,   boost_make, boost_attach, boost_send,
                                          boost_receive, nullptr, nullptr,    boost_detach, boost_destroy, nullptr};
const struct transport transport_moodycamel = {
    "moodycamel",     true,    moody_make,   nullptr, moody_send, moody_receive, moody_send_batch,
    moody_receive_batch, nullptr, moody_destroy, nullptr};
const struct transport transport_readerwriter = {"readerwriter", true,    pair_make, nullptr, pair_send,
                                                 pair_receive,   nullptr, nullptr,   nullptr, pair_destroy, nullptr};
