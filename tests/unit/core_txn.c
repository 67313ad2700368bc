/* SPDX-License-Identifier: Apache-2.0
 *
 * The redo record: a decided step is completed whoever completes it and however often; an undecided one
 * never happened.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

enum { CAPACITY = 4, BLOCKS = 6, BLOCK_BYTES = 128 };
static int fd;
static shmq *watcher; /* lives */
static shmq *in, *out; /* the victim's, of one attachment */
static shmq_message input, output, large_input, large_output;

static void begin(uint64_t position) {
  static const shmq_queue_options queues[] = {
      {.name = "in", .capacity = CAPACITY, .message_bytes = 16},
      {.name = "out", .capacity = CAPACITY, .message_bytes = 16}};
  const shmq_options o = {.queues = queues, .queue_count = 2, .participants = 4, .blocks = BLOCKS,
                          .block_bytes = BLOCK_BYTES};
  static const unsigned char large[100] = {42};
  fd = fresh_fd(&o);
  watcher = peer(fd, "in");
  MUST(shmq_join_segment(watcher->segment, NULL, NULL));
  wind_to(&watcher->segment->rings[0], position);
  wind_to(&watcher->segment->rings[1], position);
  in = opened(attached(fd), "in");
  out = opened(in->segment, "out");
  MUST(put_number(watcher, 11));
  MUST(shmq_put(watcher, large, sizeof large, SHMQ_NOWAIT));
  MUST(shmq_lease(in, &input, SHMQ_NOWAIT));
  MUST(shmq_lease(in, &large_input, SHMQ_NOWAIT));
  MUST(shmq_reserve(out, 8, &output, SHMQ_NOWAIT));
  MUST(shmq_reserve(out, 100, &large_output, SHMQ_NOWAIT));
  memcpy(output.data, &(uint64_t){22}, 8);
  memset(large_output.data, 43, 100);
}

/* The entries of the step {input, large_input} -> {output, large_output}. */
static void items_of(struct shmq__txn_item items[4]) {
  shmq_message *messages[] = {&output, &input, &large_output, &large_input};
  for (int i = 0; i < 4; i++) {
    struct shmq__held held;
    bool reserved = i % 2 == 0;
    shmq *q = reserved ? out : in;
    MUST(shmq__message_held(q, messages[i], reserved ? HOLD_RESERVED : HOLD_LEASED, &held));
    items[i] = (struct shmq__txn_item){.ring = held.ring, .position = held.position, .block = -1};
    if (reserved)
      items[i].word = shmq__ready_word(&held, messages[i]->size);
    else
      items[i].block = held.block;
  }
}

/* The record as it stands just before, or just after, the commit. */
static void write_record(bool committed) {
  struct shmq__txn_item items[4];
  struct shmq__slot *slot = slot_of(in->segment, in->segment->me);
  items_of(items);
  for (int i = 0; i < 4; i++) {
    slot->redo[i].where = items[i].position << 16 | (uint64_t)items[i].ring->id << 1 |
                          (items[i].word ? REDO_PUBLISH : REDO_FREE);
    slot->redo[i].word = items[i].word ? items[i].word : (uint64_t)(items[i].block + 1);
  }
  slot->redo_count = 4;
  if (committed) slot->redo_state = REDO_COMMITTED;
}

static void end(void) {
  shmq_close(watcher);
  close(fd);
}
static void kill_victim(void) {
  free(out);
  die(in);
}

static void check_done(void) {
  shmq *q = peer(fd, "out");
  cr_assert_eq(get_number(watcher), -EAGAIN);
  cr_assert_eq(get_number(q), 22);
  unsigned char data[BLOCK_BYTES];
  cr_assert_eq(shmq_get(q, data, sizeof data, SHMQ_NOWAIT), 100);
  cr_assert_eq(data[99], 43);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  shmq_close(q);
}

