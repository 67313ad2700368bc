/* SPDX-License-Identifier: Apache-2.0 */
#include "resource/crc32c.h"

#include <string.h>

enum { BYTE_BITS = 8 };
#define POLYNOMIAL UINT32_C(0x82f63b78) /* reflected */

static uint32_t table[256];

/* Before there are threads. */
__attribute__((constructor)) static void fill_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < BYTE_BITS; bit++) c = c & 1 ? c >> 1 ^ POLYNOMIAL : c >> 1;
    table[i] = c;
  }
}

static uint32_t by_table(uint32_t crc, const unsigned char *p, size_t size) {
  while (size--) crc = crc >> 8 ^ table[(crc ^ *p++) & 255];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_hardware(uint32_t crc, const unsigned char *p,
                                                              size_t size) {
  uint64_t wide = crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  crc = (uint32_t)wide;
  while (size--) crc = __builtin_ia32_crc32qi(crc, *p++);
  return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size) {
  crc = ~crc;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return ~by_hardware(crc, data, size);
#endif
  return ~by_table(crc, data, size);
}
