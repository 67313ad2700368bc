/* SPDX-License-Identifier: Apache-2.0
 *
 * Becoming an asker: attach, join, and hold a reply queue by its consumer's role.
 */
#include "rpc/client.h"

#include <stdlib.h>

#include "os/descriptor.h"
#include "os/process.h"

enum {
  CLAIM_TRIES = 50,
  CLAIM_STEP_NS = 1000000,
  SPINS = 100 /* looks before the clock is read: longer than an answer that is on its way */
};

/* ---- the reply queue ---- */

/* Take the consumer's role of reply queue `slot`, and throw away what its last holder left there.
 * -EBUSY: it has a living holder. -ENOENT: there are no more. */
static int claim_slot(shmq_client *c, uint32_t slot, unsigned flags) {
  char name[SHMQ_QUEUE_NAME_MAX + 1];
  shmq_message m;

  shmq__slot_name(name, "reply", slot);
  int rc = shmq_open_in(&c->reply, c->segment, name, flags);
  if (rc) return rc;
  while ((rc = shmq_lease(c->reply, &m, SHMQ_NOWAIT)) == 0) {
    shmq_ack(c->reply, &m);
    c->stats.dropped++;
  }
  if (rc == -EAGAIN) return 0;
  shmq_close(c->reply);
  c->reply = NULL;
  return rc;
}

static int claim_free_slot(shmq_client *c, unsigned flags) {
  for (c->slot = 0;; c->slot++) {
    int rc = claim_slot(c, c->slot, flags);
    if (rc == -ENOENT) return c->slot ? -EUSERS : -ENOTTY;
    if (rc != -EBUSY) return rc;
  }
}

/* A dead holder counts as living while somebody else is just beginning to recover it. */
static int claim_any_slot(shmq_client *c, unsigned flags) {
  int rc = claim_free_slot(c, flags);
  for (int tries = 0; rc == -EUSERS && tries < CLAIM_TRIES; tries++) {
    shmq__sleep_ns(CLAIM_STEP_NS);
    rc = claim_free_slot(c, flags);
  }
  return rc;
}

/* A predecessor's cancellations name requests that are no longer: they must not stay in the way. */
static int claim_cancels(shmq_client *c) {
  char name[SHMQ_QUEUE_NAME_MAX + 1];
  shmq_message m;
  int rc;

  shmq__slot_name(name, "cancel", c->slot);
  rc = shmq_open_in(&c->cancels, c->segment, name, 0);
  if (rc) return rc;
  while ((rc = shmq_lease(c->cancels, &m, SHMQ_NOWAIT)) == 0) shmq_ack(c->cancels, &m);
  return rc == -EAGAIN ? 0 : rc;
}

/* ---- open and close ---- */

static shmq_client *client_new(void) {
  shmq_client *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->fd = c->socket = -1;
  c->ready_end = &c->ready;
  return c;
}

static int identify(shmq_client *c) {
  uint32_t generation = 0;
  int index = shmq_participant(c->segment, &generation);
  if (index < 0) return index;
  c->asker = (uint32_t)index;
  c->generation = generation;
  return 0;
}

static int finish_open(shmq_client **out, shmq_client *c, unsigned flags, int rc) {
  if (!rc) rc = shmq__open_requests(&c->requests, c->segment, flags, &c->redeliver);
  if (!rc) rc = shmq_join_segment(c->segment, "asker", NULL);
  if (!rc) rc = identify(c);
  if (!rc) rc = claim_any_slot(c, flags);
  if (!rc) rc = claim_cancels(c);
  if (rc) {
    shmq_client_close(c);
    return rc;
  }
  c->credits = shmq_capacity(c->reply) / REPLIES_PER_CREDIT;
  c->cell_bytes = shmq_message_bytes(c->reply);
  c->scratch = malloc(ANSWERS_MOST * c->cell_bytes);
  c->spins = flags & SHMQ_NOSPIN ? 1 : SPINS;
  if (!c->scratch) {
    shmq_client_close(c);
    return -ENOMEM;
  }
  *out = c;
  return 0;
}

