/* SPDX-License-Identifier: Apache-2.0
 *
 * The seam between the core and the machine's atomics. Orders stand on the words, never in stand-alone
 * fences. A build with SHMQ_MODEL calls model_step before each operation, which makes every one of
 * them a scheduling point of the deterministic scheduler in tests/model.
 */
#ifndef SHMQ_CORE_ATOMIC_H
#define SHMQ_CORE_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef SHMQ_MODEL
#include "model_hooks.h"
#define SHMQ__STEP(word, kind) model_step((const volatile void *)(word), MODEL_##kind)
#else
#define SHMQ__STEP(word, kind) ((void)0)
#endif

#define a_load(w) (SHMQ__STEP(w, LOAD), atomic_load_explicit((w), memory_order_acquire))
#define a_load_relaxed(w) (SHMQ__STEP(w, LOAD), atomic_load_explicit((w), memory_order_relaxed))
#define a_load_seq(w) (SHMQ__STEP(w, LOAD), atomic_load_explicit((w), memory_order_seq_cst))
#define a_store(w, v) (SHMQ__STEP(w, STORE), atomic_store_explicit((w), (v), memory_order_release))
#define a_store_relaxed(w, v) \
  (SHMQ__STEP(w, STORE), atomic_store_explicit((w), (v), memory_order_relaxed))
#define a_add(w, v) (SHMQ__STEP(w, RMW), atomic_fetch_add_explicit((w), (v), memory_order_seq_cst))
#define a_or(w, v) (SHMQ__STEP(w, RMW), atomic_fetch_or_explicit((w), (v), memory_order_seq_cst))
#define a_xchg(w, v) (SHMQ__STEP(w, RMW), atomic_exchange_explicit((w), (v), memory_order_seq_cst))
/* Strong; *expected gets what was found when it fails. */
#define a_cas(w, expected, v)                                                                \
  (SHMQ__STEP(w, RMW), atomic_compare_exchange_strong_explicit((w), (expected), (v),         \
                                                               memory_order_seq_cst,         \
                                                               memory_order_acquire))

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A look whose answer is only a hint, of what to fetch: nothing depends on it, so it is no step of the model. */
#define a_peek(w) atomic_load_explicit((w), memory_order_relaxed)

/* A glance at eight bytes that somebody may be writing just now. What it finds counts only if a later
 * compare-and-swap, or look, finds the word beside them unchanged. The only reads of the protocol that race by
 * intent; the thread sanitizer is told here. */
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize_thread))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
__attribute__((no_sanitize("thread")))
#endif
#endif
static inline uint64_t
glance(const void *at) {
  return *(const volatile uint64_t *)at;
}

static inline void shmq__pause(void) {
#ifdef SHMQ_MODEL
  model_step(0, MODEL_PAUSE);
#elif defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield" ::: "memory");
#endif
}

/* Fetch a line that is about to be written, exclusively. Compilers emit a plain fetch for __builtin_prefetch(p, 1) unless
 * they may assume the instruction; processors without it take it for a no-op. */
static inline void prefetch_to_write(const volatile void *p) {
#if defined(__x86_64__)
  __asm__ volatile("prefetchw %0" : : "m"(*(const volatile char *)p));
#else
  __builtin_prefetch((const void *)p, 1);
#endif
}

#endif
