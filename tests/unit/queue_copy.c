/* SPDX-License-Identifier: Apache-2.0
 *
 * put and get, one by one and in batches: sizes, order, buffers that are too small, identities.
 */
#include <criterion/criterion.h>

#include "support/fresh.h"

static int fd;

static shmq *begin(uint32_t capacity, uint32_t bytes, uint32_t flags, uint32_t blocks) {
  shmq_queue_options queue = {.capacity = capacity, .message_bytes = bytes, .flags = flags};
  shmq_options o = {.queues = &queue, .queue_count = 1, .participants = 4, .blocks = blocks,
                    .block_bytes = 4096};
  fd = fresh_fd(&o);
  return peer(fd, NULL);
}
static void end(shmq *q) {
  shmq_close(q);
  close(fd);
}

static void pattern(unsigned char *data, size_t n, unsigned seed) {
  for (size_t i = 0; i < n; i++) data[i] = (unsigned char)(seed * 31 + i * 7);
}

/* Every size around each way of copying, in cells and in blocks; guards show that nothing else moves. */
Test(queue_copy, every_size_arrives_whole) {
  const uint32_t flags[] = {0, SHMQ_TIMED, SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};
  for (unsigned f = 0; f < 3; f++) {
    shmq *q = begin(4, 100, flags[f], 2);
    unsigned char in[4100], out[4100];
    for (size_t n = 0; n <= 4096; n += n < 140 ? 1 : 97) {
      pattern(in, n, (unsigned)n);
      memset(out, 0xee, sizeof out);
      cr_assert_eq(shmq_put(q, in, n, SHMQ_NOWAIT), 0, "size %zu", n);
      cr_assert_eq(shmq_get(q, out, 4096, SHMQ_NOWAIT), (ssize_t)n, "size %zu", n);
      cr_assert_arr_eq(in, out, n);
      for (size_t i = n; i < sizeof out; i++) cr_assert_eq(out[i], 0xee, "byte %zu behind", i);
    }
    cr_assert_eq(shmq_put(q, in, 4097, SHMQ_NOWAIT), -EMSGSIZE);
    cr_assert_eq(shmq_message_limit(q), 4096);
    cr_assert_eq(shmq_message_bytes(q), 100);
    end(q);
  }
}

