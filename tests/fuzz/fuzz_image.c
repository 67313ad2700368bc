/* SPDX-License-Identifier: Apache-2.0
 *
 * Arbitrary bytes as a segment's file. The first byte of an input says whether the immutable part is made
 * plausible (magic, version, sizes, checksum), since noise gets no further than the checksum; the last
 * bytes say which calls are made. The mutator starts from segments that are in use.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "core/segment.h"
#include "guard.h"
#include "world.h"

enum { PLAUSIBLE = 1, SIZED = 2, CALL_BYTES = 64, CALLS_MAX = 24, PATIENCE_NS = 20000 };
enum { FILE_BYTES_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);

/* ---- the file ---- */

/* Make the immutable part agree with itself, as far as the configurations can be read. With `sized`
 * also with the file, which is cut or extended. */
static void make_plausible(unsigned char *image, size_t *bytes, size_t room, bool sized) {
  struct shmq__header *h = (struct shmq__header *)(void *)image;
  struct shmq__queue_config configs[SHMQ_RINGS_MAX];
  shmq__geometry g;
  h->magic = SHMQ__MAGIC;
  h->layout_version = SHMQ__LAYOUT_VERSION;
  h->fingerprint = shmq__fingerprint();
  h->bytes = *bytes;
  if (shmq__header_check(h, *bytes, &g) < 0) return;
  const struct shmq__queue *queues = (const struct shmq__queue *)(void *)(image + SHMQ__PAGE);
  if (SHMQ__PAGE + g.queues * sizeof *queues > *bytes) return;
  for (uint32_t i = 0; i < g.queues; i++) configs[i] = queues[i].config;
  if (sized && shmq__geometry_lay_out(&g, configs) == 0 && g.bytes <= room) {
    if (g.bytes > *bytes) memset(image + *bytes, 0, g.bytes - *bytes);
    h->bytes = *bytes = g.bytes;
  }
  h->checksum = shmq__checksum(h, configs);
}

static int file_of(const unsigned char *image, size_t bytes) {
  int fd = memfd_create("image", MFD_CLOEXEC);
  check(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0 &&
            pwrite(fd, image, bytes, 0) == (ssize_t)bytes,
        "the machine has no memory for a file");
  return fd;
}

static void use(int fd, struct input *calls) {
  struct caller caller = {.patience_ns = PATIENCE_NS};
  world_view(fd);
  if (caller_open(&caller, fd) < 0) return;
  guard_poison(caller.segment);
  check_result("shmq_recover", shmq_recover(caller.segment));
  for (int i = 0; i < CALLS_MAX && !input_over(calls); i++) (void)caller_call(&caller, calls);
  caller_close(&caller);
  world_view(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static alignas(64) unsigned char image[FILE_BYTES_MAX];
  if (size < 1 + CALL_BYTES || size > sizeof image) return 0;
  size_t bytes = size - 1 - CALL_BYTES;
  memcpy(image, data + 1, bytes);
  if (data[0] & PLAUSIBLE && bytes >= sizeof(struct shmq__header))
    make_plausible(image, &bytes, sizeof image, data[0] & SIZED);
  struct input calls = input_of(data + size - CALL_BYTES, CALL_BYTES);
  int fd = file_of(image, bytes);
  use(fd, &calls);
  close(fd);
  return 0;
}

/* ---- the mutator ---- */

/* A segment that has been used: calls of two participants, one of which leaves no trace of its death but what
 * it held. */
static size_t fresh(uint8_t *data, size_t room, struct input *in) {
  int fd = world_create(input_u8(in));
  struct caller callers[2] = {{.patience_ns = 1}, {.patience_ns = 1}};
  off_t bytes = lseek(fd, 0, SEEK_END);
  size_t n = 0;
  if (caller_open(&callers[0], fd) == 0 && caller_open(&callers[1], fd) == 0) {
    for (uint32_t i = input_below(in, 24); i > 0; i--) (void)caller_call(&callers[i & 1], in);
    if (1 + (size_t)bytes + CALL_BYTES <= room) {
      data[0] = PLAUSIBLE;
      check(pread(fd, data + 1, (size_t)bytes, 0) == bytes, "a file that cannot be read");
      n = 1 + (size_t)bytes;
      for (int i = 0; i < CALL_BYTES; i++) data[n++] = input_u8(in);
    }
  }
  caller_close(&callers[0]);
  caller_close(&callers[1]);
  close(fd);
  return n;
}

/* Damage the image as a hostile peer would: through a mapping of it. */
static void damage(uint8_t *data, size_t size, struct input *in) {
  size_t bytes = size - 1 - CALL_BYTES;
  shmq_segment *segment;
  int fd = file_of(data + 1, bytes);
  if (shmq_attach_fd(&segment, fd) == 0) {
    for (uint32_t i = 1 + input_below(in, 4); i > 0; i--) world_scribble(segment, in);
    shmq_detach(segment);
    check(pread(fd, data + 1, bytes, 0) == (ssize_t)bytes, "a file that cannot be read");
  }
  close(fd);
}

/* One of the numbers that say where everything is. */
static void damage_immutable(uint8_t *data, size_t size, struct input *in) {
  bool config = input_u8(in) & 1 && size > 1 + SHMQ__PAGE + sizeof(struct shmq__queue) + CALL_BYTES;
  size_t from = config ? SHMQ__PAGE + offsetof(struct shmq__queue_config, capacity)
                       : offsetof(struct shmq__header, participants);
  size_t to = config ? SHMQ__PAGE + offsetof(struct shmq__queue_config, reserved)
                     : offsetof(struct shmq__header, checksum);
  uint8_t *at = data + 1 + from + 4 * input_below(in, (uint32_t)((to - from) / 4));
  uint32_t value;
  memcpy(&value, at, sizeof value);
  switch (input_below(in, 5)) {
    case 0: value++; break;
    case 1: value--; break;
    case 2: value <<= 1; break;
    case 3: value ^= UINT32_C(1) << (input_u8(in) & 31); break;
    default: value = input_u32(in); break;
  }
  memcpy(at, &value, sizeof value);
  data[0] = PLAUSIBLE | SIZED;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed) {
  struct input in = input_endless(seed);
  if (size < 1 + SHMQ__PAGE + CALL_BYTES || input_below(&in, 64) == 0) {
    size_t n = fresh(data, room, &in);
    return n > 0 ? n : LLVMFuzzerMutate(data, size, room);
  }
  switch (input_below(&in, 8)) {
    case 0: return LLVMFuzzerMutate(data, size, room);
    case 1: damage_immutable(data, size, &in); return size;
    case 2: case 3: /* other calls */
      data[size - 1 - input_below(&in, CALL_BYTES)] = input_u8(&in);
      return size;
    default: damage(data, size, &in); return size;
  }
}
