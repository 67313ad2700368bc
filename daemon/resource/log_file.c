/* SPDX-License-Identifier: Apache-2.0
 *
 * The files of a log: making, recovering, reading and removing segments.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resource/crc32c.h"
#include "resource/log.h"

#define SPARE_NAME "spare.tmp"

enum { OWN_TRIES = 2000, OWN_NAP_US = 5000 };
/* Bytes behind every file's end, one for each of the two ways that one is open. */
static const off_t LOCK_CACHED = INT64_MAX - 2, LOCK_DIRECT = INT64_MAX - 1;

/* ---- frames ---- */

size_t log_frame_bytes(size_t record_bytes) {
  return (sizeof(struct log_frame) + record_bytes + 7) & ~(size_t)7;
}

static uint32_t frame_crc(const struct log_frame *frame) {
  struct log_frame header = *frame;
  header.crc = 0;
  return crc32c(crc32c(0, &header, sizeof header), frame + 1, frame->bytes);
}

void log_frame_seal(struct log_frame *frame) { frame->crc = frame_crc(frame); }

static bool frame_is(const struct log_frame *frame, uint64_t number) {
  return frame->magic == LOG_MAGIC && frame->number == number;
}

/* ---- files ---- */

static void segment_path(char path[32], uint64_t first) {
  snprintf(path, 32, "%020" PRIu64 ".log", first);
}

/* A lock of an open file goes with the last use of that file, and a write that a killed worker has left in its ring
 * uses it: who has the lock knows that nothing of another's is on its way. It also keeps a second daemon out. */
static int own(const struct log_files *f, int fd, off_t byte) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
  for (int i = 0; fcntl(fd, F_OFD_SETLK, &lock); i++) {
    if (errno != EAGAIN && errno != EACCES) return -errno;
    if (i == OWN_TRIES) {
      say(SAY_ERROR, "[log:%s] somebody else writes to it", f->name);
      return -EBUSY;
    }
    usleep(OWN_NAP_US);
  }
  return 0;
}

static int open_file(const struct log_files *f, const char *name, int flags, off_t byte) {
  int fd = openat(f->directory, name, flags | O_CLOEXEC, 0600);
  if (fd < 0) return -errno;
  int rc = own(f, fd, byte);
  if (!rc) return fd;
  close(fd);
  return rc;
}

static void *aligned(size_t bytes) {
  void *p = aligned_alloc(LOG_BLOCK, bytes);
  if (p) memset(p, 0, bytes);
  return p;
}

static int write_zeros(int fd, uint64_t from, uint64_t to) {
  char *zeros = aligned(LOG_BATCH_MAX);
  int rc = zeros ? 0 : -ENOMEM;
  while (!rc && from < to) {
    size_t n = to - from < LOG_BATCH_MAX ? (size_t)(to - from) : LOG_BATCH_MAX;
    ssize_t written = pwrite(fd, zeros, n, (off_t)from);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) rc = written < 0 ? -errno : -EIO;
    if (written > 0) from += (uint64_t)written;
  }
  if (!rc && fdatasync(fd)) rc = -errno;
  free(zeros);
  return rc;
}

int log_files_make_spare(struct log_files *f) {
  if (f->spare >= 0) return 0;
  int fd = open_file(f, SPARE_NAME, O_RDWR | O_CREAT, LOCK_CACHED);
  if (fd < 0) return fd;
  int rc = ftruncate(fd, 0) ? -errno : write_zeros(fd, 0, f->segment_bytes);
  if (rc)
    close(fd);
  else
    f->spare = fd;
  return rc;
}

/* Takes fd over if it succeeds. */
static int add_segment(struct log_files *f, uint64_t first, int fd) {
  if (f->count == f->room) {
    size_t room = f->room ? 2 * f->room : 8;
    struct log_segment *segments = realloc(f->segments, room * sizeof *segments);
    if (!segments) return -ENOMEM;
    f->segments = segments;
    f->room = room;
  }
  char name[32];
  segment_path(name, first);
  int direct = open_file(f, name, O_RDWR | O_DIRECT, LOCK_DIRECT);
  if (direct == -EBUSY) return direct;
  f->segments[f->count++] = (struct log_segment){.first = first, .fd = fd, .direct = direct};
  return 0;
}

