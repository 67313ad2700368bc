/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking positions: one after the other, in runs, across every wrap, and finishing what a dead or
 * stalled taker has left unrecorded.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

enum { CAPACITY = 8, ME = 2, OTHER = 7 };
static int fd;
static shmq *q;
static const shmq__ring_view *r;

static void begin(uint32_t flags) {
  shmq_queue_options o = {.capacity = CAPACITY, .message_bytes = 8, .flags = flags};
  q = fresh_queue(&o, &fd);
  r = q->rings;
}
static void end(void) {
  shmq_close(q);
  close(fd);
}

static void publish(uint64_t p, uint32_t length) {
  atomic_store(cell_word(r, p), cell_make(turn_of(r, p), length, 0, 0, false, CELL_READY));
}
static void release(uint64_t p) { atomic_store(cell_word(r, p), cell_free(next_turn(r, p))); }

static const uint32_t modes[] = {0, SHMQ_SINGLE_PRODUCER, SHMQ_SINGLE_CONSUMER,
                                 SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};

/* Three laps in runs of every length, over every wrap and in every mode. */
Test(core_ring, claims_and_takes_in_order_over_every_wrap) {
  for (unsigned mode = 0; mode < 4; mode++) {
    begin(modes[mode]);
    for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
      uint64_t at = wrap_position(r, wrap), first, words[SHMQ_BATCH_MAX];
      wind_to(r, at);
      for (uint32_t i = 0; i < 3 * CAPACITY; i++) {
        uint32_t run = 1 + i % CAPACITY;
        cr_assert_eq(ring_claim(r, ME, run, &first), (int)run);
        cr_assert_eq(first, at);
        cr_assert_eq(ring_take(r, ME, 1, NULL, &first, words), -EAGAIN, "claimed is not published");
        for (uint32_t k = 0; k < run; k++) publish(position_add(at, k), k);
        cr_assert_eq(ring_span(r), run);
        cr_assert_eq(ring_take(r, ME, CAPACITY, NULL, &first, words), (int)run);
        cr_assert_eq(first, at);
        for (uint32_t k = 0; k < run; k++) {
          cr_assert_eq(cell_length(words[k]), k);
          release(position_add(at, k));
        }
        at = position_add(at, run);
        cr_assert_eq(ring_span(r), 0);
      }
    }
    end();
  }
}

Test(core_ring, full_when_the_next_cell_is_not_free) {
  begin(0);
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    uint64_t at = wrap_position(r, wrap), first, words[SHMQ_BATCH_MAX];
    wind_to(r, at);
    cr_assert_eq(ring_claim(r, ME, 5, &first), 5);
    cr_assert_eq(ring_claim(r, ME, 5, &first), 3, "what there is");
    cr_assert_eq(first, position_add(at, 5));
    cr_assert_eq(ring_claim(r, ME, 1, &first), -EAGAIN);
    for (uint32_t k = 0; k < CAPACITY; k++) publish(position_add(at, k), 0);
    cr_assert_eq(ring_claim(r, ME, 1, &first), -EAGAIN);
    cr_assert_eq(ring_take(r, ME, 2, NULL, &first, words), 2);
    cr_assert_eq(ring_claim(r, ME, 1, &first), -EAGAIN, "taken is not free");
    release(position_add(at, 1));
    cr_assert_eq(ring_claim(r, ME, 1, &first), -EAGAIN, "the oldest is still held");
    release(at);
    cr_assert_eq(ring_claim(r, ME, 3, &first), 2);
    cr_assert_eq(first, position_add(at, CAPACITY));
  }
  end();
}

Test(core_ring, every_position_is_recorded_as_its_takers) {
  begin(0);
  uint64_t first, words[SHMQ_BATCH_MAX], at = wrap_position(r, 3);
  wind_to(r, at);
  cr_assert_eq(ring_claim(r, ME, 5, &first), 5);
  for (uint32_t k = 0; k < 5; k++) {
    uint64_t p = position_add(at, k);
    cr_assert_eq(r->producer_records[p & r->mask], record_make(p, ME));
    publish(p, 0);
  }
  cr_assert_eq(atomic_load(&r->index->tail), index_make(position_add(at, 5), 5, ME));
  cr_assert_eq(ring_take(r, OTHER, 4, NULL, &first, words), 4);
  for (uint32_t k = 0; k < 4; k++) {
    uint64_t p = position_add(at, k);
    cr_assert_eq(r->consumer_records[p & r->mask], record_make(p, OTHER));
  }
  cr_assert_eq(atomic_load(&r->index->head), index_make(position_add(at, 4), 4, OTHER));
  end();
}

