/* SPDX-License-Identifier: Apache-2.0 */
#include "census.h"

#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "cut.h"
#include "shmq/inspect.h"
#include "worker.h"

struct census {
  struct io_op op;
  struct service_look seen;
  char segment[SHMQ_NAME_MAX + 1];
};

static uint64_t leases_of(shmq_view *view, uint32_t participant) {
  shmq_queue_info queue;
  uint64_t n = 0;
  for (uint32_t i = 0; shmq_view_queue(view, i, &queue) == 0; i++) {
    uint64_t cursor = 0;
    shmq_cell_info cell;
    while (shmq_view_next(view, i, &cursor, &cell, NULL, 0) == 1)
      n += cell.state == SHMQ_CELL_LEASED && cell.owner == participant;
  }
  return n;
}

static bool count(shmq_view *view, struct service_look *seen) {
  shmq_segment_info segment;
  shmq_participant_info p;
  bool dead = false;
  if (shmq_view_segment(view, &segment)) return false;
  for (uint32_t i = 1; i <= segment.participants_max; i++) {
    if (shmq_view_participant(view, i, &p) || p.pid != seen->pid) continue;
    seen->taken += p.gets;
    if (p.alive) continue;
    dead = true;
    seen->held += leases_of(view, i);
  }
  return dead;
}

static int recover(const char *name) {
  shmq_segment *segment;
  int rc = shmq_attach(&segment, name);
  if (rc) return rc;
  rc = shmq_recover(segment);
  shmq_detach(segment);
  return rc < 0 ? rc : 0;
}

static int look(struct io_op *op) {
  struct census *c = op->buffer;
  shmq_view *view;
  unsigned cut = cut_pages();
  int rc = shmq_view_open(&view, c->segment);
  if (rc) return rc;
  bool dead = count(view, &c->seen);
  shmq_view_close(view);
  if (dead) rc = recover(c->segment);
  return cut_pages() == cut ? rc : -EBADMSG;
}

static void looked(struct io_op *op, int result) {
  struct census *c = op->buffer;
  struct channel_message m = {.what = CHANNEL_SEEN, .text_bytes = sizeof c->seen};
  c->seen.status = result;
  memcpy(m.text, &c->seen, sizeof c->seen);
  if (channel_send(WORKER_CHANNEL, &m, NULL, 0)) say(SAY_DEBUG, "the supervisor does not listen");
  free(c);
}

void census_look(struct daemon *d, pid_t pid, const char *segment, size_t bytes) {
  struct census *c = calloc(1, sizeof *c);
  if (!c || bytes > SHMQ_NAME_MAX) {
    free(c);
    return;
  }
  memcpy(c->segment, segment, bytes);
  c->seen.pid = (int32_t)pid;
  c->op = (struct io_op){.what = IO_CALL, .buffer = c, .call = look, .done = looked};
  io_submit(d->shards->io, &c->op);
}
