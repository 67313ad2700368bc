/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "resource/mapped.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cut.h"
#include "daemon.h"

enum {
  WINDOW_BITS = 21,
  WINDOW_BYTES = 1 << WINDOW_BITS,
  WINDOW_CHARGE = 1 << 16, /* at least so much of the budget, for a mapping is not only its pages */
  SLOTS = 64,              /* of a file: windows that are as many apart are not mapped at the same time */
  FILES_MOST = 1024,       /* of a resource */
  HOT_READS = 48           /* and once more, without a change: who reads a file once, in long pieces, has fewer */
};
static const int64_t ask_ns = 50000;        /* what a file was so lately is believed until what was copied speaks against it */
static const int64_t rest_ns = 100000000;   /* without a change, before a file that has changed is locked anew */
static const int64_t sweep_ns = 1000000000; /* who was not read for so long makes room */
static const int64_t pause_ns = 1000000000; /* after what could not be mapped */

struct slot {
  uint64_t number; /* of the window in the file */
  uint32_t reads;
  uint32_t changes;      /* of the file, when `reads` were counted last */
  struct window *window; /* NULL: not mapped, nor about to be */
};

struct window {
  struct io_op op; /* the helper's */
  LIST_ENTRY(window) in_all;
  struct mapped *mapped;
  struct slot *slot; /* NULL: it was given up */
  uint64_t offset;
  size_t bytes;
  char *at;
  uint32_t changes; /* of the file, before it was locked */
  bool ready;       /* else a helper has it */
  bool used;        /* since the last sweep */
};

struct mapped_file {
  LIST_ENTRY(mapped_file) in_all;
  struct mapped *mapped;
  const struct session *session;
  void **place;
  uint64_t asked; /* takes of the shard, when this was asked for: */
  int64_t asked_ns;
  off_t length;
  struct timespec changed;
  uint32_t changes;   /* seen so far; the first look is one */
  int64_t changed_ns; /* when the latest was seen */
  struct slot slots[SLOTS];
};

struct mapped {
  struct shard *shard;
  uint64_t budget;
  uint64_t bytes; /* of all windows, those under way too */
  unsigned jobs;
  uint64_t takes; /* of the shard, when the clock was read */
  int64_t now_ns;
  int64_t swept_ns, paused_ns;
  unsigned file_count;
  LIST_HEAD(, window) windows;
  LIST_HEAD(, mapped_file) files;
};

int mapped_open(struct mapped **out, struct shard *shard, uint64_t budget) {
  struct mapped *m = calloc(1, sizeof *m);
  if (!m) return -ENOMEM;
  m->shard = shard;
  m->budget = budget;
  *out = m;
  return 0;
}

static void count_bytes(struct mapped *m, int64_t more) {
  m->bytes += (uint64_t)more;
  atomic_fetch_add_explicit(&m->shard->mapped, (uint64_t)more, memory_order_relaxed);
}

static int64_t charge(size_t bytes) { return bytes < WINDOW_CHARGE ? WINDOW_CHARGE : (int64_t)bytes; }

static void window_free(struct window *w) {
  count_bytes(w->mapped, -charge(w->bytes));
  LIST_REMOVE(w, in_all);
  free(w);
}

bool mapped_is_idle(const struct mapped *m) { return m->jobs == 0; }

/* ---- what a file is ---- */

/* Read once for all requests that were taken together. */
static int64_t now_of(struct mapped *m) {
  if (m->takes != m->shard->takes) m->now_ns = shmq_now_ns();
  m->takes = m->shard->takes;
  return m->now_ns;
}

static bool has_changed(const struct mapped_file *f, const struct stat *st) {
  return f->length != st->st_size || st->st_ctim.tv_sec != f->changed.tv_sec ||
         st->st_ctim.tv_nsec != f->changed.tv_nsec;
}

/* Once for all requests that were taken before it is asked. */
static void ask(struct mapped_file *f, int fd) {
  const struct shard *shard = f->mapped->shard;
  struct stat st = {0};
  if (f->asked == shard->takes) return;
  f->asked = shard->takes;
  f->asked_ns = now_of(f->mapped);
  if (fstat(fd, &st)) st.st_size = -1;
  if (st.st_size >= 0 && !has_changed(f, &st)) return;
  if (f->changes++) f->changed_ns = f->asked_ns;
  f->length = st.st_size;
  f->changed = st.st_ctim;
}

