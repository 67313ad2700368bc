/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of `kv`: kv.c answers requests, kv_change.c those that change something, kv_map.c is the map,
 * kv_snapshot.c keeps the log short and kv_load.c reads what that wrote.
 *
 * Every change is a record of a log (log_commit.h) that says what the value is now and not how it was made, so
 * replaying a record twice, or over a later snapshot, does no harm. A snapshot is therefore taken in pieces
 * while the map goes on changing: it says with which record to begin replaying, and that is the first
 * one after it was begun.
 */
#ifndef SHMQD_RESOURCE_KV_H
#define SHMQD_RESOURCE_KV_H

#include "resource/crc32c.h"
#include "resource/log_commit.h"
#include "shmq/resource.h"

/* ---- the map ---- */

struct kv_entry {
  RB_ENTRY(kv_entry) node;
  uint64_t version;
  const char *key; /* = data, but for a probe */
  uint32_t key_bytes, value_bytes;
  char data[]; /* key, value */
};
RB_HEAD(kv_tree, kv_entry);

struct kv_map {
  struct kv_tree tree;
  uint64_t count;
  size_t bytes; /* of all entries */
};

/* An entry with a copy of the key and room for the value; not in the map yet. NULL: no memory. */
struct kv_entry *kv_entry_new(const char *key, size_t key_bytes, size_t value_bytes);
static inline char *kv_entry_value(struct kv_entry *e) { return e->data + e->key_bytes; }
size_t kv_entry_bytes(size_t key_bytes, size_t value_bytes);

struct kv_entry *kv_map_find(struct kv_map *map, const char *key, size_t key_bytes);
/* The first entry at the key or, with `after`, behind it. */
struct kv_entry *kv_map_from(struct kv_map *map, const char *key, size_t key_bytes, bool after);
struct kv_entry *kv_map_next(struct kv_entry *entry);
/* Put an entry into the map, in the place of another with its key. */
void kv_map_put(struct kv_map *map, struct kv_entry *entry);
/* Take it out and free it. */
void kv_map_remove(struct kv_map *map, struct kv_entry *entry);
void kv_map_clear(struct kv_map *map);

/* ---- snapshots ---- */

#define KV_SNAPSHOT_NAME "snapshot"
#define KV_SNAPSHOT_MAGIC UINT64_C(0x31504e5356514853) /* "SHQVSNP1" */

/* Of the file; behind it each entry: shmq_kv_entry, key, value. */
struct kv_snapshot_header {
  uint64_t magic;
  uint64_t start;
  uint64_t count;
  uint64_t bytes; /* of the entries */
  uint32_t crc;   /* of the entries, then of the fields above */
  uint32_t reserved;
};

static inline uint32_t kv_snapshot_crc(uint32_t entries, const struct kv_snapshot_header *h) {
  return crc32c(entries, h, offsetof(struct kv_snapshot_header, crc));
}

enum kv_snapshot_state {
  SNAPSHOT_NONE,
  SNAPSHOT_OPENING,
  SNAPSHOT_WRITING,
  SNAPSHOT_WAITING, /* until what it may contain is in the log on the disk */
  SNAPSHOT_FINISHING,
  SNAPSHOT_DISCARDING
};

struct kv_snapshot {
  enum kv_snapshot_state state;
  bool spoilt;     /* the map was read back meanwhile: what was written says nothing */
  int fd;
  uint64_t start;  /* replay from here */
  uint64_t end;    /* it contains nothing from here on */
  uint64_t count;
  uint32_t crc;
  uint64_t offset; /* in the file */
  char *buffer;
  size_t filled, written;
  char cursor[SHMQ_KV_KEY_MAX]; /* the last key that is in it */
  size_t cursor_bytes;
  bool all;        /* the last piece is in the buffer */
  struct io_op op;
};

struct kv {
  struct resource base;
  struct log_commit commit;
  struct kv_map map;
  enum shmq_log_ack ack;
  uint64_t deleted;  /* number of the last deletion */
  uint64_t start;    /* the snapshot that was loaded or taken last says: replay from here */
  uint64_t logged;   /* bytes of records since it was begun */
  uint64_t snapshot_bytes;
  struct kv_snapshot snapshot;
};

static inline struct kv *kv_of_request(const struct request *r) { return (struct kv *)r->resource; }

/* ---- requests ---- */

/* scratch of a request, behind the log's */
enum { KV_VALUE0 = COMMIT_SCRATCH, KV_VALUE1, KV_SIZE /* of the answer, or a negative errno */ };

/* A record of the log: this, the key and, for a value that was set, the value. */
enum { KV_RECORD_SET = 1, KV_RECORD_DELETE };
struct kv_record {
  uint32_t what;
  uint32_t key_bytes;
};

/* PUT, CAS, ADD, DELETE. What was done before a worker died of it is not done again. */
void kv_serve_change(struct request *r);
/* Copy what is parsed: the first so many bytes. Returns the key's length; 0: there is none, and the request is refused. */
size_t kv_take_key(struct request *r, size_t bytes, char key[SHMQ_KV_KEY_MAX]);
/* What there is forbids it: `e` does, or that there is none. */
void kv_answer_conflict(struct request *r, const struct kv_entry *e, int status);

/* ---- kv_load.c, kv_snapshot.c ---- */

/* Read the snapshot, if there is one, into the empty map; sets kv->start. Blocks. */
int kv_snapshot_load(struct kv *kv);
/* Begin one, or go on with it, if it is time. */
void kv_snapshot_turn(struct kv *kv);

#endif
