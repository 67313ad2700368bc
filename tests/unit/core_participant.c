/* SPDX-License-Identifier: Apache-2.0
 *
 * Joining and leaving: the lock makes the participant, the slot describes it.
 */
#include <criterion/criterion.h>

#include <fcntl.h>

#include "os/lock.h"
#include "support/fresh.h"

static int fd;

static shmq_segment *begin(uint32_t participants) {
  shmq_options o = {.participants = participants};
  fd = fresh_fd(&o);
  return attached(fd);
}

static shmq_participant_info info_of(uint32_t index) {
  shmq_view *view;
  shmq_participant_info info = {0};
  MUST(shmq_view_open_fd(&view, fd));
  int rc = shmq_view_participant(view, index, &info);
  shmq_view_close(view);
  if (rc < 0) info.index = 0;
  return info;
}

Test(core_participant, joining_is_once_and_first_come) {
  shmq_segment *a = begin(4), *b = attached(fd);
  cr_assert_eq(shmq_participant(a, NULL), -ENOTCONN);
  cr_assert_eq(shmq_join_segment(a, NULL, NULL), 0);
  cr_assert_eq(shmq_join_segment(a, NULL, NULL), 0);
  cr_assert_eq(shmq_join_segment(b, NULL, NULL), 0);
  cr_assert_eq(shmq_participant(a, NULL), 1);
  cr_assert_eq(shmq_participant(b, NULL), 2);
  shmq_detach(a);
  shmq_detach(b);
  close(fd);
}

Test(core_participant, a_slot_says_who_it_is) {
  shmq_segment *s = begin(2);
  cr_assert_eq(shmq_join_segment(s, "a role that is longer", "and a label that is cut at 31 bytes"), 0);
  shmq_set_cpu(s, 3);
  shmq_participant_info info = info_of(1);
  cr_assert_eq(info.pid, getpid());
  cr_assert_eq(info.alive, 1);
  cr_assert_eq(info.stopped, 0);
  cr_assert_eq(info.cpu, 3);
  cr_assert_neq(info.start_time, 0);
  cr_assert_neq(info.pid_ns, 0);
  cr_assert_str_eq(info.role, "a role that is ");
  cr_assert_str_eq(info.label, "and a label that is cut at 31 b");
  shmq_detach(s);
  cr_assert_eq(info_of(1).index, 0, "left");
  close(fd);
}

Test(core_participant, each_join_is_a_generation) {
  shmq_segment *watcher = begin(4);
  cr_assert_eq(shmq_join_segment(watcher, NULL, NULL), 0);
  uint32_t before = 0;
  for (int i = 0; i < 3; i++) {
    shmq_segment *s = attached(fd);
    uint32_t generation;
    cr_assert_eq(shmq_join_segment(s, NULL, NULL), 0);
    cr_assert_eq(shmq_participant(s, &generation), 2);
    cr_assert_gt(generation, before);
    cr_assert_eq(shmq_participant_alive(watcher, 2, generation), 1);
    cr_assert_eq(shmq_participant_alive(watcher, 2, before), 0, "an earlier holder");
    cr_assert_eq(shmq_participant_alive(s, 2, generation), 1, "itself");
    shmq_detach(s);
    cr_assert_eq(shmq_participant_alive(watcher, 2, generation), 0);
    before = generation;
  }
  cr_assert_eq(shmq_participant_alive(watcher, 0, 1), -EINVAL);
  cr_assert_eq(shmq_participant_alive(watcher, 5, 1), -EINVAL);
  shmq_detach(watcher);
  close(fd);
}

Test(core_participant, the_dead_are_told_from_the_living) {
  shmq_segment *s = begin(4);
  shmq *victim = peer(fd, NULL);
  uint32_t generation;
  cr_assert_eq(shmq_join_segment(s, NULL, NULL), 0);
  cr_assert_eq(shmq__recover_if_dead(s, 1), 0, "oneself");
  cr_assert_eq(shmq__recover_if_dead(s, 2), 1, "nobody: clean");
  cr_assert_eq(shmq__recover_if_dead(s, 0), -EINVAL);
  cr_assert_eq(shmq__recover_if_dead(s, 5), -EINVAL);
  cr_assert_eq(shmq_join_segment(victim->segment, NULL, NULL), 0);
  cr_assert_eq(shmq_participant(victim->segment, &generation), 2);
  cr_assert_eq(shmq__recover_if_dead(s, 2), 0);
  die(victim);
  cr_assert_eq(info_of(2).alive, 0);
  cr_assert_eq(shmq_participant_alive(s, 2, generation), 0);
  cr_assert_eq(shmq__recover_if_dead(s, 2), 1);
  cr_assert_eq(info_of(2).index, 0);
  shmq *next = peer(fd, NULL);
  cr_assert_eq(shmq_join_segment(next->segment, NULL, NULL), 0);
  cr_assert_eq(shmq_participant(next->segment, NULL), 2, "a recoverer lets go of the slot");
  shmq_close(next);
  shmq_detach(s);
  close(fd);
}

/* While a recoverer is at work it holds the dead one's lock: that keeps nobody alive, and its role is not
 * refused for good. */
