/* SPDX-License-Identifier: Apache-2.0
 *
 * Damage: which word of a segment, and what goes there. Words that nearly make sense get further into the
 * library than noise does, so most values are made of the fields that belong there.
 */
#include "core/segment.h"
#include "shmq/shmq.h"
#include "world.h"

enum place {
  AT_TAIL, AT_HEAD, AT_CELL, AT_RETURNED, AT_RECORD, AT_BLOCK_WORD, AT_STATUS, AT_COUNTERS, AT_SLOT,
  AT_REDO, AT_STAMP, AT_PAYLOAD, AT_ANYTHING, PLACES
};

/* What is about to be changed: the word, and the position of a ring that it could have to do with. */
struct target {
  _Atomic uint64_t *word;
  const shmq__ring_view *ring;
  uint64_t position;
  struct shmq__slot *slot;
};

static _Atomic uint64_t *word_in(void *from, size_t bytes, struct input *in) {
  uint32_t words = (uint32_t)(bytes / 8);
  return (_Atomic uint64_t *)from + (words > 0 ? input_below(in, words) : 0);
}

static _Atomic uint64_t *record_at(const shmq__ring_view *r, uint64_t p, bool producer) {
  _Atomic uint64_t *records = producer ? r->producer_records : r->consumer_records;
  return records ? &records[p & r->mask] : &r->index->tail;
}

static _Atomic uint64_t *stamp_word(const shmq__ring_view *r, uint64_t p, struct input *in) {
  if (!r->tracked) return cell_word(r, p);
  return word_in(cell_stamp(r, p), sizeof(struct shmq__stamp), in);
}

static struct target choose(const shmq_segment *s, enum place place, struct input *in) {
  const shmq__ring_view *r = &s->rings[input_below(in, s->geometry.rings)];
  struct shmq__queue *q = &s->queues[r->queue];
  struct shmq__slot *slot = &s->slots[input_below(in, s->geometry.participants)];
  uint8_t which = input_u8(in);
  /* Around head or tail: where something is going on. */
  uint64_t x = which & 1 ? a_load(&r->index->head) : a_load(&r->index->tail);
  uint64_t p = position_add(index_position(x), (which >> 1 & 7) - UINT64_C(4));
  struct target t = {.ring = r, .position = p, .slot = slot};
  switch (place) {
    case AT_TAIL: t.word = &r->index->tail; break;
    case AT_HEAD: t.word = &r->index->head; break;
    case AT_RETURNED:
    case AT_CELL: t.word = cell_word(r, p); break;
    case AT_RECORD: t.word = record_at(r, p, which & 16); break;
    case AT_STAMP: t.word = stamp_word(r, p, in); break;
    case AT_PAYLOAD: t.word = (_Atomic uint64_t *)(void *)cell_payload(r, p); break;
    case AT_BLOCK_WORD: t.word = word_in(s->block_words, s->geometry.blocks * (uint64_t)SHMQ__LINE, in); break;
    case AT_STATUS: t.word = word_in(&q->shut, 64, in); break;
    case AT_COUNTERS: t.word = word_in(&q->aborted, 64, in); break;
    case AT_SLOT: t.word = word_in(slot, offsetof(struct shmq__slot, redo_state), in); break;
    case AT_REDO:
      t.word = word_in(&slot->redo_state, sizeof *slot - offsetof(struct shmq__slot, redo_state), in);
      break;
    default: t.word = word_in(s->memory, s->geometry.bytes, in); break;
  }
  return t;
}

static uint64_t sensible_cell(const struct target *t, enum shmq__kind kind, struct input *in) {
  const shmq__ring_view *r = t->ring;
  uint8_t more = input_u8(in);
  uint32_t length = more & 1 ? input_below(in, r->payload_bytes + 1) : input_u32(in);
  uint32_t turn = more & 2 ? next_turn(r, t->position) : turn_of(r, t->position);
  return cell_make(turn, length, more >> 2 & 3, input_u8(in) & 63, more & 16, kind);
}

static uint64_t sensible_redo(const shmq_segment *s, const struct target *t, struct input *in) {
  if ((void *)t->word == (void *)&t->slot->redo_state) /* and redo_count */
    return REDO_COMMITTED | (uint64_t)input_below(in, SHMQ_COMMIT_MAX + 2) << 32;
  if (input_u8(in) & 1) return sensible_cell(t, CELL_READY, in);
  uint32_t ring = input_below(in, s->geometry.rings + 1);
  return (t->position & POSITION_MASK) << 16 | (uint64_t)ring << 1 | (input_u8(in) & 1);
}

/* What belongs there, nearly. */
static uint64_t sensible(const shmq_segment *s, const struct target *t, enum place place, uint64_t old,
                         struct input *in) {
  switch (place) {
    case AT_TAIL:
    case AT_HEAD: return index_make(t->position, input_u8(in), input_u8(in) & 7);
    case AT_CELL: return sensible_cell(t, (enum shmq__kind)input_below(in, 6), in);
    case AT_RETURNED: return sensible_cell(t, CELL_RETURNED, in);
    case AT_RECORD: return record_make(t->position, input_u8(in) & 7);
    case AT_BLOCK_WORD:
      return block_make(input_u8(in) & 7, input_below(in, s->geometry.rings + 1), t->position);
    case AT_STAMP: return (uint64_t)(shmq_now_ns() + (int16_t)input_u16(in));
    case AT_PAYLOAD: /* a reference to a block */
      return (uint64_t)input_u32(in) << 32 | input_below(in, s->geometry.blocks + 1);
    case AT_REDO: return sensible_redo(s, t, in);
    default: return old + 1;
  }
}

static uint64_t choose_value(const shmq_segment *s, const struct target *t, enum place place,
                             struct input *in) {
  uint64_t old = a_load(t->word);
  switch (input_below(in, 8)) {
    case 0: return input_u64(in);
    case 1: return old ^ UINT64_C(1) << (input_u8(in) & 63);
    case 2: return old + input_u8(in) - 128;
    case 3: return 0;
    case 4: return UINT64_MAX >> (input_u8(in) & 63);
    default: return sensible(s, t, place, old, in);
  }
}

void world_scribble(const shmq_segment *s, struct input *in) {
  enum place place = (enum place)input_below(in, PLACES);
  struct target t = choose(s, place, in);
  a_store(t.word, choose_value(s, &t, place, in));
  /* Nobody looks for returned cells unless they are announced. */
  if (place == AT_RETURNED) (void)a_add(&s->queues[t.ring->queue].returned_seq, 1u);
  /* And nobody recovers a slot that says it is clean. */
  if (place == AT_REDO || place == AT_SLOT) a_store(&t.slot->state, (uint32_t)SLOT_DIRTY);
}

/* Never the same value for long: whoever expects a word to stay what it was expects in vain. */
void world_hammer(const shmq_segment *s, struct input *in, uint64_t times) {
  static const uint64_t steps[] = {1, 2, UINT64_C(1) << 16, UINT64_C(1) << 42};
  enum place place = (enum place)input_below(in, PLACES);
  struct target t = choose(s, place, in);
  uint64_t value = choose_value(s, &t, place, in), step = steps[input_below(in, 4)];
  for (uint64_t i = 0; i < times; i++) a_store(t.word, value += step);
}
