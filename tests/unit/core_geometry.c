/* SPDX-License-Identifier: Apache-2.0
 *
 * Where everything is, and what an opener refuses: every field of the immutable part, changed alone.
 */
#include <criterion/criterion.h>
#include <sys/mman.h>

#include "support/fresh.h"

static const shmq_queue_options three[] = {
    {.name = "plain", .capacity = 8, .message_bytes = 100},
    {.name = "bands", .capacity = 4, .message_bytes = 8, .priorities = 3, .flags = SHMQ_TIMED},
    {.name = "single", .capacity = 16, .message_bytes = 56,
     .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER}};
static const shmq_options with_three = {
    .queues = three, .queue_count = 3, .participants = 5, .blocks = 3, .block_bytes = 1000};

/* Nothing overlaps, everything is aligned, and all of it lies inside. */
Test(core_geometry, parts_do_not_overlap) {
  int fd = fresh_fd(&with_three);
  shmq_segment *s = attached(fd);
  const shmq__geometry *g = &s->geometry;
  cr_assert_eq(g->rings, 5);
  cr_assert_eq(g->block_bytes, 1024, "rounded up to a line");
  cr_assert_eq((int64_t)g->bytes, shmq_segment_bytes(&with_three));
  cr_assert_leq(g->queues_at + 3 * sizeof(struct shmq__queue), g->rings_at);
  cr_assert_leq(g->rings_at + 5 * sizeof(struct shmq__ring), g->slots_at);
  cr_assert_leq(g->slots_at + 5 * sizeof(struct shmq__slot), g->cells_at);
  unsigned char *end = s->memory + g->cells_at;
  for (uint32_t i = 0; i < g->rings; i++) {
    const shmq__ring_view *r = &s->rings[i];
    bool single = r->queue == 2;
    cr_assert_eq(single, r->producer_records == NULL);
    cr_assert_eq(single, r->consumer_records == NULL);
    cr_assert_eq((uintptr_t)r->cells % 64, 0);
    cr_assert_eq(r->stride % 16, 0);
    cr_assert_geq((void *)cell_payload(r, 0), (void *)(r->cells + (r->tracked ? 48 : 8)));
    if (!single) {
      cr_assert_eq((void *)r->producer_records, (void *)end);
      cr_assert_geq((void *)r->consumer_records, (void *)(end + r->capacity * 8));
      end = (unsigned char *)r->consumer_records + r->capacity * 8;
    }
    cr_assert_geq((void *)r->cells, (void *)end);
    bool apart = r->payload_offset >= (uint64_t)r->capacity * r->stride;
    end = r->cells + (uint64_t)r->capacity * r->stride * (apart ? 2 : 1);
  }
  cr_assert_leq((void *)end, (void *)s->block_words);
  cr_assert_eq((uintptr_t)s->blocks % 4096, 0);
  cr_assert_leq((void *)block_word(s, 3), (void *)s->blocks);
  cr_assert_leq(g->blocks_at + 3 * 1024, g->bytes);
  shmq_detach(s);
  close(fd);
}

/* A cell of at most a line never straddles one. */
Test(core_geometry, small_cells_do_not_straddle_lines) {
  for (uint32_t bytes = 1; bytes <= 56; bytes++) {
    shmq_queue_options o = {.capacity = 8, .message_bytes = bytes};
    int fd;
    shmq *q = fresh_queue(&o, &fd);
    cr_assert_eq(64 % q->rings->stride, 0, "%u bytes: stride %u", bytes, q->rings->stride);
    cr_assert_geq(q->rings->stride, 8 + bytes);
    shmq_close(q);
    close(fd);
  }
}

static void check_long_cells(const shmq_queue_options *o, uint32_t head) {
  uint32_t bytes = o->message_bytes;
  int fd;
  shmq *q = fresh_queue(o, &fd);
  const shmq__ring_view *r = q->rings;
  cr_assert_eq((uintptr_t)r->cells % 64, 0);
  cr_assert_eq(r->stride % 64, 0);
  bool apart = head == 8 && bytes <= 64 && o->capacity >= 512;
  cr_assert_eq((uintptr_t)cell_payload(r, 0) % 64, apart ? 0 : head, "%u", bytes);
  cr_assert_eq((uintptr_t)cell_beyond(r, 0) % 64, 0);
  for (uint64_t i = 0; i < 4; i++) {
    unsigned char *first = cell_payload(r, i), *end = first + bytes;
    for (uint64_t k = 0; k <= r->mask; k++) {
      unsigned char *word = (unsigned char *)cell_word(r, k);
      cr_assert(end <= word || word + head <= first, "%u bytes", bytes);
      cr_assert(k == i || end <= cell_payload(r, k) || cell_payload(r, k) + bytes <= first);
    }
  }
  shmq_close(q);
  close(fd);
}

