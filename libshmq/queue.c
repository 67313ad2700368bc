/* SPDX-License-Identifier: Apache-2.0
 *
 * Queue handles: open, close, roles.
 */
#include "queue.h"

#include <stdlib.h>

#include "attach.h"
#include "core/recover.h"
#include "os/object.h"
#include "os/process.h"
#include "os/processor.h"
#include "pollable.h"

static int find_queue(const struct shmq_segment *s, const char *name) {
  if (!name) return 0;
  for (uint32_t i = 0; i < s->geometry.queues; i++)
    if (strcmp(s->configs[i].name, name) == 0) return (int)i;
  return -ENOENT;
}

int shmq_open_in(shmq **out, shmq_segment *s, const char *queue, unsigned flags) {
  if (!out || !s || (flags & ~(SHMQ_SPIN | SHMQ_NOSPIN))) return -EINVAL;
  int number = find_queue(s, queue);
  if (number < 0) return number;
  shmq *q = calloc(1, sizeof *q);
  if (!q) return -ENOMEM;
  q->segment = s;
  q->config = &s->configs[number];
  q->queue = &s->queues[number];
  q->rings = &s->rings[q->config->first_ring];
  q->number = (uint32_t)number;
  q->flags = flags;
  q->producer_epoch = q->consumer_epoch = s->join_epoch - 1; /* of no join to come */
  bool plain = q->config->priorities == 1 && !(q->config->flags & SHMQ__TRACKED);
  q->plain_room = plain ? q->config->message_bytes + 1 : 0;
  bool others = shmq__cpu_count() > 1; /* else the other side cannot run meanwhile */
  q->short_pause = shmq__pause_is_short();
  q->first_pauses = q->short_pause && q->rings->stride < SHMQ__LINE ? SHMQ__FIRST_PAUSES : 0;
  q->naps = others && flags & SHMQ_NOSPIN;
  q->spins = others && !q->naps ? SHMQ__SPINS_MAX / 4 : 0;
  s->handles++;
  q->next = s->first;
  q->link = &s->first;
  if (q->next) q->next->link = &q->next;
  s->first = q;
  *out = q;
  return 0;
}

int shmq_open(shmq **out, const char *name, unsigned flags) {
  char segment[SHMQ_NAME_MAX + 1];
  shmq_segment *s = NULL;
  if (!out || !name) return -EINVAL;
  const char *slash = strchr(name, '/');
  size_t n = slash ? (size_t)(slash - name) : strlen(name);
  if (n > SHMQ_NAME_MAX) return -ENAMETOOLONG;
  memcpy(segment, name, n);
  segment[n] = '\0';
  int rc = shmq_attach(&s, segment);
  if (rc < 0) return rc;
  rc = shmq_open_in(out, s, slash ? slash + 1 : NULL, flags);
  if (rc < 0)
    shmq_detach(s);
  else
    s->owned_by_queue = true;
  return rc;
}

/* Give back what the handles of this queue hold. The participant lives on, so this is recovery of oneself in one
 * queue. Shared memory does not tell one handle's messages and roles from another's: while others of the
 * same queue are open, what this one holds passes to one of them. */
static void let_go(shmq *q) {
  struct shmq_segment *s = q->segment;
  for (shmq *other = s->first; other; other = other->next) {
    if (other->number != q->number) continue;
    other->held += q->held;
    if (q->producer_epoch == s->join_epoch) other->producer_epoch = s->join_epoch;
    if (q->consumer_epoch == s->join_epoch) other->consumer_epoch = s->join_epoch;
    return;
  }
  uint32_t flags = q->config->flags;
  bool roles = (flags & SHMQ_SINGLE_PRODUCER && q->producer_epoch == s->join_epoch) ||
               (flags & SHMQ_SINGLE_CONSUMER && q->consumer_epoch == s->join_epoch);
  if (!s->me || (q->held == 0 && !roles)) return;
  shmq__recover_queue(s, s->me, q->number, SHMQ_REASON_NACKED);
}

void shmq_close(shmq *q) {
  if (!q) return;
  struct shmq_segment *s = q->segment;
  shmq__pollable_free(q);
  *q->link = q->next;
  if (q->next) q->next->link = q->link;
  let_go(q);
  if (--s->handles == 0 && s->owned_by_queue) shmq_detach(s);
  free(q);
}

shmq_segment *shmq_segment_of(shmq *q) { return q ? q->segment : NULL; }

int shmq__enter_slow(shmq *q, bool producer) {
  struct shmq_segment *s = q->segment;
  int rc = shmq__join(s, NULL, NULL);
  if (rc < 0) return rc;
  if (producer && q->config->flags & SHMQ_SINGLE_PRODUCER)
    rc = shmq__role_get(s, &q->queue->producer);
  if (!producer && q->config->flags & SHMQ_SINGLE_CONSUMER)
    rc = shmq__role_get(s, &q->queue->consumer);
  if (rc == 0) *(producer ? &q->producer_epoch : &q->consumer_epoch) = s->join_epoch;
  return rc;
}

uint32_t shmq_capacity(const shmq *q) { return q->config->capacity; }
uint32_t shmq_message_bytes(const shmq *q) { return q->config->message_bytes; }
uint64_t shmq_message_limit(const shmq *q) {
  uint64_t block = q->segment->geometry.blocks ? q->segment->geometry.block_bytes : 0;
  return block > q->config->message_bytes ? block : q->config->message_bytes;
}
