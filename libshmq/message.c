/* SPDX-License-Identifier: Apache-2.0
 *
 * The caller's view of a held message: packing what the library must know into its opaque words.
 */
#include "queue.h"

_Static_assert(sizeof(((shmq_message *)0)->opaque) == 20, "five words");

/* opaque[0]: participant 10 | ring of the segment 12 | hold 8. Cells of two queues look alike, so the
 * message itself says whose it is. */
static uint32_t tag_make(const shmq *q, const shmq__ring_view *r, enum shmq__hold hold) {
  return q->segment->me << 20 | r->id << 8 | (uint32_t)hold;
}
static uint32_t tag_participant(const shmq_message *m) { return m->opaque[0] >> 20; }
static uint32_t tag_band(const shmq *q, const shmq_message *m) {
  return (m->opaque[0] >> 8 & 0xfffu) - q->config->first_ring;
}

void shmq__message_fill(shmq_message *m, const shmq *q, const struct shmq__held *held,
                        enum shmq__hold hold, void *data, size_t size) {
  m->data = data;
  m->size = size;
  m->position = held->position;
  m->attempts = hold == HOLD_LEASED ? cell_attempts(held->word) + 1 : 0;
  m->opaque[0] = tag_make(q, held->ring, hold);
  m->opaque[1] = (uint32_t)held->word;
  m->opaque[2] = (uint32_t)(held->word >> 32);
  m->opaque[MESSAGE_BLOCK] = (uint32_t)(held->block + 1);
  m->opaque[4] = q->segment->join_epoch;
}

enum shmq__hold shmq__message_hold(const shmq_message *m) {
  return (enum shmq__hold)(m->opaque[0] & 0xff);
}

int shmq__message_held(const shmq *q, const shmq_message *m, enum shmq__hold hold,
                       struct shmq__held *held) {
  if (unlikely(!q || !m || shmq__message_hold(m) != hold)) return -EINVAL;
  uint32_t band = tag_band(q, m), me = q->segment->me;
  if (unlikely(band >= q->config->priorities)) return -EINVAL;
  if (unlikely(!me || tag_participant(m) != me || m->opaque[4] != q->segment->join_epoch))
    return -ESTALE;
  *held = (struct shmq__held){.ring = &q->rings[band],
                              .position = m->position,
                              .word = (uint64_t)m->opaque[2] << 32 | m->opaque[1],
                              .block = (int64_t)m->opaque[MESSAGE_BLOCK] - 1};
  if (unlikely(a_load(cell_word(held->ring, held->position)) != held->word)) return -ESTALE;
  uint64_t room = held->block >= 0 ? q->segment->geometry.block_bytes : held->ring->payload_bytes;
  return unlikely(hold == HOLD_RESERVED && m->size > room) ? -EMSGSIZE : 0;
}

void shmq_message_id(const shmq *q, const shmq_message *m, shmq_id *id) {
  memset(id, 0, sizeof *id);
  memcpy(id->segment, q->segment->uuid, sizeof id->segment);
  id->queue = q->number | tag_band(q, m) << 16;
  id->position = m->position;
}

int shmq_message_cause(const shmq *q, const shmq_message *m, shmq_cause *cause) {
  struct shmq__held held;
  int rc = shmq__message_held(q, m, HOLD_LEASED, &held);
  if (rc < 0) return rc;
  if (!held.ring->tracked) return -ENODATA;
  *cause = cell_stamp(held.ring, held.position)->cause;
  return cause->reason == SHMQ_REASON_NONE ? -ENODATA : 0;
}
