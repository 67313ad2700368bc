/* SPDX-License-Identifier: Apache-2.0
 *
 * The 64-bit words of the protocol and how they are packed. Pure functions.
 *
 *   cell   turn 22 | length 22 | owner 10 | attempts 6 | in_block 1 | kind 3
 *   index  position 48 | run-1 6 | owner 10          (tail and head)
 *   record position 48 | owner 10                    (who took a position)
 *   block  position 42 | ring 12 | owner 10          (who answers for a block, and its cell)
 *
 * A position counts cells ever taken; its low bits choose the cell, the bits above are its turn. All
 * comparisons are modular, so the wrap after 2^48 positions is harmless. A turn tells 4 million
 * laps apart; it only has to tell a cell's present lap from the neighbouring ones, because an index CAS
 * with the full position stands between seeing a cell and taking it.
 */
#ifndef SHMQ_CORE_WORD_H
#define SHMQ_CORE_WORD_H

#include <stdbool.h>
#include <stdint.h>

enum shmq__kind {
  CELL_FREE = 0,      /* of its turn: may be written by the producer that takes its position */
  CELL_READY = 1,     /* published; taken or not, as head says */
  CELL_TOMBSTONE = 2, /* given up by its producer; the taker skips and frees it */
  CELL_RETURNED = 3,  /* was taken, and waits behind head for redelivery */
  CELL_LEASED = 4     /* redelivered; held by the owner in the word */
};

#define POSITION_BITS 48
#define POSITION_MASK ((UINT64_C(1) << POSITION_BITS) - 1)
#define OWNER_MASK UINT64_C(0x3ff)
#define TURN_MASK UINT32_C(0x3fffff)
#define LENGTH_MASK UINT32_C(0x3fffff)
#define ATTEMPTS_LIMIT 63u

/* ---- cell ---- */

static inline uint64_t cell_make(uint32_t turn, uint32_t length, uint32_t owner, uint32_t attempts,
                                 bool in_block, enum shmq__kind kind) {
  return (uint64_t)(turn & TURN_MASK) << 42 | (uint64_t)(length & LENGTH_MASK) << 20 |
         (uint64_t)(owner & OWNER_MASK) << 10 | (uint64_t)(attempts & 63u) << 4 |
         (uint64_t)in_block << 3 | (uint64_t)kind;
}
static inline enum shmq__kind cell_kind(uint64_t w) { return (enum shmq__kind)(w & 7); }
static inline bool cell_in_block(uint64_t w) { return w >> 3 & 1; }
static inline uint32_t cell_attempts(uint64_t w) { return (uint32_t)(w >> 4) & 63u; }
static inline uint32_t cell_owner(uint64_t w) { return (uint32_t)(w >> 10 & OWNER_MASK); }
static inline uint32_t cell_length(uint64_t w) { return (uint32_t)(w >> 20) & LENGTH_MASK; }
static inline uint32_t cell_turn(uint64_t w) { return (uint32_t)(w >> 42); }

static inline uint64_t cell_free(uint32_t turn) { return cell_make(turn, 0, 0, 0, false, CELL_FREE); }
static inline uint64_t cell_tombstone(uint32_t turn) {
  return cell_make(turn, 0, 0, 0, false, CELL_TOMBSTONE);
}
/* The same message in another state: length and in_block stay. */
static inline uint64_t cell_become(uint64_t w, enum shmq__kind kind, uint32_t owner,
                                   uint32_t attempts) {
  if (attempts > ATTEMPTS_LIMIT) attempts = ATTEMPTS_LIMIT;
  return cell_make(cell_turn(w), cell_length(w), owner, attempts, cell_in_block(w), kind);
}
static inline bool cell_holds_message(uint64_t w) {
  return cell_kind(w) == CELL_READY || cell_kind(w) == CELL_RETURNED || cell_kind(w) == CELL_LEASED;
}

/* ---- index ---- */

static inline uint64_t index_make(uint64_t position, uint32_t run, uint32_t owner) {
  return (position & POSITION_MASK) << 16 | (uint64_t)((run - 1u) & 63u) << 10 | (owner & OWNER_MASK);
}
static inline uint64_t index_position(uint64_t x) { return x >> 16; }
static inline uint32_t index_run(uint64_t x) { return ((uint32_t)(x >> 10) & 63u) + 1u; }
static inline uint32_t index_owner(uint64_t x) { return (uint32_t)(x & OWNER_MASK); }
static inline uint64_t position_add(uint64_t p, uint64_t n) { return (p + n) & POSITION_MASK; }
static inline uint64_t position_sub(uint64_t p, uint64_t n) { return (p - n) & POSITION_MASK; }

/* ---- record ---- */

static inline uint64_t record_make(uint64_t position, uint32_t owner) {
  return (position & POSITION_MASK) << 16 | (owner & OWNER_MASK);
}
static inline uint64_t record_position(uint64_t r) { return r >> 16; }
static inline uint32_t record_owner(uint64_t r) { return (uint32_t)(r & OWNER_MASK); }

/* ---- block ---- */

#define BLOCK_POSITION_MASK ((UINT64_C(1) << 42) - 1)
#define BLOCK_NO_RING 0xfffu /* allocated, and not yet referred to by a cell */

static inline uint64_t block_make(uint32_t owner, uint32_t ring, uint64_t position) {
  return (position & BLOCK_POSITION_MASK) << 22 | (uint64_t)(ring & 0xfffu) << 10 |
         (owner & OWNER_MASK);
}
static inline uint32_t block_owner(uint64_t b) { return (uint32_t)(b & OWNER_MASK); }
static inline uint32_t block_ring(uint64_t b) { return (uint32_t)(b >> 10) & 0xfffu; }
static inline uint64_t block_position(uint64_t b) { return b >> 22; }

#endif