int log_files_name_spare(struct log_files *f, uint64_t first) {
  char name[32];
  int rc = log_files_make_spare(f);
  if (rc) return rc;
  segment_path(name, first);
  if (renameat(f->directory, SPARE_NAME, f->directory, name) || fsync(f->directory)) return -errno;
  return 0;
}

int log_files_adopt_spare(struct log_files *f, uint64_t first) {
  int rc = add_segment(f, first, f->spare);
  if (rc) return rc;
  f->spare = -1;
  return 0;
}

int log_files_mark(struct log_files *f, uint64_t number, uint64_t offset) {
  struct log_segment *s = &f->segments[f->count - 1];
  if (s->mark_count == s->mark_room) {
    size_t room = s->mark_room ? 2 * s->mark_room : 64;
    struct log_mark *marks = realloc(s->marks, room * sizeof *marks);
    if (!marks) return -ENOMEM;
    s->marks = marks;
    s->mark_room = room;
  }
  s->marks[s->mark_count++] = (struct log_mark){number, offset};
  return 0;
}

static void drop_segments(struct log_files *f, size_t n) {
  for (size_t i = 0; i < n; i++) {
    close(f->segments[i].fd);
    if (f->segments[i].direct >= 0) close(f->segments[i].direct);
    free(f->segments[i].marks);
  }
  memmove(f->segments, f->segments + n, (f->count - n) * sizeof *f->segments);
  f->count -= n;
}

/* ---- open ---- */

