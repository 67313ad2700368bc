/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes that decide what a fuzz target does: a fuzzer's input, or, for the hostile peer, what a
 * generator makes of a seed. What is taken beyond the end reads as zero.
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct input {
  const uint8_t *at;
  size_t left;
  uint64_t seed; /* 0: the bytes are all there is; else they never end */
};

static inline struct input input_of(const uint8_t *data, size_t size) {
  return (struct input){.at = data, .left = size};
}
static inline struct input input_endless(uint64_t seed) {
  return (struct input){.seed = seed * 2 + 1};
}

static inline uint64_t input_random(struct input *in) { /* splitmix64 */
  uint64_t z = in->seed += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

static inline bool input_over(const struct input *in) { return in->left == 0 && in->seed == 0; }

static inline uint64_t input_take(struct input *in, size_t bytes) {
  uint64_t value = 0;
  if (in->seed) return input_random(in) >> (64 - 8 * bytes);
  size_t n = bytes < in->left ? bytes : in->left;
  memcpy(&value, in->at, n);
  in->at += n;
  in->left -= n;
  return value;
}
static inline uint8_t input_u8(struct input *in) { return (uint8_t)input_take(in, 1); }
static inline uint16_t input_u16(struct input *in) { return (uint16_t)input_take(in, 2); }
static inline uint32_t input_u32(struct input *in) { return (uint32_t)input_take(in, 4); }
static inline uint64_t input_u64(struct input *in) { return input_take(in, 8); }

/* Less than n; n > 0. Small choices cost one byte, so that mutations stay local. */
static inline uint32_t input_below(struct input *in, uint32_t n) {
  if (n <= 256) return input_u8(in) % n;
  return input_u32(in) % n;
}

#endif
