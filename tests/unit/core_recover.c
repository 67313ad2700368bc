/* SPDX-License-Identifier: Apache-2.0
 *
 * Recovery: what the dead held is settled, what the living hold is not touched, and doing it twice
 * changes nothing.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

enum { CAPACITY = 8 };
static const uint32_t modes[] = {0, SHMQ_SINGLE_PRODUCER, SHMQ_SINGLE_CONSUMER,
                                 SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};
static int fd;

static shmq *begin(uint32_t flags, unsigned wrap) {
  shmq_queue_options o = {.capacity = CAPACITY, .message_bytes = 16, .flags = flags};
  shmq *q = fresh_queue(&o, &fd);
  wind_to(q->rings, wrap_position(q->rings, wrap));
  MUST(shmq_join_segment(q->segment, NULL, NULL)); /* or its join would recover whose slot it takes */
  return q;
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}
static void finish_lease(shmq *q, uint64_t number, uint32_t attempts) {
  shmq_message m;
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(number_in(&m), number);
  cr_assert_eq(m.attempts, attempts, "attempt %u", m.attempts);
  cr_assert_eq(shmq_ack(q, &m), 0);
}
static void check_sound(void) {
  shmq_audit a = audit(fd);
  cr_assert_eq(a.dead_participants, 0);
  cr_assert_eq(a.held_by_dead, 0);
  cr_assert_eq(a.unexplained, 0);
  cr_assert_eq(a.damaged, 0);
}

Test(core_recover, a_dead_producers_reservations_are_skipped) {
  for (unsigned mode = 0; mode < 4; mode++) {
    for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
      shmq *q = begin(modes[mode], wrap), *victim = peer(fd, NULL);
      shmq_message m[3];
      cr_assert_eq(put_number(victim, 1), 0);
      for (int i = 0; i < 3; i++) cr_assert_eq(shmq_reserve(victim, 8, &m[i], SHMQ_NOWAIT), 0);
      memcpy(m[1].data, &(uint64_t){2}, 8);
      cr_assert_eq(shmq_commit(victim, &m[1]), 0);
      cr_assert_eq(put_number(victim, 3), 0);
      die(victim);
      cr_assert_eq(get_number(q), 1);
      cr_assert_eq(get_number(q), -EAGAIN, "the reservation holds up those behind it");
      cr_assert_eq(shmq_recover(q->segment), 1);
      check_sound();
      cr_assert_eq(get_number(q), 2);
      cr_assert_eq(get_number(q), 3);
      cr_assert_eq(get_number(q), -EAGAIN);
      cr_assert_eq(queue_info(fd, 0).aborted, 2);
      for (uint64_t i = 0; i < 3 * CAPACITY; i++) { /* every cell works again */
        cr_assert_eq(put_number(q, i), 0);
        cr_assert_eq(get_number(q), (int64_t)i);
      }
      end(q);
    }
  }
}

Test(core_recover, a_dead_consumers_leases_are_delivered_again) {
  for (unsigned mode = 0; mode < 4; mode++) {
    for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
      shmq *q = begin(modes[mode], wrap), *victim = peer(fd, NULL);
      shmq_message m[4];
      for (uint64_t i = 1; i <= 5; i++) cr_assert_eq(put_number(q, i), 0);
      cr_assert_eq(shmq_lease_batch(victim, m, 4, SHMQ_NOWAIT), 4);
      cr_assert_eq(shmq_ack(victim, &m[1]), 0);
      die(victim);
      cr_assert_eq(shmq_recover(q->segment), 1);
      check_sound();
      unsigned again = 0;
      for (int i = 0; i < 3; i++) {
        cr_assert_eq(shmq_lease(q, &m[i], SHMQ_NOWAIT), 0);
        cr_assert_eq(m[i].attempts, 2);
        again |= 1u << number_in(&m[i]);
      }
      cr_assert_eq(again, 1u << 1 | 1u << 3 | 1u << 4, "redeliveries come first, in any order");
      for (int i = 0; i < 3; i++) cr_assert_eq(shmq_ack(q, &m[i]), 0);
      finish_lease(q, 5, 1);
      cr_assert_eq(get_number(q), -EAGAIN);
      cr_assert_eq(queue_info(fd, 0).redeliveries, 3);
      if (wrap == 0) cr_assert_eq(queue_info(fd, 0).gets, 5, "counted from position 0");
      end(q);
    }
  }
}

