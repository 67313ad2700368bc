/* SPDX-License-Identifier: Apache-2.0
 *
 * Several messages as one step: commit_all and forward, their arguments and what they leave behind.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

enum { BLOCKS = 4, BLOCK_BYTES = 256 };
static int fd;
static shmq *in, *out, *small;

static void begin(void) {
  shmq_queue_options queues[] = {{.name = "in", .capacity = 32, .message_bytes = 16},
                                 {.name = "out", .capacity = 32, .message_bytes = 16},
                                 {.name = "small", .capacity = 2, .message_bytes = 8}};
  shmq_options o = {.queues = queues, .queue_count = 3, .participants = 4, .blocks = BLOCKS,
                    .block_bytes = BLOCK_BYTES};
  fd = fresh_fd(&o);
  in = peer(fd, "in");
  out = opened(in->segment, "out");
  small = opened(in->segment, "small");
}
static void end(void) {
  shmq_close(small);
  shmq_close(out);
  shmq_close(in);
  close(fd);
}

Test(queue_step, sixteen_at_once) {
  begin();
  shmq_message m[SHMQ_COMMIT_MAX];
  shmq_step steps[SHMQ_COMMIT_MAX + 1];
  for (int i = 0; i < SHMQ_COMMIT_MAX; i++) {
    shmq *q = i % 2 ? out : in;
    if (i % 2 == 0) cr_assert_eq(put_number(in, (uint64_t)i), 0);
    cr_assert_eq(i % 2 ? shmq_reserve(out, 8, &m[i], SHMQ_NOWAIT) : shmq_lease(in, &m[i], SHMQ_NOWAIT), 0);
    if (i % 2) memcpy(m[i].data, &(uint64_t){(uint64_t)i}, 8);
    steps[i] = (shmq_step){q, &m[i]};
  }
  cr_assert_eq(shmq_commit_all(steps, SHMQ_COMMIT_MAX), 0);
  cr_assert_eq(shmq_join(in, SHMQ_NOWAIT), 0);
  for (int64_t i = 1; i < SHMQ_COMMIT_MAX; i += 2) cr_assert_eq(get_number(out), i);
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.gets, SHMQ_COMMIT_MAX / 2);
  cr_assert_eq(queue_info(fd, 1).puts, SHMQ_COMMIT_MAX / 2);
  end();
}

Test(queue_step, arguments_are_checked_before_anything_happens) {
  begin();
  shmq_message lease, reservation, none = {0};
  shmq *stranger = peer(fd, "out");
  shmq_message foreign;
  cr_assert_eq(put_number(in, 1), 0);
  cr_assert_eq(shmq_lease(in, &lease, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(out, 8, &reservation, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(stranger, 8, &foreign, SHMQ_NOWAIT), 0);
  shmq_step steps[17] = {{in, &lease}, {out, &reservation}};
  cr_assert_eq(shmq_commit_all(NULL, 1), -EINVAL);
  cr_assert_eq(shmq_commit_all(steps, 0), -EINVAL);
  cr_assert_eq(shmq_commit_all(steps, SHMQ_COMMIT_MAX + 1), -EINVAL);
  cr_assert_eq(shmq_commit_all(steps, 3), -EINVAL, "no queue");
  steps[2] = (shmq_step){out, &none};
  cr_assert_eq(shmq_commit_all(steps, 3), -EINVAL, "neither leased nor reserved");
  steps[2] = (shmq_step){in, &lease};
  cr_assert_eq(shmq_commit_all(steps, 3), -EINVAL, "the same twice");
  steps[2] = (shmq_step){stranger, &foreign};
  cr_assert_eq(shmq_commit_all(steps, 3), -EINVAL, "another attachment's");
  steps[0] = (shmq_step){out, &lease};
  cr_assert_eq(shmq_commit_all(steps, 2), -EINVAL, "another queue's");
  steps[0] = (shmq_step){in, &lease};
  reservation.size = 300;
  cr_assert_eq(shmq_commit_all(steps, 2), -EMSGSIZE);
  reservation.size = 8;
  cr_assert_eq(get_number(out), -EAGAIN, "nothing was published by all this");
  cr_assert_eq(shmq_commit_all(steps, 2), 0);
  cr_assert_eq(get_number(out), 0);
  cr_assert_eq(shmq_commit_all(steps, 2), -EINVAL, "cleared");
  shmq_close(stranger);
  end();
}

/* A copy of a message that was settled meanwhile. */
Test(queue_step, a_settled_message_is_stale) {
  begin();
  shmq_message lease, copy;
  cr_assert_eq(put_number(in, 1), 0);
  cr_assert_eq(shmq_lease(in, &lease, SHMQ_NOWAIT), 0);
  copy = lease;
  cr_assert_eq(shmq_ack(in, &lease), 0);
  cr_assert_eq(shmq_commit_all(&(shmq_step){in, &copy}, 1), -ESTALE);
  cr_assert_eq(shmq_ack(in, &copy), -ESTALE);
  end();
}