/* Has it been asked lately, and is it not beyond the end that it had then? */
static bool is_known(const struct mapped_file *f, uint64_t end) {
  return now_of(f->mapped) - f->asked_ns < ask_ns && f->length >= 0 && end <= (uint64_t)f->length;
}

static bool has_rested(const struct mapped_file *f) {
  return !f->changed_ns || now_of(f->mapped) - f->changed_ns >= rest_ns;
}

/* ---- unmapping ---- */

static int unmap(struct io_op *op) {
  const struct window *w = op->buffer;
  return munmap(w->at, w->bytes) ? -errno : 0;
}

static void unmapped(struct io_op *op, int result) {
  struct window *w = op->buffer;
  (void)result;
  w->mapped->jobs--;
  window_free(w);
}

static void start_job(struct window *w, int (*call)(struct io_op *),
                      void (*done)(struct io_op *, int)) {
  w->mapped->jobs++;
  w->op = (struct io_op){.what = IO_CALL, .fd = w->op.fd, .buffer = w, .call = call, .done = done};
  io_submit(w->mapped->shard->io, &w->op);
}

static void give_up(struct window *w) {
  w->slot->window = NULL;
  w->slot = NULL;
  if (!w->ready) return; /* whoever hands it over looks */
  w->ready = false;
  start_job(w, unmap, unmapped);
}

/* Let go what was not read for a while. */
static void sweep(struct mapped *m) {
  int64_t now = shmq_now_ns();
  if (now - m->swept_ns < sweep_ns) return;
  m->swept_ns = now;
  struct window *w, *next;
  for (w = LIST_FIRST(&m->windows); w; w = next) {
    next = LIST_NEXT(w, in_all);
    if (!w->ready) continue;
    if (!w->used) give_up(w);
    w->used = false;
  }
}

/* ---- mapping: on a helper thread ---- */

static int lock(struct window *w) {
  w->at = mmap(NULL, w->bytes, PROT_READ, MAP_SHARED, w->op.fd, (off_t)w->offset);
  if (w->at == MAP_FAILED) return -ENODEV;
  if (mlock(w->at, w->bytes) == 0) return 0;
  int error = errno;
  (void)munmap(w->at, w->bytes);
  return -error;
}

static int map(struct io_op *op) {
  struct window *w = op->buffer;
  int rc = lock(w);
  close(op->fd);
  op->fd = -1;
  return rc;
}

/* There may be no more memory to lock, or no such pages, or no helper: the kernel does not always tell which. */
static void not_mapped(struct window *w) {
  struct mapped *m = w->mapped;
  if (w->op.fd >= 0) close(w->op.fd);
  if (w->slot) w->slot->window = NULL;
  window_free(w);
  m->paused_ns = shmq_now_ns();
  sweep(m); /* others may make room below a limit that is not ours */
}

static void mapped_now(struct io_op *op, int result) {
  struct window *w = op->buffer;
  w->mapped->jobs--;
  if (result < 0)
    not_mapped(w);
  else if (w->slot)
    w->ready = w->used = true;
  else
    start_job(w, unmap, unmapped);
}

static bool has_room(struct mapped *m, int64_t more) {
  if (m->bytes + (uint64_t)more > m->budget) {
    sweep(m);
    return false;
  }
  return !m->paused_ns || shmq_now_ns() - m->paused_ns >= pause_ns;
}

static void start_mapping(struct mapped_file *f, struct slot *slot, int fd) {
  struct mapped *m = f->mapped;
  uint64_t offset = slot->number << WINDOW_BITS;
  if (f->length < 0 || (uint64_t)f->length <= offset) return;
  uint64_t bytes = (uint64_t)f->length - offset;
  if (bytes > WINDOW_BYTES) bytes = WINDOW_BYTES;
  if (!has_room(m, charge(bytes))) return;
  struct window *w = calloc(1, sizeof *w);
  int own = w ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
  if (own < 0) {
    free(w);
    return;
  }
  w->mapped = m;
  w->slot = slot;
  w->offset = offset;
  w->bytes = bytes;
  w->changes = f->changes;
  w->op.fd = own;
  slot->window = w;
  LIST_INSERT_HEAD(&m->windows, w, in_all);
  count_bytes(m, charge(bytes));
  start_job(w, map, mapped_now);
}