/* No two cells share a line, and no payload touches another or a word. */
Test(core_geometry, long_cells_have_their_lines_to_themselves) {
  for (uint32_t bytes = 17; bytes <= 1100; bytes++) {
    shmq_queue_options o = {.capacity = 4, .message_bytes = bytes};
    if (bytes > 56) check_long_cells(&o, 8);
    if (bytes > 56 && bytes < 70) {
      o.capacity = 512;
      check_long_cells(&o, 8);
      o.capacity = 4;
    }
    o.flags = SHMQ_TIMED;
    check_long_cells(&o, 8 + sizeof(struct shmq__stamp));
  }
}

Test(core_geometry, a_tracked_cell_has_room_for_its_stamp) {
  shmq_queue_options o = {.capacity = 2, .message_bytes = 8, .flags = SHMQ_TIMED};
  int fd;
  shmq *q = fresh_queue(&o, &fd);
  cr_assert(q->rings->tracked);
  cr_assert_eq(q->rings->payload_offset, 8 + sizeof(struct shmq__stamp));
  shmq_close(q);
  close(fd);
}

/* The turn must tell laps apart also across the wrap of positions, at the greatest capacity too. */
Test(core_geometry, turns_are_continuous_across_the_wrap) {
  for (uint32_t shift = 1; shift <= 26; shift++) {
    shmq__ring_view r = {.shift = shift, .mask = (UINT64_C(1) << shift) - 1};
    cr_assert_eq(next_turn(&r, POSITION_MASK), 0);
    cr_assert_eq(turn_of(&r, POSITION_MASK), TURN_MASK);
    cr_assert_eq(next_turn(&r, r.mask), 1);
  }
}

Test(core_geometry, overflow_is_refused) {
  shmq_queue_options huge = {.capacity = SHMQ_CAPACITY_MAX, .message_bytes = SHMQ_MESSAGE_MAX,
                             .priorities = 8};
  shmq_options o = {.queues = &huge, .queue_count = 1};
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
  o = (shmq_options){.blocks = 1u << 30, .block_bytes = 1u << 31};
  cr_assert_eq(shmq_segment_bytes(&o), -EINVAL);
}

/* ---- what an opener refuses ---- */

static void *image_of(int fd, size_t *bytes) {
  *bytes = (size_t)lseek(fd, 0, SEEK_END);
  void *memory = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  cr_assert_neq(memory, MAP_FAILED);
  return memory;
}

static int try_attach(int fd) {
  shmq_segment *s;
  int rc = shmq_attach_fd(&s, fd);
  if (rc == 0) shmq_detach(s);
  return rc;
}

Test(core_geometry, every_changed_byte_of_the_immutable_part_is_noticed) {
  int fd = fresh_fd(&with_three);
  size_t bytes;
  unsigned char *image = image_of(fd, &bytes);
  cr_assert_eq(try_attach(fd), 0);
  for (size_t i = 0; i < offsetof(struct shmq__header, checksum) + 8; i++) {
    image[i] ^= 0x55;
    int rc = try_attach(fd);
    bool version = i >= offsetof(struct shmq__header, layout_version) &&
                   i < offsetof(struct shmq__header, bytes);
    cr_assert_eq(rc, version ? -EPROTO : -EBADMSG, "header byte %zu: %d", i, rc);
    image[i] ^= 0x55;
  }
  unsigned char *queues = image + SHMQ__PAGE;
  for (size_t i = 0; i < 3 * sizeof(struct shmq__queue); i++) {
    if (i % sizeof(struct shmq__queue) >= sizeof(struct shmq__queue_config)) continue;
    queues[i] ^= 0x55;
    cr_assert_eq(try_attach(fd), -EBADMSG, "queue byte %zu", i);
    queues[i] ^= 0x55;
  }
  cr_assert_eq(try_attach(fd), 0);
  munmap(image, bytes);
  close(fd);
}

