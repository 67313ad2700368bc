/* SPDX-License-Identifier: Apache-2.0
 *
 * What a server sees of a cancellation. It looks into the asker's cancel queue and never takes from it,
 * so that any number of servers can look at once. Nobody looks while the queue is empty, which is
 * what a request costs when nobody cancels.
 */
#include "rpc/service.h"

enum { LOOKS_MOST = 100 /* an asker could add for ever */ };

static int open_view(shmq_service *s) {
  if (s->view) return 0;
  return s->name ? shmq_view_open(&s->view, s->name) : shmq_view_open_fd(&s->view, s->fd);
}

static uint32_t cancel_queue_index(uint32_t slot) { return 2 + 2 * slot; }

static uint64_t additions(shmq_service *s, uint32_t queue) {
  shmq_queue_info info;
  return shmq_view_queue(s->view, queue, &info) ? 0 : info.puts;
}

static bool is_named(shmq_service *s, uint32_t queue, const shmq_request_header *h) {
  uint64_t cursor = 0;
  shmq_cell_info cell;
  shmq__cancel c;
  while (shmq_view_next(s->view, queue, &cursor, &cell, &c, sizeof c) == 1)
    if (cell.size == sizeof c && c.id == h->id && c.asker == h->asker &&
        c.generation == h->generation)
      return true;
  return false;
}

/* A look during which nothing was added has seen all there is. */
bool shmq__is_cancelled(shmq_service *s, const shmq_request_header *h) {
  struct reply_slot *slot = shmq__slot_of(s, h);
  if (!slot || shmq_depth(slot->cancel) <= 0 || open_view(s)) return false;

  uint32_t queue = cancel_queue_index(h->slot);
  uint64_t before, now = additions(s, queue);
  for (int looks = 0; looks < LOOKS_MOST; looks++) {
    if (is_named(s, queue, h)) return true;
    before = now;
    now = additions(s, queue);
    if (now == before) break;
  }
  return false;
}

int shmq_cancelled(shmq_incoming *in) {
  const shmq_request_header *h = &in->header;
  if (h->deadline_ns != SHMQ_FOREVER && h->deadline_ns <= shmq_now_ns()) return 1;
  if (h->flags & SHMQ_ASK_CAST) return 0;
  return shmq__is_cancelled(in->service, h) || !shmq__asker_alive(in->service, h, false);
}