Test(queue_step, forward_moves_a_small_message) {
  begin();
  shmq_message m;
  for (uint64_t i = 0; i < 70; i++) {
    cr_assert_eq(put_number(in, i), 0);
    cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_forward(in, &m, out, SHMQ_NOWAIT), 0);
    cr_assert_eq(m.data, NULL);
    cr_assert_eq(shmq_join(in, SHMQ_NOWAIT), 0);
    cr_assert_eq(get_number(out), (int64_t)i);
  }
  end();
}

Test(queue_step, forward_moves_a_block_without_copying_it) {
  begin();
  shmq_message m;
  unsigned char data[200];
  memset(data, 0x3d, sizeof data);
  cr_assert_eq(shmq_put(in, data, sizeof data, SHMQ_NOWAIT), 0);
  const void *where = NULL;
  shmq *path[] = {in, out, small, in};
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(shmq_lease(path[i], &m, SHMQ_NOWAIT), 0);
    if (where) cr_assert_eq(m.data, where);
    where = m.data;
    cr_assert_eq(shmq_forward(path[i], &m, path[i + 1], SHMQ_NOWAIT), 0);
    cr_assert_eq(blocks_free(fd), BLOCKS - 1);
    cr_assert_eq(audit(fd).leaked_blocks, 0);
  }
  cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
  cr_assert_arr_eq(m.data, data, sizeof data);
  cr_assert_eq(shmq_ack(in, &m), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end();
}