/* Held a second time: only the cell's word knows it. */
Test(core_recover, a_redelivered_message_survives_its_next_holder_too) {
  for (unsigned mode = 0; mode < 4; mode++) {
    shmq *q = begin(modes[mode], 0);
    cr_assert_eq(put_number(q, 7), 0);
    for (uint32_t death = 1; death <= 5; death++) {
      shmq *victim = peer(fd, NULL);
      shmq_message m;
      cr_assert_eq(shmq_lease(victim, &m, SHMQ_NOWAIT), 0);
      cr_assert_eq(m.attempts, death);
      cr_assert_eq(number_in(&m), 7);
      die(victim);
      cr_assert_eq(shmq_recover(q->segment), 1);
      check_sound();
    }
    finish_lease(q, 7, 6);
    end(q);
  }
}

/* The instruction after the claim: the index word names the dead, the records do not. */
Test(core_recover, an_unrecorded_run_is_recorded_first) {
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    shmq *q = begin(0, wrap), *victim = peer(fd, NULL);
    const shmq__ring_view *r = q->rings;
    uint64_t at = wrap_position(r, wrap);
    for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(q, i), 0);
    MUST(shmq_join_segment(victim->segment, NULL, NULL));
    uint32_t dead = victim->segment->me;
    atomic_store(&r->index->tail, index_make(position_add(at, 6), 2, dead));
    atomic_store(&r->index->head, index_make(position_add(at, 2), 2, dead));
    die(victim);
    cr_assert_eq(shmq_recover(q->segment), 1);
    check_sound();
    finish_lease(q, 0, 2);
    finish_lease(q, 1, 2);
    finish_lease(q, 2, 1);
    finish_lease(q, 3, 1);
    cr_assert_eq(get_number(q), -EAGAIN);
    cr_assert_eq(queue_info(fd, 0).aborted, 2);
    cr_assert_eq(put_number(q, 9), 0);
    cr_assert_eq(get_number(q), 9);
    end(q);
  }
}

/* Tombstones that the dead had taken and not yet freed. */
Test(core_recover, taken_tombstones_are_freed) {
  shmq *q = begin(0, 3), *victim = peer(fd, NULL);
  shmq_message m[3];
  uint64_t first, words[SHMQ_BATCH_MAX];
  for (int i = 0; i < 3; i++) cr_assert_eq(shmq_reserve(q, 8, &m[i], SHMQ_NOWAIT), 0);
  for (int i = 0; i < 3; i++) cr_assert_eq(shmq_abort(q, &m[i]), 0);
  MUST(shmq_join_segment(victim->segment, NULL, NULL));
  cr_assert_eq(ring_take(victim->rings, victim->segment->me, 3, NULL, &first, words), 3);
  die(victim);
  cr_assert_eq(shmq_recover(q->segment), 1);
  cr_assert_eq(shmq_depth(q), 0);
  for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(put_number(q, i), 0, "all cells are free");
  end(q);
}