Test(core_txn, a_written_but_undecided_step_never_happened) {
  begin(0);
  write_record(false);
  kill_victim();
  cr_assert_eq(shmq_recover(watcher->segment), 1);
  shmq *q = peer(fd, "out");
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_message m;
  cr_assert_eq(shmq_lease(watcher, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(number_in(&m), 11);
  cr_assert_eq(m.attempts, 2);
  shmq_message l;
  cr_assert_eq(shmq_lease(watcher, &l, SHMQ_NOWAIT), 0);
  cr_assert_eq(l.size, 100);
  cr_assert_eq(shmq_ack(watcher, &m), 0);
  cr_assert_eq(shmq_ack(watcher, &l), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  shmq_close(q);
  end();
}

Test(core_txn, a_decided_step_is_completed_by_recovery_over_every_wrap) {
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    begin(wrap_position(&(shmq__ring_view){.shift = 2}, wrap));
    write_record(true);
    kill_victim();
    cr_assert_eq(shmq_recover(watcher->segment), 1);
    check_done();
    end();
  }
}

/* T3: any part of the entries was applied already, in any combination, and then all of them again. */
Test(core_txn, applying_after_any_part_was_applied_changes_nothing) {
  for (unsigned applied = 0; applied < 16; applied++) {
    begin(wrap_position(&(shmq__ring_view){.shift = 2}, applied));
    struct shmq__txn_item items[4];
    items_of(items);
    write_record(true);
    for (int i = 0; i < 4; i++) {
      if (!(applied >> i & 1)) continue;
      const struct shmq__txn_item *t = &items[i];
      atomic_store(cell_word(t->ring, t->position),
                   t->word ? t->word : cell_free(next_turn(t->ring, t->position)));
    }
    kill_victim();
    cr_assert_eq(shmq_recover(watcher->segment), 1);
    check_done();
    end();
  }
}

/* Even after the outputs were consumed and their cells hold messages of the next lap. */
Test(core_txn, replaying_an_old_record_changes_nothing) {
  begin(0);
  uint32_t victim = in->segment->me;
  struct shmq__slot *slot = slot_of(watcher->segment, victim);
  write_record(true);
  kill_victim();
  cr_assert_eq(shmq_recover(watcher->segment), 1);
  check_done();
  shmq *q = peer(fd, "out");
  for (uint64_t lap = 0; lap < 3; lap++) {
    for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(put_number(q, 100 + i), 0);
    for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(put_number(watcher, 200 + i), 0);
    slot->redo_state = REDO_COMMITTED;
    cr_assert(shmq__txn_replay(watcher->segment, victim));
    cr_assert(!shmq__txn_replay(watcher->segment, victim), "once");
    for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(get_number(q), 100 + (int64_t)i);
    for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(get_number(watcher), 200 + (int64_t)i);
  }
  shmq_close(q);
  end();
}

/* Shared bytes that make no sense: nothing is touched that does not match. */
Test(core_txn, a_damaged_record_is_harmless) {
  begin(0);
  uint32_t victim = in->segment->me;
  struct shmq__slot *slot = slot_of(watcher->segment, victim);
  for (int i = 0; i < SHMQ_COMMIT_MAX; i++) {
    slot->redo[i].where = UINT64_MAX - (unsigned)i * 2u;
    slot->redo[i].word = UINT64_MAX;
  }
  slot->redo[0].where = 7 << 16 | 0 << 1 | REDO_PUBLISH; /* in range, but block and turn are not */
  slot->redo[1].where = 0 << 16 | 1 << 1 | REDO_FREE;
  slot->redo[1].word = BLOCKS + 1;
  slot->redo_count = UINT32_MAX;
  slot->redo_state = REDO_COMMITTED;
  kill_victim();
  cr_assert_eq(shmq_recover(watcher->segment), 1);
  cr_assert_eq(get_number(watcher), 11);
  end();
}

/* The public call, whole. */
Test(core_txn, commit_all_empties_the_record) {
  begin(0);
  const shmq_step steps[] = {
      {in, &input}, {out, &output}, {in, &large_input}, {out, &large_output}};
  cr_assert_eq(shmq_commit_all(steps, 4), 0);
  cr_assert_eq(slot_of(in->segment, in->segment->me)->redo_state, REDO_NONE);
  cr_assert_eq(input.data, NULL, "the messages are cleared");
  cr_assert_eq(out->held + in->held, 0);
  shmq_segment *s = in->segment;
  check_done();
  shmq_close(out);
  shmq_close(in);
  shmq_detach(s);
  end();
}