/* A cell's message that does not fit the next queue's cell goes into a block there. */
Test(queue_step, forward_into_smaller_cells_takes_a_block) {
  begin();
  shmq_message m;
  cr_assert_eq(shmq_put(in, "0123456789abcdef", 16, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_forward(in, &m, small, SHMQ_NOWAIT), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS - 1);
  cr_assert_eq(shmq_lease(small, &m, SHMQ_NOWAIT), 0);
  cr_assert_arr_eq(m.data, "0123456789abcdef", 16);
  cr_assert_eq(shmq_ack(small, &m), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end();
}

Test(queue_step, a_forward_that_fails_keeps_the_lease) {
  begin();
  shmq_message m;
  shmq *stranger = peer(fd, "out");
  cr_assert_eq(put_number(small, 1), 0);
  cr_assert_eq(put_number(small, 2), 0);
  cr_assert_eq(put_number(in, 3), 0);
  cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_forward(in, &m, small, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(shmq_forward(in, &m, small, shmq_after_ns(MILLISECOND)), -ETIMEDOUT);
  cr_assert_eq(shmq_forward(in, &m, stranger, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_forward(in, &m, NULL, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_forward(out, &m, small, SHMQ_NOWAIT), -EINVAL);
  shmq_shutdown(out);
  cr_assert_eq(shmq_forward(in, &m, out, SHMQ_FOREVER), -EPIPE);
  cr_assert_eq(number_in(&m), 3);
  cr_assert_eq(shmq_ack(in, &m), 0);
  shmq_close(stranger);
  end();
}

/* Killed in the middle of a stage: whole or not at all, seen through the public interface only. */
Test(queue_step, a_stage_that_dies_before_committing_did_nothing) {
  begin();
  shmq *victim = peer(fd, "in");
  shmq *victims_out = opened(victim->segment, "out");
  shmq_message lease, reservation;
  cr_assert_eq(put_number(in, 8), 0);
  cr_assert_eq(shmq_lease(victim, &lease, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(victims_out, 8, &reservation, SHMQ_NOWAIT), 0);
  free(victims_out);
  die(victim);
  cr_assert_eq(shmq_recover(in->segment), 1);
  cr_assert_eq(get_number(out), -EAGAIN);
  cr_assert_eq(get_number(in), 8);
  cr_assert_eq(get_number(in), -EAGAIN);
  end();
}

/* Messages in cells and in blocks go together, and not before. */
Test(queue_step, several_are_forwarded_as_one_step) {
  enum { N = SHMQ_COMMIT_MAX / 2 };
  begin();
  shmq_message m[N], twin[N];
  shmq_step steps[2 * N];
  char long_one[200] = "long";
  for (int i = 0; i < N; i++) {
    long_one[5] = (char)i;
    cr_assert_eq(i % 2 ? put_number(in, (uint64_t)i) : shmq_put(in, long_one, sizeof long_one, SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_lease(in, &m[i], SHMQ_NOWAIT), 0);
    cr_assert_eq(shmq_reserve_forward(in, &m[i], out, &twin[i], SHMQ_NOWAIT), 0);
    cr_assert_eq(twin[i].size, m[i].size);
    if (i % 2 == 0) cr_assert_eq(twin[i].data, m[i].data, "the same block");
    steps[2 * i] = (shmq_step){out, &twin[i]};
    steps[2 * i + 1] = (shmq_step){in, &m[i]};
  }
  cr_assert_eq(get_number(out), -EAGAIN);
  cr_assert_eq(blocks_free(fd), BLOCKS - N / 2);
  cr_assert_eq(shmq_commit_all(steps, 2 * N), 0);
  cr_assert_eq(shmq_join(in, SHMQ_NOWAIT), 0);
  cr_assert_eq(audit(fd).leaked_blocks, 0);
  for (int i = 0; i < N; i++) {
    cr_assert_eq(shmq_lease(out, &m[i], SHMQ_NOWAIT), 0);
    if (i % 2)
      cr_assert_eq(number_in(&m[i]), i);
    else
      cr_assert_eq(((char *)m[i].data)[5], i);
    cr_assert_eq(shmq_ack(out, &m[i]), 0);
  }
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end();
}

Test(queue_step, an_aborted_twin_leaves_the_message) {
  begin();
  shmq_message m, twin;
  char data[200] = "long";
  cr_assert_eq(shmq_put(in, data, sizeof data, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve_forward(in, &m, out, &twin, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_abort(out, &twin), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS - 1);
  cr_assert_eq(get_number(out), -EAGAIN);
  cr_assert_str_eq(m.data, "long");
  cr_assert_eq(shmq_forward(in, &m, out, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(out, &m, SHMQ_NOWAIT), 0);
  cr_assert_str_eq(m.data, "long");
  cr_assert_eq(shmq_ack(out, &m), 0);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end();
}

Test(queue_step, a_message_has_one_twin) {
  begin();
  shmq_message m, twin[2];
  char data[200] = "long";
  cr_assert_eq(shmq_put(in, data, sizeof data, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve_forward(in, &m, out, &twin[0], SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve_forward(in, &m, small, &twin[1], SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_commit_all((shmq_step[]){{out, &twin[0]}, {small, &twin[1]}, {in, &m}}, 3), -EINVAL);
  cr_assert_eq(shmq_abort(small, &twin[1]), 0);
  cr_assert_eq(shmq_commit_all((shmq_step[]){{in, &m}, {out, &twin[0]}}, 2), 0);
  cr_assert_eq(shmq_get(out, data, sizeof data, SHMQ_NOWAIT), (int)sizeof data);
  cr_assert_eq(blocks_free(fd), BLOCKS);
  end();
}

/* What is reserved in another queue is not its. */
Test(queue_step, a_handle_that_closes_takes_no_block_of_another_queue) {
  begin();
  shmq_message m[2];
  cr_assert_eq(shmq_reserve(out, 200, &m[0], SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve(small, 200, &m[1], SHMQ_NOWAIT), 0);
  shmq_close(small);
  cr_assert_eq(blocks_free(fd), BLOCKS - 1, "its own went back");
  memset(m[0].data, 1, 200);
  cr_assert_eq(shmq_commit(out, &m[0]), 0);
  cr_assert_eq(audit(fd).damaged, 0);
  cr_assert_eq(blocks_free(fd), BLOCKS - 1);
  small = opened(in->segment, "small");
  end();
}

Test(queue_step, a_twin_needs_a_lease_and_room) {
  begin();
  shmq_message m, none = {0}, twin;
  shmq *stranger = peer(fd, "out");
  cr_assert_eq(put_number(small, 1), 0);
  cr_assert_eq(put_number(small, 2), 0);
  cr_assert_eq(put_number(in, 3), 0);
  cr_assert_eq(shmq_lease(in, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_reserve_forward(in, &m, small, &twin, SHMQ_NOWAIT), -EAGAIN);
  cr_assert_eq(shmq_reserve_forward(in, &m, small, &twin, shmq_after_ns(MILLISECOND)), -ETIMEDOUT);
  cr_assert_eq(shmq_reserve_forward(in, &m, stranger, &twin, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_reserve_forward(in, &m, NULL, &twin, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_reserve_forward(in, &m, out, NULL, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_reserve_forward(in, &none, out, &twin, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_ack(in, &m), 0);
  shmq_close(stranger);
  end();
}
