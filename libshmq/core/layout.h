/* SPDX-License-Identifier: Apache-2.0
 *
 * Every shared byte of a segment: who writes it, who reads it. No pointers, only indices and offsets
 * that follow from the geometry. In order:
 *
 *   header | queue descriptors | ring descriptors | slots | for each ring: producer records,
 *   consumer records, cells | block words | blocks (page-aligned)
 *
 * All arrays are zero at creation, and zero is the right first value of every mutable word, so a new
 * segment is its descriptors, written once, on pages the kernel zeroed.
 */
#ifndef SHMQ_CORE_LAYOUT_H
#define SHMQ_CORE_LAYOUT_H

#include <stdalign.h>
#include <stddef.h>
#include <stdint.h>

#include "core/atomic.h"
#include "core/word.h"
#include "shmq/shmq.h"

#define SHMQ__MAGIC UINT64_C(0x31304751514d4853) /* "SHMQQG01", little endian */
#define SHMQ__LAYOUT_VERSION 2u
#define SHMQ__LINE 64u
#define SHMQ__PAGE 4096u

/* Locks of the segment's file: byte i is participant i's (1 to 1023); this one is the creator's. */
#define SHMQ__LOCK_CREATE 4096

/* An event count; see core/wake.h for its protocol. */
typedef struct shmq__event {
  _Atomic uint32_t word;
} shmq__event;

struct shmq__header {
  /* Written by the creator before magic, then never again. */
  _Atomic uint64_t magic; /* stored last, release; read with acquire */
  uint32_t layout_version;
  uint32_t fingerprint; /* of sizes, offsets and byte order: shmq__fingerprint() */
  uint64_t bytes;       /* of the whole segment */
  uint8_t uuid[16];
  int64_t created_ns; /* CLOCK_REALTIME */
  uint32_t participants;
  uint32_t queues;
  uint32_t rings;
  uint32_t blocks;
  uint64_t block_bytes;
  uint64_t checksum; /* of the fields above but magic, and of all queue configurations */

  /* Written by whoever frees a block or waits for one. */
  alignas(128) shmq__event block_freed;

  /* Written by joiners and by guards. */
  alignas(64) shmq__event joined; /* guards sleep here, who joins signals */
  _Atomic uint32_t guard;         /* participant that recovers the dead at once, 0: none */
};

/* The immutable part of a queue. Written by the creator, covered by the checksum. */
struct shmq__queue_config {
  char name[SHMQ_QUEUE_NAME_MAX + 1];
  uint32_t capacity; /* cells of each band, a power of two */
  uint32_t message_bytes;
  uint32_t flags; /* SHMQ_SINGLE_*, SHMQ_TIMED, SHMQ__TRACKED */
  uint32_t priorities;
  uint32_t max_attempts;
  int32_t dead_letter; /* queue index or -1 */
  uint32_t full_policy;
  uint32_t first_ring;
  int64_t ttl_ns;
  uint64_t reserved[5];
};

/* Cells carry struct shmq__stamp: the queue is timed, counts attempts, or takes dead letters. */
#define SHMQ__TRACKED 0x100u

struct shmq__queue {
  struct shmq__queue_config config;

  /* The status line: read by every put and take, written when somebody sleeps, dies or shuts down, so
   * it stays shared in all caches while the queue is busy. */
  alignas(64) _Atomic uint32_t shut; /* 1: puts are refused */
  shmq__event not_empty;             /* takers sleep here, whoever publishes or returns signals */
  shmq__event not_full;              /* putters sleep here, whoever frees a cell signals */
  shmq__event idle;                  /* drain and join sleep here, whoever takes or acks signals */
  _Atomic uint64_t returned_seq;     /* raised after cells became RETURNED */
  _Atomic uint64_t returned_seen;    /* the seq whose returned cells have all been taken */
  _Atomic int64_t next_due_ns;       /* least not-before among RETURNED cells, 0: none */
  _Atomic uint32_t producer;         /* participant that holds the single role, 0: none */
  _Atomic uint32_t consumer;

