/* SPDX-License-Identifier: Apache-2.0
 *
 * Others move an index on between a look at it and the look at its cell. The look is compiled here with the model's steps,
 * which is where they come in between.
 */
#define SHMQ_MODEL
#include <criterion/criterion.h>

#include "support/fresh.h"

static int fd;
static shmq *other;
static const volatile void *looked_at;
static void (*in_between)(void);

void model_step(const volatile void *word, int kind) {
  void (*act)(void) = in_between;
  if (!act || word != looked_at || kind != MODEL_LOAD) return;
  in_between = NULL;
  act();
}

static shmq *begin(uint64_t messages) {
  shmq_queue_options o = {.capacity = 4, .message_bytes = 16};
  shmq *q = fresh_queue(&o, &fd);
  other = peer(fd, NULL);
  for (uint64_t n = 0; n < messages; n++) cr_assert_eq(put_number(other, n), 0);
  return q;
}
static void end(shmq *q) {
  shmq_close(other);
  shmq_close(q);
  close(fd);
}
static void before_the_look_at(shmq *q, uint64_t position, void (*act)(void)) {
  looked_at = cell_word(q->rings, position);
  in_between = act;
}

static void gets(void) { cr_assert_geq(get_number(other), 0); }
static void puts_one(void) { cr_assert_eq(put_number(other, 9), 0); }

/* It was published before anybody slept, so no signal comes for it any more. */
Test(core_ring_moved, the_message_behind_one_that_was_just_taken_is_seen) {
  shmq *q = begin(2);
  before_the_look_at(q, 0, gets);
  cr_assert(ring_has_published(q->rings));
  before_the_look_at(q, 1, gets);
  cr_assert_not(ring_has_published(q->rings));
  cr_assert_null(in_between);
  end(q);
}

Test(core_ring_moved, the_room_behind_what_was_just_put_is_seen) {
  shmq *q = begin(2);
  before_the_look_at(q, 2, puts_one);
  cr_assert(ring_has_room(q->rings));
  before_the_look_at(q, 3, puts_one);
  cr_assert_not(ring_has_room(q->rings));
  cr_assert_null(in_between);
  end(q);
}
