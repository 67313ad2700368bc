/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of `log`.
 *
 * On disk: a directory of segments named by their first record's number, NUMBER.log, all of one size and
 * zero-written before use, because a write into written blocks needs no journal. Records are frames,
 * {header, record, padding to 8}; a batch for the disk has whole blocks of 4096 to itself, so what was
 * acknowledged there is never written again. Numbers have no gaps: the log ends at the first place where the next number
 * does not stand with a right checksum.
 */
#ifndef SHMQD_RESOURCE_LOG_H
#define SHMQD_RESOURCE_LOG_H

#include "daemon.h"
#include "resource/log_keys.h"

enum {
  LOG_BLOCK = 4096,
  LOG_BATCH_MAX = 1 << 20,
};

#define LOG_REQUEST 2u /* the identity of the request that brought the record */

#define LOG_MAGIC UINT32_C(0x31474c53) /* "SLG1" */

struct log_frame {
  uint32_t magic;
  uint32_t bytes; /* of the record */
  uint64_t number;
  shmq_id key;
  uint32_t flags; /* SHMQ_LOG_KEYED, or LOG_REQUEST: what the key is */
  uint32_t crc;   /* of the header with crc = 0, and of the record */
  uint64_t reserved;
};
_Static_assert(sizeof(struct log_frame) == 64, "one line");

/* Where some records stand: the first of each batch. */
struct log_mark {
  uint64_t number;
  uint64_t offset;
};

struct log_segment {
  uint64_t first; /* number of its first record */
  int fd;         /* through the page cache: reads, and writes that nobody wants on the disk yet */
  int direct;     /* O_DIRECT: writes that go to the disk at once; -1: the file system has none */
  struct log_mark *marks;
  size_t mark_count, mark_room;
};

/* The files. log_file.c; the functions that block are called at start or on a helper thread. */
struct log_files {
  int directory;
  const char *name; /* KIND:NAME of the resource, for messages */
  uint64_t segment_bytes;
  struct log_segment *segments; /* oldest first; the last is written to */
  size_t count, room;
  int spare; /* a zero-written file without a name of its own yet, or -1 */
};

typedef int log_record_fn(void *ctx, const struct log_frame *frame);

size_t log_frame_bytes(size_t record_bytes);
void log_frame_seal(struct log_frame *frame); /* the record stands behind it */
int log_files_open(struct log_files *files, const char *path, uint64_t segment_bytes,
                   const char *name);
void log_files_close(struct log_files *files);
/* Read everything, calling fn for each record; cut a torn tail; leaves the place to go on. What it says is on the disk, after
 * an error (`failed`) as well: it reads past the page cache where the file system can. */
int log_files_recover(struct log_files *files, bool failed, log_record_fn *fn, void *ctx,
                      uint64_t *next, uint64_t *offset);
/* A zero-written file for later; give it the name of a segment; write to it from now on. The first two block, and
 * touch nothing that the third or the loop does. */
int log_files_make_spare(struct log_files *files);
int log_files_name_spare(struct log_files *files, uint64_t first);
int log_files_adopt_spare(struct log_files *files, uint64_t first);
/* A batch with this first number stands at this offset of the last segment. */
int log_files_mark(struct log_files *files, uint64_t number, uint64_t offset);
/* Remove segments that end before number. */
int log_files_trim(struct log_files *files, uint64_t number);

/* Where a record can be found from: a descriptor of one's own, and a mark before it. */
struct log_place {
  int fd;
  struct log_mark at;
};
int log_files_locate(const struct log_files *files, uint64_t number, struct log_place *place);
/* Fill `to` with entries from `number` on, none at or above `end`. Blocks; closes the place. */
int log_read(struct log_place *place, uint64_t number, uint64_t end, char *to, size_t room,
             size_t *filled);

#endif
