/* SPDX-License-Identifier: Apache-2.0
 *
 * Out-of-bounds accesses made visible. Segments are mapped between two large inaccessible areas, in place of
 * wherever the kernel finds room (the linker puts these two in front of the library's own), and the
 * bytes of a segment that no message may touch are poisoned for the address sanitizer.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/segment.h"
#include "guard.h"
#include "os/object.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(at, bytes) ASAN_POISON_MEMORY_REGION(at, bytes)
#define UNPOISON(at, bytes) ASAN_UNPOISON_MEMORY_REGION(at, bytes)
#else
#define POISON(at, bytes) ((void)(at), (void)(bytes))
#define UNPOISON(at, bytes) ((void)(at), (void)(bytes))
#endif

#define GUARD_BYTES (UINT64_C(1) << 30)

void *__wrap_shmq__object_map(int fd, uint64_t bytes, bool writable);
void __wrap_shmq__object_unmap(void *memory, uint64_t bytes);

void *__wrap_shmq__object_map(int fd, uint64_t bytes, bool writable) {
  unsigned char *area = mmap(NULL, bytes + 2 * GUARD_BYTES, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return NULL;
  int protection = PROT_READ | (writable ? PROT_WRITE : 0);
  void *memory = mmap(area + GUARD_BYTES, bytes, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  if (memory != MAP_FAILED) return memory;
  int error = errno;
  (void)munmap(area, bytes + 2 * GUARD_BYTES);
  errno = error;
  return NULL;
}

void __wrap_shmq__object_unmap(void *memory, uint64_t bytes) {
  UNPOISON(memory, bytes);
  (void)munmap((unsigned char *)memory - GUARD_BYTES, bytes + 2 * GUARD_BYTES);
}

/* Every cell has room for a block's reference, even where messages are shorter. */
static void poison_cells(const shmq__ring_view *r) {
  uint32_t payload = r->payload_bytes > sizeof(struct shmq__block_ref)
                         ? r->payload_bytes
                         : (uint32_t)sizeof(struct shmq__block_ref);
  uint64_t head = r->tracked ? 8 + sizeof(struct shmq__stamp) : 8;
  uint64_t payload_at = r->payload_offset % r->stride; /* in the payload's own cell or line */
  for (uint32_t i = 0; i < r->capacity; i++) {
    POISON(cell_payload(r, i) + payload, r->stride - payload_at - payload);
    if (r->payload_offset >= SHMQ__LINE)
      POISON((unsigned char *)cell_word(r, i) + head, SHMQ__LINE - head);
  }
}

void guard_poison(const struct shmq_segment *s) {
  for (uint32_t i = 0; i < s->geometry.rings; i++) poison_cells(&s->rings[i]);
  POISON(s->memory + sizeof(struct shmq__header), SHMQ__PAGE - sizeof(struct shmq__header));
}