/* R2: whoever moves an index word on records the run it names first, whole or the missing rest. */
Test(core_ring, the_next_taker_records_the_run_that_the_index_names) {
  begin(0);
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    for (uint32_t recorded = 0; recorded <= 3; recorded++) {
      uint64_t at = wrap_position(r, wrap), first;
      wind_to(r, at);
      for (uint32_t k = 0; k < CAPACITY; k++)
        atomic_store(&r->producer_records[(at + k) & r->mask],
                     record_make(position_sub(position_add(at, k), CAPACITY), 3));
      for (uint32_t k = 0; k < recorded; k++)
        atomic_store(&r->producer_records[(at + k) & r->mask],
                     record_make(position_add(at, k), OTHER));
      atomic_store(&r->index->tail, index_make(position_add(at, 3), 3, OTHER));
      cr_assert_eq(ring_claim(r, ME, 1, &first), 1);
      cr_assert_eq(first, position_add(at, 3));
      for (uint32_t k = 0; k < 3; k++) {
        uint64_t p = position_add(at, k);
        cr_assert_eq(r->producer_records[p & r->mask], record_make(p, OTHER), "position %u", k);
      }
      uint64_t untouched = position_add(at, 4);
      cr_assert_eq(r->producer_records[untouched & r->mask],
                   record_make(position_sub(untouched, CAPACITY), 3));
    }
  }
  end();
}

/* A helper that slept since it read the index word must not write the old run over newer records. */
Test(core_ring, a_stalled_helper_changes_nothing) {
  begin(0);
  uint64_t at = 100, first, words[SHMQ_BATCH_MAX];
  wind_to(r, at);
  uint64_t seen_by_helper = index_make(at + 3, 3, OTHER);
  atomic_store(&r->index->tail, seen_by_helper);
  for (uint32_t lap = 0; lap < 2 * CAPACITY; lap++) {
    cr_assert_eq(ring_claim(r, ME, 1, &first), 1);
    if (lap == 0)
      for (uint32_t k = 0; k < 3; k++) publish(at + k, 0);
    publish(first, 0);
    cr_assert_eq(ring_take(r, ME, lap == 0 ? 4 : 1, NULL, &first, words), lap == 0 ? 4 : 1);
    for (uint32_t k = 0; k < (lap == 0 ? 4 : 1); k++) release(first + k);
    uint64_t before[CAPACITY];
    memcpy(before, r->producer_records, sizeof before);
    shmq__ring_record_run(r->producer_records, r->mask, &r->index->tail, seen_by_helper);
    cr_assert_arr_eq(before, r->producer_records, sizeof before);
  }
  end();
}

Test(core_ring, an_index_that_names_nobody_records_nothing) {
  begin(0);
  uint64_t x = index_make(5, 3, 0);
  atomic_store(&r->index->tail, x);
  shmq__ring_record_run(r->producer_records, r->mask, &r->index->tail, x);
  for (uint32_t k = 0; k < CAPACITY; k++) cr_assert_eq(r->producer_records[k], 0);
  end();
}

Test(core_ring, taking_stops_at_what_is_not_published) {
  begin(0);
  uint64_t first, words[SHMQ_BATCH_MAX];
  cr_assert_eq(ring_claim(r, ME, 4, &first), 4);
  publish(0, 1);
  publish(1, 2);
  publish(3, 4);
  cr_assert_eq(ring_take(r, ME, 8, NULL, &first, words), 2);
  cr_assert_eq(ring_take(r, ME, 8, NULL, &first, words), -EAGAIN);
  atomic_store(cell_word(r, 2), cell_tombstone(0));
  cr_assert_eq(ring_take(r, ME, 8, NULL, &first, words), 2);
  cr_assert_eq(first, 2);
  cr_assert_eq(cell_kind(words[0]), CELL_TOMBSTONE);
  cr_assert_eq(cell_kind(words[1]), CELL_READY);
  end();
}

Test(core_ring, a_message_too_long_for_its_buffer_is_not_taken) {
  begin(0);
  struct iovec limits[3] = {{.iov_len = 4}, {.iov_len = 4}, {.iov_len = 8}};
  uint64_t first, words[SHMQ_BATCH_MAX];
  cr_assert_eq(ring_claim(r, ME, 3, &first), 3);
  publish(0, 4);
  publish(1, 5);
  publish(2, 4);
  cr_assert_eq(ring_take(r, ME, 3, limits, &first, words), 1);
  cr_assert_eq(ring_take(r, ME, 3, limits, &first, words), -EMSGSIZE);
  cr_assert_eq(index_position(atomic_load(&r->index->head)), 1, "it stays");
  cr_assert_eq(ring_take(r, ME, 1, &limits[2], &first, words), 1);
  end();
}