/* ---- files ---- */

void mapped_file_add(struct mapped *m, const struct session *session, void **place) {
  struct mapped_file *f = m->budget && m->file_count < FILES_MOST ? calloc(1, sizeof *f) : NULL;
  *place = f;
  if (!f) return;
  m->file_count++;
  f->mapped = m;
  f->session = session;
  f->place = place;
  LIST_INSERT_HEAD(&m->files, f, in_all);
}

void mapped_file_forget(struct mapped_file *f) {
  for (int i = 0; i < SLOTS; i++)
    if (f->slots[i].window) give_up(f->slots[i].window);
  f->mapped->file_count--;
  LIST_REMOVE(f, in_all);
  *f->place = NULL;
  free(f);
}

void mapped_leave(struct mapped *m, const struct session *session) {
  struct mapped_file *f, *next;
  for (f = LIST_FIRST(&m->files); f; f = next) {
    next = LIST_NEXT(f, in_all);
    if (f->session == session) mapped_file_forget(f);
  }
}

void mapped_close(struct mapped *m) {
  struct mapped_file *f;
  struct window *w, *next;
  for (w = LIST_FIRST(&m->windows); w; w = next) {
    next = LIST_NEXT(w, in_all);
    if (!w->ready) continue; /* a helper still has it, and the process ends */
    (void)munmap(w->at, w->bytes);
    window_free(w);
  }
  while ((f = LIST_FIRST(&m->files))) {
    LIST_REMOVE(f, in_all);
    *f->place = NULL;
    free(f);
  }
  if (mapped_is_idle(m)) free(m);
}

/* ---- reading ---- */

/* A file ends in zeros in its last page, whenever it was cut (M1). What was copied is the client's as well: who changes it only fools himself. */
static bool ends_in_zero(const unsigned char *copied, size_t bytes) { return bytes && !copied[bytes - 1]; }

ssize_t mapped_read(struct mapped_file *f, int fd, void *to, size_t bytes, uint64_t offset) {
  const struct slot *slot = &f->slots[(offset >> WINDOW_BITS) % SLOTS];
  struct window *w = slot->window;
  if (!w || !w->ready || slot->number != offset >> WINDOW_BITS) return -EAGAIN;
  if (!is_known(f, offset + bytes)) ask(f, fd);
  if (w->changes != f->changes) return -EAGAIN; /* M2 */
  if (offset >= (uint64_t)f->length) return 0;
  if (bytes > (uint64_t)f->length - offset) bytes = (size_t)((uint64_t)f->length - offset);
  size_t skip = (size_t)(offset - w->offset);
  if (skip + bytes > w->bytes) return -EAGAIN;
  unsigned cut = cut_pages();
  atomic_signal_fence(memory_order_seq_cst);
  memcpy(to, w->at + skip, bytes);
  atomic_signal_fence(memory_order_seq_cst);
  if (cut_pages() != cut) { /* M3: it has a page of ours now */
    give_up(w);
    return -EAGAIN;
  }
  if (ends_in_zero(to, bytes)) ask(f, fd);
  if (w->changes != f->changes) return -EAGAIN;
  w->used = true;
  return (ssize_t)bytes;
}

void mapped_seen(struct mapped_file *f, int fd, uint64_t offset) {
  uint64_t number = offset >> WINDOW_BITS;
  struct slot *slot = &f->slots[number % SLOTS];
  if (slot->number != number && !slot->window) *slot = (struct slot){.number = number};
  if (++slot->reads < HOT_READS) return;
  slot->reads = 0;
  ask(f, fd);
  bool quiet = slot->changes == f->changes && has_rested(f);
  slot->changes = f->changes;
  if (!slot->window && quiet)
    start_mapping(f, slot, fd);
  else if (slot->window && slot->number != number)
    sweep(f->mapped);
  else if (quiet && slot->window && slot->window->ready && slot->window->changes != f->changes)
    give_up(slot->window); /* M2: it is locked anew */
}