Test(core_recover, the_living_keep_what_they_hold) {
  shmq *q = begin(0, 3), *victim = peer(fd, NULL), *other = peer(fd, NULL);
  shmq_message lease, again, reservation, lost[2];
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(put_number(q, 2), 0);
  cr_assert_eq(put_number(q, 3), 0);
  cr_assert_eq(shmq_lease(q, &again, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_nack(q, &again), 0);
  cr_assert_eq(shmq_lease(other, &again, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(other, &lease, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(victim, &lost[0], SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(other, 8, &reservation, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(victim, 8, &lost[1], SHMQ_NOWAIT), 0);
  die(victim);
  cr_assert_eq(shmq_recover(q->segment), 1);
  cr_assert_eq(queue_info(fd, 0).leased, 2);
  cr_assert_eq(queue_info(fd, 0).reserved, 1);
  memcpy(reservation.data, &(uint64_t){4}, 8);
  cr_assert_eq(shmq_commit(other, &reservation), 0);
  cr_assert_eq(shmq_ack(other, &lease), 0);
  cr_assert_eq(shmq_ack(other, &again), 0);
  finish_lease(q, 3, 2);
  finish_lease(q, 4, 1);
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_close(other);
  end(q);
}

/* Cells, records, indices, blocks: all that a second recovery could spoil. Sequences may be raised. */
static void snapshot(const shmq_segment *s, unsigned char **copy, size_t *bytes) {
  *bytes = s->geometry.bytes - s->geometry.rings_at;
  *copy = malloc(*bytes);
  memcpy(*copy, s->memory + s->geometry.rings_at, *bytes);
}

Test(core_recover, recovering_again_changes_nothing) {
  for (unsigned mode = 0; mode < 4; mode++) {
    shmq *q = begin(modes[mode], mode), *victim = peer(fd, NULL);
    shmq_segment *s = q->segment;
    shmq_message m[5];
    for (uint64_t i = 0; i < 4; i++) cr_assert_eq(put_number(victim, i), 0);
    cr_assert_eq(shmq_lease_batch(victim, m, 3, SHMQ_NOWAIT), 3);
    cr_assert_eq(shmq_nack(victim, &m[0]), 0);
    cr_assert_eq(shmq_lease(victim, &m[0], SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_reserve(victim, 8, &m[3], SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_reserve(victim, 8, &m[4], SHMQ_NOWAIT), 0);
    uint32_t dead = victim->segment->me;
    die(victim);
    cr_assert_eq(shmq_recover(s), 1);
    unsigned char *before;
    size_t bytes;
    snapshot(s, &before, &bytes);
    cr_assert_eq(shmq_recover(s), 0, "the slot is clean");
    slot_of(s, dead)->state = SLOT_DIRTY;
    slot_of(s, dead)->redelivers = 1;
    cr_assert_eq(shmq_recover(s), 1);
    cr_assert_eq(memcmp(before, s->memory + s->geometry.rings_at, bytes), 0);
    free(before);
    finish_lease(q, 0, 3);
    finish_lease(q, 1, 2);
    finish_lease(q, 2, 2);
    finish_lease(q, 3, 1);
    end(q);
  }
}

/* A record of the dead from an earlier lap names a cell that is somebody else's by now. */
Test(core_recover, old_records_settle_nothing) {
  shmq *q = begin(0, 0), *victim = peer(fd, NULL);
  for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(put_number(victim, i), 0);
  for (uint64_t i = 0; i < CAPACITY; i++) cr_assert_eq(get_number(victim), (int64_t)i);
  shmq_message lease, reservation;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_reserve(q, 8, &reservation, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(q, &lease, SHMQ_NOWAIT), 0);
  die(victim);
  cr_assert_eq(shmq_recover(q->segment), 1);
  cr_assert_eq(shmq_commit(q, &reservation), 0);
  cr_assert_eq(shmq_ack(q, &lease), 0);
  cr_assert_eq(queue_info(fd, 0).redeliveries, 0);
  cr_assert_eq(queue_info(fd, 0).aborted, 0);
  end(q);
}

/* Lock, not pid: a slot whose pid and start time are a living process's is dead all the same. */
Test(core_recover, a_pid_in_use_again_keeps_nobody_alive) {
  shmq *q = begin(0, 0), *victim = peer(fd, NULL);
  shmq_message m;
  MUST(shmq_join_segment(q->segment, NULL, NULL));
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(victim, &m, SHMQ_NOWAIT), 0);
  struct shmq__slot *mine = slot_of(q->segment, q->segment->me);
  struct shmq__slot *its = slot_of(q->segment, victim->segment->me);
  cr_assert_eq(its->pid, getpid());
  cr_assert_eq(its->start_time, mine->start_time);
  die(victim);
  cr_assert_eq(audit(fd).dead_participants, 1);
  cr_assert_eq(shmq_recover(q->segment), 1);
  finish_lease(q, 1, 2);
  end(q);
}

/* And the other way round: a pid that is nobody's does not make a living participant dead. */
Test(core_recover, a_wrong_pid_kills_nobody) {
  shmq *q = begin(0, 0), *living = peer(fd, NULL);
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(living, &m, SHMQ_NOWAIT), 0);
  slot_of(q->segment, living->segment->me)->pid = INT32_MAX;
  cr_assert_eq(shmq_recover(q->segment), 0);
  cr_assert_eq(shmq_ack(living, &m), 0);
  shmq_close(living);
  end(q);
}

Test(core_recover, roles_of_the_dead_are_free) {
  shmq *q = begin(SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER, 0), *victim = peer(fd, NULL);
  cr_assert_eq(put_number(victim, 1), 0);
  cr_assert_eq(get_number(victim), 1);
  cr_assert_eq(put_number(q, 2), -EBUSY);
  cr_assert_eq(get_number(q), -EBUSY);
  die(victim);
  cr_assert_eq(put_number(q, 2), 0, "taken over without a recover of one's own");
  cr_assert_eq(get_number(q), 2);
  end(q);
}

/* Somebody who waits finds the death within its bounded look, without being told. */
Test(core_recover, a_waiting_taker_notices_the_death) {
  for (unsigned flags = 0; flags <= SHMQ_NOSPIN; flags++) {
    shmq *q = begin(0, 0), *victim = peer(fd, NULL), *waiting = opened(attached(fd), NULL);
    waiting->flags = flags;
    waiting->segment->owned_by_queue = true;
    shmq_message m;
    uint64_t n;
    cr_assert_eq(shmq_reserve(victim, 8, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(put_number(q, 1), 0);
    die(victim);
    cr_assert_eq(shmq_get(waiting, &n, sizeof n, PATIENCE), 8);
    cr_assert_eq(n, 1);
    shmq_close(waiting);
    end(q);
  }
}

Test(core_recover, a_waiting_putter_notices_the_death) {
  shmq *q = begin(0, 0), *victim = peer(fd, NULL);
  shmq_message m;
  for (uint64_t i = 0; i < CAPACITY - 1; i++) cr_assert_eq(put_number(q, i), 0);
  cr_assert_eq(shmq_reserve(victim, 8, &m, SHMQ_NOWAIT), 0);
  for (uint64_t i = 0; i < CAPACITY - 1; i++) cr_assert_eq(get_number(q), (int64_t)i);
  for (uint64_t i = 0; i < CAPACITY - 1; i++) cr_assert_eq(put_number(q, i), 0);
  die(victim);
  cr_assert_eq(shmq_put(q, "x", 1, PATIENCE), 0, "what the dead one gave up is room");
  cr_assert_eq(shmq_put(q, "x", 1, SHMQ_NOWAIT), -EAGAIN, "and no more than that");
  cr_assert_eq(get_number(q), 0);
  end(q);
}

/* What is given up leaves the queue empty, not full, even where nobody ever takes. */
Test(core_recover, a_putter_alone_passes_tombstones) {
  shmq *q = begin(0, 0);
  shmq_message m;
  for (uint64_t i = 0; i < 2 * CAPACITY; i++) {
    cr_assert_eq(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_abort(q, &m), 0);
  }
  cr_assert_eq(put_number(q, 7), 0);
  cr_assert_eq(get_number(q), 7);
  end(q);
}

/* Words of owners that cannot exist: recovery of the real ones passes over them. */
Test(core_recover, damaged_records_are_passed_over) {
  shmq *q = begin(0, 0), *victim = peer(fd, NULL);
  shmq_message m;
  const shmq__ring_view *r = q->rings;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(victim, &m, SHMQ_NOWAIT), 0);
  uint32_t dead = victim->segment->me;
  die(victim);
  for (uint64_t i = 1; i < CAPACITY; i++) {
    r->consumer_records[i] = record_make(i + 3, dead);          /* of another cell */
    r->producer_records[i] = record_make(POSITION_MASK, 1023); /* of nobody */
  }
  cr_assert_eq(shmq_recover(q->segment), 1);
  finish_lease(q, 1, 2);
  end(q);
}