  /* Counters. Each is raised after the event that it counts: a death in between loses one count. */
  alignas(64) _Atomic uint64_t aborted;
  _Atomic uint64_t dropped;
  _Atomic uint64_t expired;
  _Atomic uint64_t dead_lettered;
  _Atomic uint64_t redeliveries;
};

/* One band of a queue. tail and head lie two lines apart, so that the adjacent-line prefetcher of one
 * side does not fetch the other's. */
struct shmq__ring {
  alignas(128) _Atomic uint64_t tail; /* index word; CAS by producers, store by a single one */
  alignas(128) _Atomic uint64_t head; /* index word; CAS by consumers, store by a single one */
};

/* What a tracked cell carries between its word and its payload. Written by the producer before it
 * publishes; cause by the owner or its recoverer before the cell becomes RETURNED. */
struct shmq__stamp {
  int64_t not_before_ns; /* CLOCK_MONOTONIC, 0: at once */
  int64_t expires_ns;    /* CLOCK_MONOTONIC, 0: never */
  shmq_cause cause;
};

/* A message in a block: what the cell's payload is then. */
struct shmq__block_ref {
  uint32_t index;
  uint32_t length;
};

/* One message of a commit_all. */
struct shmq__redo_entry {
  _Atomic uint64_t where; /* position 48 | ring 12 | REDO_* 1 */
  _Atomic uint64_t word;  /* REDO_PUBLISH: the READY word. REDO_FREE: block index + 1, or 0 */
};
enum { REDO_FREE = 0, REDO_PUBLISH = 1 };
enum { REDO_NONE = 0, REDO_COMMITTED = 1 };

/* RECOVERING: as DIRTY, and who holds the lock is not the owner but its recoverer. */
enum { SLOT_CLEAN = 0, SLOT_DIRTY = 1, SLOT_RECOVERING = 2 };

/* A participant. Everything in it is written by who holds lock byte i: the living owner, or, after its
 * death, one recoverer. Tools read it at any time. */
struct shmq__slot {
  _Atomic uint32_t state;      /* not CLEAN from before the first shared claim until recovery is complete */
  _Atomic uint32_t generation; /* raised by each join */
  _Atomic int32_t pid;
  _Atomic int32_t cpu;
  _Atomic uint64_t pid_ns;
  _Atomic uint64_t start_time;
  _Atomic int64_t joined_ns;
  char role[16];
  char label[32];
  alignas(64) _Atomic uint64_t puts; /* own line: the owner's counters */
  _Atomic uint64_t gets;
  _Atomic uint32_t redelivers; /* 1: it has held LEASED cells, which only a scan of all cells finds */
  _Atomic int32_t exit_status; /* wait status of the dead owner as a guard learnt it, or -1 */
  alignas(64) _Atomic uint32_t redo_state; /* REDO_COMMITTED: the step is decided, replay it */
  _Atomic uint32_t redo_count;
  struct shmq__redo_entry redo[SHMQ_COMMIT_MAX];
};

_Static_assert(sizeof(struct shmq__header) <= SHMQ__PAGE, "the header fits its page");
_Static_assert(sizeof(struct shmq__queue_config) == 128, "configuration is two lines");
_Static_assert(sizeof(struct shmq__queue) == 256, "queue descriptor is four lines");
_Static_assert(offsetof(struct shmq__queue, consumer) + 4 <= 192, "status is one line");
_Static_assert(sizeof(struct shmq__ring) == 256, "ring descriptor is four lines");
_Static_assert(sizeof(struct shmq__block_ref) == 8, "a block reference is one look");
_Static_assert(sizeof(struct shmq__stamp) == 40, "stamp keeps payloads 8-byte aligned");
_Static_assert(sizeof(struct shmq__slot) == 512, "slot is eight lines");

#endif