Test(queue_copy, without_blocks_a_cell_is_the_limit) {
  shmq *q = begin(4, 10, 0, 0);
  cr_assert_eq(shmq_put(q, "0123456789", 10, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_put(q, "0123456789a", 11, SHMQ_NOWAIT), -EMSGSIZE);
  cr_assert_eq(shmq_message_limit(q), 10);
  end(q);
}

Test(queue_copy, first_in_first_out_until_full) {
  shmq *q = begin(5, 8, 0, 0);
  cr_assert_eq(shmq_capacity(q), 8, "rounded up");
  for (int lap = 0; lap < 3; lap++) {
    for (uint64_t i = 0; i < 8; i++) cr_assert_eq(put_number(q, i), 0);
    cr_assert_eq(put_number(q, 8), -EAGAIN);
    cr_assert_eq(shmq_depth(q), 8);
    for (uint64_t i = 0; i < 8; i++) cr_assert_eq(get_number(q), (int64_t)i);
    cr_assert_eq(get_number(q), -EAGAIN);
    cr_assert_eq(shmq_depth(q), 0);
  }
  shmq_queue_info info = queue_info(fd, 0);
  cr_assert_eq(info.puts, 24);
  cr_assert_eq(info.gets, 24);
  end(q);
}

Test(queue_copy, a_buffer_too_small_leaves_the_message) {
  for (uint32_t blocks = 0; blocks <= 1; blocks++) {
    shmq *q = begin(4, blocks ? 16 : 200, 0, blocks * 2);
    unsigned char in[150], out[150];
    pattern(in, sizeof in, 5);
    cr_assert_eq(shmq_put(q, in, sizeof in, SHMQ_NOWAIT), 0);
    cr_assert_eq(put_number(q, 3), 0);
    for (size_t n = 0; n < sizeof out; n += 37)
      cr_assert_eq(shmq_get(q, out, n, SHMQ_NOWAIT), -EMSGSIZE);
    cr_assert_eq(shmq_get(q, NULL, 0, SHMQ_NOWAIT), -EMSGSIZE);
    cr_assert_eq(shmq_depth(q), 2);
    cr_assert_eq(shmq_get(q, out, sizeof out, SHMQ_NOWAIT), sizeof out);
    cr_assert_arr_eq(in, out, sizeof out);
    cr_assert_eq(get_number(q), 3);
    end(q);
  }
}

/* The same for a message that waits for redelivery. */
Test(queue_copy, a_returned_message_too_long_stays_too) {
  shmq *q = begin(4, 16, 0, 0);
  shmq_message m;
  unsigned char out[16];
  cr_assert_eq(shmq_put(q, "0123456789", 10, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(shmq_get(q, out, 9, SHMQ_NOWAIT), -EMSGSIZE);
  cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  cr_assert_eq(m.attempts, 2, "looking is not a delivery");
  cr_assert_eq(shmq_nack(q, &m), 0);
  cr_assert_eq(shmq_get(q, out, 16, SHMQ_NOWAIT), 10);
  end(q);
}

Test(queue_copy, arguments) {
  shmq *q = begin(2, 8, 0, 0);
  char c;
  struct iovec one = {&c, 1};
  cr_assert_eq(shmq_put(NULL, "x", 1, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_put(q, NULL, 1, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_put(q, NULL, 0, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_get(NULL, &c, 1, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_get(q, NULL, 1, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_get(q, NULL, 0, SHMQ_NOWAIT), 0);
  cr_assert_eq(shmq_put_batch(q, &one, 0, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_put_batch(q, NULL, 1, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_get_batch(q, &one, 0, SHMQ_NOWAIT), -EINVAL);
  cr_assert_eq(shmq_get_batch(NULL, &one, 1, SHMQ_NOWAIT), -EINVAL);
  end(q);
}

/* ---- deadlines ---- */

Test(queue_copy, a_deadline_ends_the_wait) {
  const unsigned flags[] = {0, SHMQ_SPIN, SHMQ_NOSPIN};
  for (unsigned f = 0; f < 3; f++) {
    shmq *q = begin(2, 8, 0, 0);
    q->flags = flags[f];
    uint64_t n;
    int64_t deadline = shmq_after_ns(15 * MILLISECOND);
    cr_assert_eq(shmq_get(q, &n, sizeof n, deadline), -ETIMEDOUT);
    cr_assert_geq(shmq_now_ns(), deadline, "not early");
    cr_assert_eq(put_number(q, 1), 0);
    cr_assert_eq(put_number(q, 2), 0);
    deadline = shmq_after_ns(15 * MILLISECOND);
    cr_assert_eq(shmq_put(q, &n, sizeof n, deadline), -ETIMEDOUT);
    cr_assert_geq(shmq_now_ns(), deadline);
    cr_assert_eq(shmq_get(q, &n, sizeof n, 1), 8, "a deadline long past, and no need to wait");
    cr_assert_eq(shmq_get(q, &n, sizeof n, SHMQ_FOREVER), 8);
    cr_assert_eq(shmq_get(q, &n, sizeof n, 1), -ETIMEDOUT);
    end(q);
  }
}

Test(queue_copy, after_ns_saturates) {
  cr_assert_eq(shmq_after_ns(0), SHMQ_NOWAIT);
  cr_assert_eq(shmq_after_ns(-5), SHMQ_NOWAIT);
  cr_assert_eq(shmq_after_ns(INT64_MAX), SHMQ_FOREVER);
  int64_t before = shmq_now_ns();
  cr_assert_geq(shmq_after_ns(1000), before + 1000);
}

/* ---- batches ---- */

Test(queue_copy, batches_of_every_length_over_every_wrap) {
  for (unsigned wrap = 0; wrap < WRAPS; wrap++) {
    shmq *q = begin(128, 8, 0, 0);
    wind_to(q->rings, wrap_position(q->rings, wrap));
    uint64_t in[100], out[100], next = 0, expected = 0;
    struct iovec from[100], to[100];
    for (int n = 1; n <= 100; n += 3) {
      for (int i = 0; i < n; i++) {
        in[i] = next++;
        from[i] = (struct iovec){&in[i], 8};
      }
      cr_assert_eq(shmq_put_batch(q, from, n, SHMQ_NOWAIT), n);
      for (int got = 0; got < n;) {
        for (int i = 0; i < 100; i++) to[i] = (struct iovec){&out[i], 8};
        int rc = shmq_get_batch(q, to, 100, SHMQ_NOWAIT);
        cr_assert_gt(rc, 0);
        cr_assert_leq(rc, SHMQ_BATCH_MAX);
        for (int i = 0; i < rc; i++) {
          cr_assert_eq(to[i].iov_len, 8);
          cr_assert_eq(out[i], expected++);
        }
        got += rc;
      }
      cr_assert_eq(shmq_get_batch(q, to, 100, SHMQ_NOWAIT), -EAGAIN);
    }
    end(q);
  }
}

/* Whether or not the taker writes the lines that it has read (ring_dirty): what it leaves in the cells is what was there, since it may
 * die before they are free. */
Test(queue_copy, a_batch_changes_nothing_in_the_cells) {
  const uint32_t bytes[] = {56, 64, 300}, capacities[] = {4, 512};
  for (unsigned i = 0; i < 12; i++) {
    uint32_t most = bytes[i % 3];
    shmq *q = begin(capacities[i / 3 % 2], most, 0, 0);
    ((shmq__ring_view *)(uintptr_t)q->rings)->return_dirty = i / 6;
    for (uint32_t n = 1; n <= most; n++) {
      unsigned char in[3][300], out[3][300];
      struct iovec from[3], to[3];
      uint64_t at = index_position(a_load(&q->rings->index->head));
      for (unsigned k = 0; k < 3; k++) {
        pattern(in[k], n, n + k);
        from[k] = (struct iovec){in[k], n};
        to[k] = (struct iovec){out[k], sizeof out[k]};
      }
      cr_assert_eq(shmq_put_batch(q, from, 3, SHMQ_NOWAIT), 3);
      cr_assert_eq(shmq_get_batch(q, to, 3, SHMQ_NOWAIT), 3);
      for (unsigned k = 0; k < 3; k++) {
        cr_assert_eq(to[k].iov_len, n);
        cr_assert_arr_eq(out[k], in[k], n);
        cr_assert_arr_eq(cell_payload(q->rings, position_add(at, k)), in[k], n, "%u of %u", n, most);
      }
    }
    end(q);
  }
}

Test(queue_copy, a_batch_puts_what_fits) {
  shmq *q = begin(8, 8, 0, 0);
  uint64_t in[12];
  struct iovec from[12];
  for (uint64_t i = 0; i < 12; i++) {
    in[i] = i;
    from[i] = (struct iovec){&in[i], 8};
  }
  cr_assert_eq(shmq_put_batch(q, from, 12, SHMQ_NOWAIT), 8);
  cr_assert_eq(shmq_put_batch(q, from, 12, SHMQ_NOWAIT), -EAGAIN);
  for (int64_t i = 0; i < 8; i++) cr_assert_eq(get_number(q), i);
  end(q);
}

/* Long ones go in blocks, one that is too long for anything ends it, and the order stays. */
Test(queue_copy, a_batch_of_mixed_sizes) {
  shmq *q = begin(16, 16, 0, 4);
  unsigned char data[8192];
  pattern(data, sizeof data, 9);
  struct iovec from[] = {{data, 3}, {data, 2000}, {data, 0}, {data, 16}, {data, 17}, {data, 5000}};
  cr_assert_eq(shmq_put_batch(q, from, 6, SHMQ_NOWAIT), 5);
  cr_assert_eq(shmq_put_batch(q, from + 5, 1, SHMQ_NOWAIT), -EMSGSIZE);
  unsigned char out[5][4096];
  struct iovec to[5];
  int got = 0;
  while (got < 5) {
    for (int i = got; i < 5; i++) to[i] = (struct iovec){out[i], 4096};
    int rc = shmq_get_batch(q, to + got, 5 - got, SHMQ_NOWAIT);
    cr_assert_gt(rc, 0);
    got += rc;
  }
  for (int i = 0; i < 5; i++) {
    cr_assert_eq(to[i].iov_len, from[i].iov_len);
    cr_assert_arr_eq(out[i], data, from[i].iov_len);
  }
  cr_assert_eq(blocks_free(fd), 4);
  end(q);
}

Test(queue_copy, a_batch_stops_before_a_buffer_that_is_too_small) {
  shmq *q = begin(8, 16, 0, 0);
  char out[3][16];
  for (int i = 0; i < 3; i++) cr_assert_eq(shmq_put(q, "0123456789", (size_t)(4 + 3 * i), SHMQ_NOWAIT), 0);
  struct iovec to[] = {{out[0], 4}, {out[1], 5}, {out[2], 16}};
  cr_assert_eq(shmq_get_batch(q, to, 3, SHMQ_NOWAIT), 1);
  cr_assert_eq(shmq_get_batch(q, to + 1, 1, SHMQ_NOWAIT), -EMSGSIZE);
  to[0].iov_len = 16;
  cr_assert_eq(shmq_get_batch(q, to, 1, SHMQ_NOWAIT), 1);
  cr_assert_eq(to[0].iov_len, 7);
  end(q);
}

/* Tombstones among the taken shift messages against the buffers they were meant for. */
Test(queue_copy, a_batch_over_tombstones_loses_nothing) {
  for (unsigned holes = 0; holes < 64; holes++) {
    shmq *q = begin(8, 16, 0, 0);
    shmq_message m[6];
    for (unsigned i = 0; i < 6; i++) cr_assert_eq(shmq_reserve(q, 6 + i, &m[i], SHMQ_NOWAIT), 0);
    for (unsigned i = 0; i < 6; i++) {
      memset(m[i].data, (int)i, m[i].size);
      cr_assert_eq(holes >> i & 1 ? shmq_abort(q, &m[i]) : shmq_commit(q, &m[i]), 0);
    }
    unsigned seen = 0;
    for (;;) {
      char out[6][16];
      struct iovec to[6];
      for (unsigned i = 0; i < 6; i++) to[i] = (struct iovec){out[i], 11 - (5 - i)};
      int rc = shmq_get_batch(q, to, 6, SHMQ_NOWAIT);
      if (rc == -EMSGSIZE) {
        for (unsigned i = 0; i < 6; i++) to[i].iov_len = 16;
        rc = shmq_get_batch(q, to, 1, SHMQ_NOWAIT);
      }
      if (rc < 0) {
        cr_assert_eq(rc, -EAGAIN);
        break;
      }
      for (int i = 0; i < rc; i++) {
        unsigned which = (unsigned char)out[i][0];
        cr_assert_eq(to[i].iov_len, 6 + which);
        cr_assert(!(seen >> which & 1), "message %u twice", which);
        seen |= 1u << which;
      }
    }
    cr_assert_eq(seen, 63 & ~holes);
    end(q);
  }
}

/* ---- identities ---- */

Test(queue_copy, an_identity_is_kept_by_redelivery_and_unique) {
  shmq *q = begin(2, 8, 0, 0);
  shmq_id ids[7], again;
  uint8_t uuid[16];
  shmq_segment_uuid(q->segment, uuid);
  for (unsigned i = 0; i < 7; i++) {
    shmq_message m;
    cr_assert_eq(put_number(q, i), 0);
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    shmq_message_id(q, &m, &ids[i]);
    cr_assert_arr_eq(ids[i].segment, uuid, 16);
    cr_assert_eq(shmq_nack(q, &m), 0);
    cr_assert_eq(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
    shmq_message_id(q, &m, &again);
    cr_assert_eq(memcmp(&ids[i], &again, sizeof again), 0);
    cr_assert_eq(shmq_ack(q, &m), 0);
    for (unsigned k = 0; k < i; k++) cr_assert_neq(memcmp(&ids[k], &ids[i], sizeof again), 0);
  }
  end(q);
}

Test(queue_copy, two_segments_have_two_names) {
  int one = fresh_fd(NULL), two = fresh_fd(NULL);
  uint8_t a[16], b[16];
  shmq_segment *s = attached(one), *t = attached(two);
  shmq_segment_uuid(s, a);
  shmq_segment_uuid(t, b);
  cr_assert_neq(memcmp(a, b, 16), 0);
  shmq_detach(s);
  shmq_detach(t);
  close(one);
  close(two);
}