/* Each step is what the position says, over the end of the ring, of the turns and of the positions. */
Test(core_ring, a_walk_goes_where_positions_go) {
  begin(0);
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    uint64_t p = position_sub(wrap_position(r, wrap), 3);
    struct ring_walk w = ring_walk_from(r, p);
    for (uint32_t i = 0; i < 3 * CAPACITY; i++, ring_walk_on(r, &w)) {
      uint64_t at = position_add(p, i);
      cr_assert_eq(ring_walk_word(&w), cell_word(r, at));
      cr_assert_eq(w.free, cell_free(turn_of(r, at)));
    }
  }
  end();
}

/* Up to the first that is none, over every wrap: what a batch copies at once. */
Test(core_ring, short_ones_are_taken_up_to_one_that_is_not) {
  const struct { uint64_t change; const char *what; } odd[] = {
      {cell_make(0, 0, 0, 0, true, CELL_FREE), "in a block"},
      {CELL_READY ^ CELL_TOMBSTONE, "given up"},
      {CELL_READY ^ CELL_RETURNED, "returned"},
      {CELL_READY ^ CELL_LEASED, "leased"},
      {CELL_READY ^ CELL_FREE, "not published"},
      {cell_make(1, 0, 0, 0, false, CELL_FREE), "of another turn"},
      {cell_make(0, 5 ^ 9, 0, 0, false, CELL_FREE), "longer than its cell"},
      {cell_make(0, 5 ^ 7, 0, 0, false, CELL_FREE), "longer than its limit"}};
  struct iovec limits[CAPACITY];
  begin(0);
  for (uint32_t i = 0; i < CAPACITY; i++) limits[i].iov_len = 6;
  for (unsigned k = 0; k < sizeof odd / sizeof *odd; k++) {
    if (k == 6) for (uint32_t i = 0; i < CAPACITY; i++) limits[i].iov_len = 100;
    if (k == 7) for (uint32_t i = 0; i < CAPACITY; i++) limits[i].iov_len = 6;
    for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
      uint64_t at = wrap_position(r, wrap), first, words[SHMQ_BATCH_MAX];
      wind_to(r, at);
      cr_assert_eq(ring_claim(r, ME, CAPACITY, &first), CAPACITY);
      cr_assert_eq(ring_take_short(r, ME, CAPACITY, limits, &first, words), 0, "claimed is not published");
      for (uint32_t i = 0; i < CAPACITY; i++) publish(position_add(at, i), 5);
      _Atomic uint64_t *word = cell_word(r, position_add(at, 5));
      atomic_store(word, atomic_load(word) ^ odd[k].change);
      cr_assert_eq(ring_take_short(r, ME, 2, limits, &first, words), 2);
      cr_assert_eq(first, at);
      cr_assert_eq(ring_take_short(r, ME, CAPACITY, limits, &first, words), 3, "%s", odd[k].what);
      cr_assert_eq(first, position_add(at, 2));
      cr_assert_eq(cell_length(words[2]), 5);
      cr_assert_eq(ring_take_short(r, ME, CAPACITY, limits, &first, words), 0, "%s", odd[k].what);
      cr_assert_eq(index_position(atomic_load(&r->index->head)), position_add(at, 5), "it stays");
    }
  }
  end();
}

Test(core_ring, words_of_another_lap_are_not_taken) {
  begin(0);
  uint64_t first, words[SHMQ_BATCH_MAX];
  wind_to(r, CAPACITY * 5);
  for (uint32_t turn = 0; turn < 12; turn++) {
    atomic_store(cell_word(r, 0), cell_make(turn, 1, 0, 0, false, CELL_READY));
    int rc = ring_take(r, ME, 1, NULL, &first, words);
    cr_assert_eq(rc, turn == 5 ? 1 : -EAGAIN, "turn %u", turn);
    if (rc == 1) break;
  }
  end();
}

Test(core_ring, order_of_positions_is_modular) {
  cr_assert(position_before(4, 5));
  cr_assert(!position_before(5, 5));
  cr_assert(!position_before(6, 5));
  cr_assert(position_before(POSITION_MASK, 0));
  cr_assert(position_before(POSITION_MASK - 3, 7));
  cr_assert(!position_before(0, POSITION_MASK));
}

Test(core_ring, span_when_head_has_overtaken_the_tail_that_was_read) {
  begin(0);
  atomic_store(&r->index->tail, index_make(5, 1, 1));
  atomic_store(&r->index->head, index_make(6, 1, 1));
  cr_assert_eq(ring_span(r), 0);
  end();
}