/* A forger who mends the checksum still gets nothing out of range past the checks. */
Test(core_geometry, ranges_are_checked_behind_a_right_checksum) {
  struct { size_t offset; uint64_t value; size_t size; } bad[] = {
#define H(field, v) {offsetof(struct shmq__header, field), v, sizeof(((struct shmq__header *)0)->field)}
#define Q(field, v)                                                           \
  {SHMQ__PAGE + offsetof(struct shmq__queue_config, field), v,                \
   sizeof(((struct shmq__queue_config *)0)->field)}
      H(participants, 0), H(participants, 1024), H(participants, 6), H(queues, 0), H(queues, 1025),
      H(queues, 4), H(rings, 0), H(rings, 2), H(rings, 4), H(rings, 6), H(rings, UINT32_MAX),
      H(blocks, 9), H(blocks, UINT32_MAX), H(block_bytes, 1000), H(block_bytes, UINT64_MAX),
      H(block_bytes, 0), H(bytes, 0), H(bytes, UINT64_MAX), Q(capacity, 0), Q(capacity, 1),
      Q(capacity, 9), Q(capacity, 1u << 27), Q(capacity, 16), Q(message_bytes, 0),
      Q(message_bytes, 1u << 22), Q(message_bytes, 5000), Q(flags, 0x200), Q(priorities, 0),
      Q(priorities, 9), Q(priorities, 2), Q(max_attempts, 63), Q(dead_letter, 3),
      Q(dead_letter, 0xfffffffe), Q(full_policy, 4), Q(first_ring, 1), Q(first_ring, UINT32_MAX),
      Q(ttl_ns, UINT64_MAX), Q(name[0], 0)};
  int fd = fresh_fd(&with_three);
  size_t bytes;
  unsigned char *image = image_of(fd, &bytes);
  struct shmq__header *h = (void *)image;
  uint64_t checksum = h->checksum;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    unsigned char saved[8];
    memcpy(saved, image + bad[i].offset, bad[i].size);
    memcpy(image + bad[i].offset, &bad[i].value, bad[i].size);
    struct shmq__queue_config configs[3];
    for (int k = 0; k < 3; k++)
      configs[k] = ((struct shmq__queue *)(void *)(image + SHMQ__PAGE))[k].config;
    uint32_t queues = h->queues;
    if (queues > 3) h->queues = 3; /* only for summing what is there */
    h->checksum = shmq__checksum(h, configs);
    h->queues = queues;
    cr_assert_eq(try_attach(fd), -EBADMSG, "forgery %zu", i);
    memcpy(image + bad[i].offset, saved, bad[i].size);
  }
  h->checksum = checksum;
  cr_assert_eq(try_attach(fd), 0);
  munmap(image, bytes);
  close(fd);
}

static int foreign(size_t bytes, unsigned char fill) {
  int fd = memfd_create("foreign", MFD_CLOEXEC);
  unsigned char page[4096];
  memset(page, fill, sizeof page);
  for (size_t at = 0; at < bytes; at += sizeof page)
    cr_assert_gt(write(fd, page, bytes - at < sizeof page ? bytes - at : sizeof page), 0);
  return fd;
}

Test(core_geometry, what_never_was_a_segment) {
  const size_t sizes[] = {0, 1, 7, 8, 4095, 4096, 65536};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (int fill = 0; fill < 2; fill++) {
      int fd = foreign(sizes[i], fill ? 0xa5 : 0);
      cr_assert_eq(try_attach(fd), sizes[i] == 0 ? -ENOENT : -EBADMSG, "%zu of %d", sizes[i], fill);
      close(fd);
    }
  }
}

/* Cut at each length: a segment that lost its tail is damaged, however little is missing. */
Test(core_geometry, truncated_segments_are_damaged) {
  int fd = fresh_fd(&with_three);
  size_t bytes;
  unsigned char *image = image_of(fd, &bytes);
  const size_t cuts[] = {8, 100, 255, 4095, 4096, 4100, 4864, 8192, bytes - 4096, bytes - 1, bytes + 1};
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    int cut = memfd_create("cut", MFD_CLOEXEC);
    cr_assert_eq(write(cut, image, cuts[i] < bytes ? cuts[i] : bytes),
                 (ssize_t)(cuts[i] < bytes ? cuts[i] : bytes));
    if (cuts[i] > bytes) cr_assert_eq(ftruncate(cut, (off_t)cuts[i]), 0);
    cr_assert_eq(try_attach(cut), -EBADMSG, "cut at %zu of %zu", cuts[i], bytes);
    close(cut);
  }
  munmap(image, bytes);
  close(fd);
}