Test(core_participant, a_lock_held_by_a_recoverer_is_no_sign_of_life) {
  shmq_queue_options o = {.capacity = 4, .message_bytes = 8, .flags = SHMQ_SINGLE_CONSUMER};
  shmq *q = fresh_queue(&o, &fd), *victim = peer(fd, NULL), *recoverer = peer(fd, NULL);
  uint32_t generation;
  MUST(put_number(q, 1));
  MUST(get_number(victim));
  int index = shmq_participant(victim->segment, &generation);
  die(victim);
  cr_assert_eq(shmq__lock_try(recoverer->segment->lock_fd, (uint32_t)index), 0);
  cr_assert_eq(get_number(q), -EBUSY, "it might be the owner");
  slot_of(q->segment, (uint32_t)index)->state = SLOT_RECOVERING;
  cr_assert_eq(shmq_participant_alive(q->segment, index, generation), 0);
  cr_assert_eq(get_number(q), -EBUSY, "after having waited for it");
  close(recoverer->segment->lock_fd); /* the recoverer dies as well */
  recoverer->segment->lock_fd = -1;
  cr_assert_eq(get_number(q), -EAGAIN);
  shmq_close(recoverer);
  shmq_close(q);
  close(fd);
}

Test(core_participant, a_full_table_says_what_is_missing_and_leaves_nothing) {
  shmq_segment *a = begin(2), *b = attached(fd), *c = attached(fd);
  uint64_t needed = 9, available = 9;
  cr_assert_eq(shmq_join_segment(a, NULL, NULL), 0);
  cr_assert_eq(shmq_join_segment(b, NULL, NULL), 0);
  cr_assert_eq(shmq_join_segment(c, NULL, NULL), -ENOSPC);
  cr_assert_eq(shmq_nospace_detail(&needed, &available), SHMQ_NOSPACE_PARTICIPANTS);
  cr_assert_eq(needed, 1);
  cr_assert_eq(available, 0);
  shmq *q = opened(c, NULL);
  cr_assert_eq(put_number(q, 1), -ENOSPC);
  cr_assert_eq(get_number(q), -ENOSPC);
  shmq_detach(b);
  cr_assert_eq(put_number(q, 1), 0, "there is room now");
  shmq_close(q);
  shmq_detach(c);
  shmq_detach(a);
  close(fd);
}

/* Every slot's owner is dead: a newcomer recovers one and takes its place. */
Test(core_participant, a_full_table_of_the_dead_is_not_full) {
  shmq_segment *s = begin(2);
  shmq *victims[2] = {peer(fd, NULL), peer(fd, NULL)};
  shmq_message m;
  cr_assert_eq(put_number(victims[0], 5), 0);
  cr_assert_eq(shmq_lease(victims[0], &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_join_segment(victims[1]->segment, NULL, NULL), 0);
  cr_assert_eq(shmq_join_segment(s, NULL, NULL), -ENOSPC);
  die(victims[0]);
  die(victims[1]);
  shmq *q = opened(s, NULL);
  cr_assert_eq(get_number(q), 5, "what the dead held was settled when its slot was taken");
  shmq_close(q);
  shmq_detach(s);
  close(fd);
}

Test(core_participant, the_greatest_table_fills) {
  shmq_queue_options queue = {.capacity = 2, .message_bytes = 8};
  shmq_options o = {.participants = SHMQ_PARTICIPANTS_MAX, .queues = &queue, .queue_count = 1};
  fd = fresh_fd(&o);
  /* Descriptors are scarce: one description holds all the other locks. */
  shmq_segment *holder = attached(fd), *s = attached(fd);
  for (uint32_t i = 1; i < SHMQ_PARTICIPANTS_MAX; i++)
    cr_assert_eq(fcntl(holder->lock_fd, F_OFD_SETLK,
                       &(struct flock){.l_type = F_WRLCK, .l_start = i, .l_len = 1}), 0);
  cr_assert_eq(shmq_join_segment(s, NULL, NULL), 0);
  cr_assert_eq(shmq_participant(s, NULL), SHMQ_PARTICIPANTS_MAX);
  shmq *q = opened(s, NULL);
  shmq_message m;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0, "the owner's ten bits suffice");
  cr_assert_eq(shmq_ack(q, &m), 0);
  shmq_close(q);
  shmq_detach(s);
  shmq_detach(holder);
  close(fd);
}

Test(core_participant, leaving_gives_everything_back) {
  shmq_segment *watcher = begin(4);
  shmq *q = opened(watcher, NULL), *leaver = peer(fd, NULL);
  shmq_message lease, reservation;
  cr_assert_eq(put_number(leaver, 1), 0);
  cr_assert_eq(shmq_lease(leaver, &lease, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(leaver, 8, &reservation, SHMQ_NOWAIT), 0);
  shmq_close(leaver);
  cr_assert_eq(audit(fd).dead_participants, 0);
  cr_assert_eq(get_number(q), 1);
  cr_assert_eq(get_number(q), -EAGAIN);
  cr_assert_eq(queue_info(fd, 0).reserved, 0);
  shmq_close(q);
  shmq_detach(watcher);
  close(fd);
}

/* What was held before leaving is not the caller's after joining again. */
Test(core_participant, a_message_of_an_earlier_join_is_stale) {
  shmq_segment *s = begin(4);
  shmq *q = opened(s, NULL);
  shmq_message lease, reservation;
  cr_assert_eq(put_number(q, 1), 0);
  cr_assert_eq(shmq_lease(q, &lease, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(q, 8, &reservation, SHMQ_NOWAIT), 0);
  shmq__participant_leave(s);
  cr_assert_eq(shmq_ack(q, &lease), -ESTALE);
  cr_assert_eq(get_number(q), 1);
  cr_assert_eq(shmq_ack(q, &lease), -ESTALE);
  cr_assert_eq(shmq_commit(q, &reservation), -ESTALE);
  shmq_close(q);
  shmq_detach(s);
  close(fd);
}