static int by_number(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* The first numbers of all segments, in order. *numbers is the caller's to free. */
static int list_segments(const struct log_files *f, uint64_t **numbers, size_t *count) {
  int fd = openat(f->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd < 0 ? NULL : fdopendir(fd);
  size_t room = 0;
  *numbers = NULL;
  *count = 0;
  if (!d) return -errno;
  for (struct dirent *e; (e = readdir(d));) {
    uint64_t n;
    int end = 0;
    if (sscanf(e->d_name, "%20" SCNu64 ".log%n", &n, &end) != 1 || end != 24 || e->d_name[end])
      continue;
    if (*count == room) {
      uint64_t *more = realloc(*numbers, (room = room ? 2 * room : 16) * sizeof *more);
      if (!more) break;
      *numbers = more;
    }
    (*numbers)[(*count)++] = n;
  }
  closedir(d);
  if (*count) qsort(*numbers, *count, sizeof **numbers, by_number);
  return 0;
}

int log_files_open(struct log_files *f, const char *path, uint64_t segment_bytes,
                   const char *name) {
  uint64_t *numbers;
  size_t count;
  *f = (struct log_files){.segment_bytes = segment_bytes, .name = name, .spare = -1};
  if (mkdir(path, 0700) && errno != EEXIST) return -errno;
  f->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (f->directory < 0) return -errno;
  int rc = list_segments(f, &numbers, &count);
  for (size_t i = 0; !rc && i < count; i++) {
    char file[32];
    segment_path(file, numbers[i]);
    int fd = open_file(f, file, O_RDWR, LOCK_CACHED);
    rc = fd < 0 ? fd : add_segment(f, numbers[i], fd);
    if (rc && fd >= 0) close(fd);
  }
  free(numbers);
  return rc;
}

void log_files_close(struct log_files *f) {
  drop_segments(f, f->count);
  free(f->segments);
  f->segments = NULL;
  if (f->spare >= 0) close(f->spare);
  if (f->directory >= 0) close(f->directory);
}

/* ---- reading frames ---- */

/* A window of a file, read in aligned pieces: small ones at first where little is wanted, the full
 * size, which any frame fits, when a frame is not wholly in it. */
enum { WINDOW_FULL = 2 * LOG_BATCH_MAX, WINDOW_SMALL = 64 << 10 };

struct window {
  int fd;
  uint64_t end;    /* of the file */
  uint64_t offset; /* of the window, a multiple of LOG_BLOCK */
  size_t bytes;
  size_t step;
  char *data; /* WINDOW_FULL */
};

static int window_open(struct window *w, int fd, size_t step) {
  struct stat st;
  if (fstat(fd, &st)) return -errno;
  *w = (struct window){
      .fd = fd, .end = (uint64_t)st.st_size & ~(uint64_t)(LOG_BLOCK - 1), .step = step};
  w->data = aligned_alloc(LOG_BLOCK, WINDOW_FULL);
  return w->data ? 0 : -ENOMEM;
}

static int window_load(struct window *w, uint64_t offset, size_t wanted) {
  w->offset = offset & ~(uint64_t)(LOG_BLOCK - 1);
  if (w->end - w->offset < wanted) wanted = (size_t)(w->end - w->offset);
  w->bytes = 0;
  while (w->bytes < wanted) {
    ssize_t n = pread(w->fd, w->data + w->bytes, wanted - w->bytes, (off_t)(w->offset + w->bytes));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    w->bytes += (size_t)n & ~(size_t)(LOG_BLOCK - 1);
    if (n == 0 || n & (LOG_BLOCK - 1)) break;
  }
  return 0;
}

/* *more: the window ends before it can be said whether there is one. After the last record of each batch there is none,
 * and that is said without a look at the file. */
static const struct log_frame *peek(const struct window *w, uint64_t offset, uint64_t number,
                                    bool *more) {
  uint64_t end = w->offset + w->bytes;
  size_t room = offset >= w->offset && offset < end ? (size_t)(end - offset) : 0;
  *more = room < sizeof(struct log_frame);
  if (*more) return NULL;
  const struct log_frame *frame = (const struct log_frame *)(w->data + (offset - w->offset));
  if (!frame_is(frame, number)) return NULL;
  *more = frame->bytes > room - sizeof *frame;
  return !*more && frame->crc == frame_crc(frame) ? frame : NULL;
}

static const struct log_frame *frame_at(struct window *w, uint64_t offset, uint64_t number,
                                        int *rc) {
  bool more;
  const struct log_frame *frame = peek(w, offset, number, &more);
  *rc = 0;
  if (offset >= w->end) return NULL;
  for (size_t step = w->step; step && more && !*rc; step = step == WINDOW_FULL ? 0 : WINDOW_FULL) {
    *rc = window_load(w, offset, step);
    if (!*rc) frame = peek(w, offset, number, &more);
  }
  return frame;
}

/* The frame of `number` at *offset or at the next block, where the next batch would begin. */
static const struct log_frame *next_frame(struct window *w, uint64_t *offset, uint64_t number,
                                          int *rc) {
  const struct log_frame *frame = frame_at(w, *offset, number, rc);
  uint64_t block = (*offset + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1);
  if (frame || *rc || block == *offset) return frame;
  *offset = block;
  return frame_at(w, block, number, rc);
}

/* ---- recovery ---- */

/* The page cache may hold what the disk refused, and passes for written there: what is recovered from is the disk. */
static int disk_of(const struct log_segment *s) { return s->direct >= 0 ? s->direct : s->fd; }

/* What a batch that was not finished left behind the end must never be taken for records later. After an error it is
 * overwritten unseen, in the cache as well, and the sync of that is the disk's word for what was read before it. */
static int cut_tail(struct log_files *f, const struct log_segment *s, uint64_t offset, bool failed) {
  struct window w;
  int fd = s->fd;
  uint64_t end =
      offset + LOG_BATCH_MAX < f->segment_bytes ? offset + LOG_BATCH_MAX : f->segment_bytes;
  int rc = window_open(&w, disk_of(s), WINDOW_FULL);
  if (!rc && offset < w.end) rc = window_load(&w, offset, WINDOW_FULL);
  bool dirty = failed && offset < end;
  for (size_t i = 0; !rc && i < w.bytes && offset + i < end && !dirty; i++) dirty = w.data[i] != 0;
  free(w.data);
  if (rc) return rc;
  if (!dirty && w.end >= f->segment_bytes) return fdatasync(fd) ? -errno : 0;
  if (dirty) say(SAY_NOTICE, "[%s] a torn tail was cut at offset %" PRIu64, f->name, offset);
  return write_zeros(fd, offset, w.end >= f->segment_bytes ? end : f->segment_bytes);
}

static int scan_segment(struct log_files *f, struct log_segment *s, log_record_fn *fn, void *ctx,
                        uint64_t *number, uint64_t *offset) {
  struct window w;
  int rc = window_open(&w, disk_of(s), WINDOW_FULL);
  *offset = 0;
  s->mark_count = 0;
  while (!rc) {
    const struct log_frame *frame = next_frame(&w, offset, *number, &rc);
    if (!frame) break;
    if (*offset % LOG_BLOCK == 0) rc = log_files_mark(f, *number, *offset);
    if (!rc) rc = fn(ctx, frame);
    *offset += log_frame_bytes(frame->bytes);
    ++*number;
  }
  *offset = (*offset + LOG_BLOCK - 1) & ~(uint64_t)(LOG_BLOCK - 1);
  free(w.data);
  return rc;
}

/* A segment that does not go on where the one before ended, with records behind it, was damaged from
 * outside: nothing is guessed, nothing is thrown away. */
int log_files_recover(struct log_files *f, bool failed, log_record_fn *fn, void *ctx,
                      uint64_t *next, uint64_t *offset) {
  size_t count = f->count;
  *next = count ? f->segments[0].first : 1;
  *offset = 0;
  for (size_t i = 0; i < count; i++) {
    if (f->segments[i].first != *next) {
      say(SAY_ERROR, "[%s] damaged: record %" PRIu64 " is missing", f->name, *next);
      return -EBADMSG;
    }
    f->count = i + 1; /* marks go to the last */
    int rc = scan_segment(f, &f->segments[i], fn, ctx, next, offset);
    f->count = count;
    if (rc) return rc;
  }
  return count ? cut_tail(f, &f->segments[count - 1], *offset, failed) : 0;
}

/* ---- trim and read ---- */

/* How many segments hold nothing at or above number. The last is written to and stays. */
static size_t count_below(const struct log_files *f, uint64_t number) {
  size_t n = 0;
  while (n + 1 < f->count && f->segments[n + 1].first <= number) n++;
  return n;
}

/* One by one: if one cannot go, those before it have gone. */
int log_files_trim(struct log_files *f, uint64_t number) {
  char name[32];
  for (size_t n = count_below(f, number); n; n--) {
    segment_path(name, f->segments[0].first);
    if (unlinkat(f->directory, name, 0)) return -errno;
    drop_segments(f, 1);
  }
  return 0;
}

static const struct log_segment *segment_of(const struct log_files *f, uint64_t number) {
  const struct log_segment *s = NULL;
  for (size_t i = 0; i < f->count && f->segments[i].first <= number; i++) s = &f->segments[i];
  return s;
}

int log_files_locate(const struct log_files *f, uint64_t number, struct log_place *place) {
  const struct log_segment *s = segment_of(f, number);
  if (!s) return -ENODATA;
  size_t low = 0, high = s->mark_count;
  while (high - low > 1) {
    size_t middle = (low + high) / 2;
    *(s->marks[middle].number <= number ? &low : &high) = middle;
  }
  place->at = s->mark_count ? s->marks[low] : (struct log_mark){s->first, 0};
  place->fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 0);
  return place->fd < 0 ? -errno : 0;
}

static bool add_entry(char *to, size_t room, size_t *filled, const struct log_frame *frame) {
  size_t bytes = (sizeof(shmq_log_entry) + frame->bytes + 7) & ~(size_t)7;
  if (room - *filled < bytes) return false;
  shmq_log_entry e = {.number = frame->number, .bytes = frame->bytes};
  memcpy(to + *filled, &e, sizeof e);
  memcpy(to + *filled + sizeof e, frame + 1, frame->bytes);
  *filled += bytes;
  return true;
}

int log_read(struct log_place *place, uint64_t number, uint64_t end, char *to, size_t room,
             size_t *filled) {
  struct window w;
  struct log_mark at = place->at;
  *filled = 0;
  int rc = window_open(&w, place->fd, WINDOW_SMALL);
  while (!rc && at.number < end) {
    const struct log_frame *frame = next_frame(&w, &at.offset, at.number, &rc);
    if (!frame) break;
    if (at.number >= number && !add_entry(to, room, filled, frame)) break;
    at.offset += log_frame_bytes(frame->bytes);
    at.number++;
  }
  free(w.data);
  close(place->fd);
  if (!rc && !*filled && number < end) rc = at.number > number ? -EIO : -EMSGSIZE;
  return rc;
}
