/* SPDX-License-Identifier: Apache-2.0
 *
 * Read-only views of segments for tools. A view maps the segment PROT_READ, takes no lock and changes
 * nothing, so it works on a queue whose participants are all stopped, wedged or dead, and on a
 * damaged one. What it returns is a snapshot taken word by word: exact when nothing moves.
 */
#ifndef SHMQ_INSPECT_H
#define SHMQ_INSPECT_H

#include <shmq/shmq.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shmq_view shmq_view;

/* Call fn(name, ctx) for every shmq segment that stands in /dev/shm, by name order; a non-zero return ends it
 * and is returned. Errors: -EACCES, -ENOMEM. */
SHMQ_API int shmq_list(int (*fn)(const char *name, void *ctx), void *ctx);

/* Open a view. Errors: -ENOENT, -EACCES, -EPROTO another layout version, -EBADMSG damaged. */
SHMQ_API int shmq_view_open(shmq_view **out, const char *name);
SHMQ_API int shmq_view_open_fd(shmq_view **out, int fd);
SHMQ_API void shmq_view_close(shmq_view *view);

typedef struct shmq_segment_info {
  uint8_t uuid[16];
  uint64_t bytes;
  uint32_t layout_version;
  uint32_t queues;
  uint32_t participants_max;
  uint32_t participants; /* slots in use, dead ones included */
  uint32_t blocks;
  uint32_t blocks_free;
  uint32_t block_bytes;
  uint32_t mode;  /* permission bits */
  uint32_t uid;
  uint32_t gid;
  int64_t created_ns; /* CLOCK_REALTIME */
} shmq_segment_info;
SHMQ_API int shmq_view_segment(shmq_view *view, shmq_segment_info *info);

typedef struct shmq_queue_info {
  char name[SHMQ_QUEUE_NAME_MAX + 1];
  uint32_t capacity;
  uint32_t message_bytes;
  uint32_t flags; /* as at creation */
  uint32_t priorities;
  uint32_t max_attempts;
  int32_t dead_letter; /* index of a queue, -1: none */
  uint32_t full_policy;
  int64_t ttl_ns;
  uint32_t shut_down;
  uint32_t producer; /* participant index that holds the single role, 0: none */
  uint32_t consumer;
  uint64_t depth;    /* published or returned, and not taken */
  uint64_t leased;   /* taken and not acked */
  uint64_t reserved; /* claimed by a producer and not published */
  uint64_t returned; /* part of depth: waits for redelivery */
  uint64_t delayed;  /* part of returned: not before a time */
  uint64_t puts;     /* messages ever published */
  uint64_t gets;     /* messages ever acked */
  uint64_t redeliveries; /* deliveries after the first */
  uint64_t aborted;  /* reservations that became tombstones */
  uint64_t dropped;  /* by the policy when full */
  uint64_t expired;       /* dropped for their age */
  uint64_t dead_lettered; /* moved to the dead letter queue, expired ones too */
  uint64_t damaged;  /* cells whose word makes no sense */
  uint32_t sleeping_takers; /* announced since the last wake-up: 0 or 1 */
  uint32_t sleeping_putters;
} shmq_queue_info;
/* Errors: -ENOENT index >= queues. */
SHMQ_API int shmq_view_queue(shmq_view *view, uint32_t index, shmq_queue_info *info);

typedef struct shmq_participant_info {
  uint32_t index;
  uint32_t generation;
  int32_t pid;         /* in the participant's own pid namespace */
  uint64_t pid_ns;     /* inode of that namespace */
  uint64_t start_time; /* as in /proc/PID/stat, 0: not known */
  int64_t joined_ns;   /* CLOCK_REALTIME */
  int32_t cpu;         /* pinned to, -1: not */
  uint32_t alive;      /* 1: its lock is held; 0: dead and not yet recovered */
  uint32_t stopped;    /* 1: alive and in state T or t, as /proc shows it */
  uint32_t step_committed; /* died or stands inside a commit_all that is decided */
  uint64_t puts, gets; /* by this participant since it joined */
  char role[16];
  char label[32];
} shmq_participant_info;
/* Errors: -ENOENT index is 0 or above participants_max, -ENODATA the slot is free. */
SHMQ_API int shmq_view_participant(shmq_view *view, uint32_t index, shmq_participant_info *info);

enum shmq_cell_state {
  SHMQ_CELL_FREE,
  SHMQ_CELL_RESERVED, /* claimed by a producer, not published */
  SHMQ_CELL_READY,
  SHMQ_CELL_LEASED,
  SHMQ_CELL_RETURNED,
  SHMQ_CELL_TOMBSTONE, /* given up by its producer, waits to be skipped */
  SHMQ_CELL_DAMAGED
};

typedef struct shmq_cell_info {
  uint64_t position;
  enum shmq_cell_state state;
  uint32_t owner;    /* participant that reserved or leased it, 0: none or not known */
  uint32_t attempts; /* deliveries so far */
  uint32_t in_block;
  uint64_t size;
  int64_t not_before_ns, expires_ns; /* 0: none */
  shmq_cause cause;  /* reason SHMQ_REASON_NONE: none kept */
} shmq_cell_info;

/* Walk the cells of queue `index`, highest band first and oldest position first; FREE cells are left out.
 * Call: cursor 0 at first, then as returned in *cursor. Returns 1 with a cell, 0 at the end.
 * data (may be NULL) gets up to data_bytes of the payload. Never more steps than cells. */
SHMQ_API int shmq_view_next(shmq_view *view, uint32_t index, uint64_t *cursor, shmq_cell_info *info,
                            void *data, size_t data_bytes);

/* What an audit found that recovery would have to mend or that nothing explains. */
typedef struct shmq_audit {
  uint32_t dead_participants; /* slots not clean whose lock is free */
  uint32_t stopped_participants;
  uint64_t held_by_dead;      /* cells and blocks */
  uint64_t leaked_blocks;     /* no living owner and no cell refers to them */
  uint64_t damaged;           /* words that make no sense */
  uint64_t unexplained;       /* reserved or leased cells that no slot in use owns */
} shmq_audit;
SHMQ_API int shmq_view_audit(shmq_view *view, shmq_audit *audit);

#ifdef __cplusplus
}
#endif
#endif