int shmq_client_open(shmq_client **out, const char *name, unsigned flags) {
  if (!name) return -EINVAL;
  shmq_client *c = client_new();
  if (!c) return -ENOMEM;
  c->name = strdup(name);
  return finish_open(out, c, flags, c->name ? shmq_attach(&c->segment, name) : -ENOMEM);
}

int shmq_client_open_fd(shmq_client **out, int fd, unsigned flags) {
  shmq_client *c = client_new();
  if (!c) return -ENOMEM;
  c->fd = shmq__duplicate(fd);
  return finish_open(out, c, flags, c->fd < 0 ? c->fd : shmq_attach_fd(&c->segment, fd));
}

static int handshake(shmq_client *c, const char *path, const shmq_session_options *options) {
  char fallback[256];
  shmq_hello hello = {.magic = SHMQ_HELLO_MAGIC};
  if (options) hello.options = *options;
  if (!path) {
    shmq__daemon_path(fallback, sizeof fallback);
    path = fallback;
  }
  c->socket = shmq__packet_connect(path);
  if (c->socket < 0) return c->socket;
  int rc = shmq__packet_exchange(c->socket, &hello, sizeof hello, &c->fd);
  if (rc) return rc;
  if (hello.magic != SHMQ_HELLO_MAGIC) return -EPROTO;
  if (hello.status) return hello.status < 0 ? hello.status : -EPROTO;
  c->epoch = hello.epoch;
  return c->fd < 0 ? -EPROTO : 0;
}

int shmq_client_connect(shmq_client **out, const char *path, const shmq_session_options *options,
                        unsigned flags) {
  shmq_client *c = client_new();
  if (!c) return -ENOMEM;
  int rc = handshake(c, path, options);
  if (!rc) rc = shmq_attach_fd(&c->segment, c->fd);
  return finish_open(out, c, flags, rc);
}

void shmq_client_close(shmq_client *c) {
  if (!c) return;
  shmq_call_done(c);
  for (uint32_t i = 0; i < c->table_count; i++) {
    shmq__report_uncollected(c->table[i]);
    shmq__future_reset(c->table[i]);
    free(c->table[i]);
  }
  free(c->table);
  shmq_view_close(c->view);
  shmq_close(c->cancels);
  shmq_close(c->reply);
  shmq_close(c->requests);
  shmq_detach(c->segment);
  shmq__descriptor_close(c->socket);
  shmq__descriptor_close(c->fd);
  free(c->scratch);
  free(c->name);
  free(c);
}

static void find_aside(shmq_client *c) {
  shmq_queue_info q;
  for (uint32_t i = 1; !c->aside && shmq_view_queue(c->view, i, &q) == 0; i++)
    if (strcmp(q.name, ASIDE_NAME) == 0) c->aside = i;
}

int shmq__client_open_view(shmq_client *c) {
  if (c->view) return 0;
  int rc = c->name ? shmq_view_open(&c->view, c->name) : shmq_view_open_fd(&c->view, c->fd);
  if (!rc) find_aside(c);
  return rc;
}

shmq_segment *shmq_client_segment(shmq_client *c) { return c->segment; }
uint32_t shmq_client_credits(const shmq_client *c) { return c->credits; }
uint32_t shmq_client_epoch(const shmq_client *c) { return c->epoch; }
int shmq_client_event_fd(shmq_client *c) { return c ? shmq_event_fd(c->reply) : -EINVAL; }

/* What other calls have taken in is not in the queue any more, and its owner may not have looked yet. */
int shmq_client_event_arm(shmq_client *c) {
  if (!c) return -EINVAL;
  bool unseen = c->ready || c->news;
  c->news = false;
  return unseen ? 1 : shmq_event_arm(c->reply);
}

void shmq_client_get_stats(const shmq_client *c, shmq_client_stats *stats) { *stats = c->stats; }

void shmq_client_on_uncollected(shmq_client *c, shmq_uncollected_fn *fn, void *ctx) {
  c->uncollected = fn;
  c->uncollected_ctx = ctx;
}
