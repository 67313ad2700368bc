/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "os/futex_fd.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/futex.h"
#include "os/process.h"

/* Linux 6.7; not in Debian 12's headers. */
#define OP_FUTEX_WAIT 51
#define FUTEX_SIZE_U32 2
#define ENTRIES 2
#define UNORDERED_NS INT64_C(1000000)

struct ring {
  unsigned char *queues; /* submission and completion words, one mapping */
  size_t queues_bytes;
  struct io_uring_sqe *entries;
  struct io_uring_params params;
  bool waiting; /* a FUTEX_WAIT is under way */
};

struct helper {
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t armed;
  _Atomic uint32_t *word; /* NULL: nothing to wait for */
  uint32_t value;
  bool ordered;
  _Atomic uint32_t stop; /* and that is waited for as well */
};

struct shmq__futex_fd {
  int fd;
  pid_t owner; /* a forked child has no helper thread, and the ring is its parent's */
  bool with_thread;
  struct ring ring;
  struct helper helper;
};

/* ---- io_uring ---- */

static _Atomic uint32_t *ring_word(const struct ring *r, uint32_t offset) {
  return (_Atomic uint32_t *)(void *)(r->queues + offset);
}

static int ring_make(struct shmq__futex_fd *f) {
  struct ring *r = &f->ring;
  f->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &r->params);
  if (f->fd < 0) return -errno;
  uint32_t sq = r->params.sq_off.array + r->params.sq_entries * 4;
  uint32_t cq =
      r->params.cq_off.cqes + r->params.cq_entries * (uint32_t)sizeof(struct io_uring_cqe);
  r->queues_bytes = sq > cq ? sq : cq;
  void *queues =
      mmap(NULL, r->queues_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, IORING_OFF_SQ_RING);
  void *entries = mmap(NULL, r->params.sq_entries * sizeof(struct io_uring_sqe),
                       PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, IORING_OFF_SQES);
  r->queues = queues == MAP_FAILED ? NULL : queues;
  r->entries = entries == MAP_FAILED ? NULL : entries;
  return r->queues && r->entries ? 0 : -ENOMEM;
}

static void ring_free(struct ring *r) {
  if (r->queues) (void)munmap(r->queues, r->queues_bytes);
  if (r->entries) (void)munmap(r->entries, r->params.sq_entries * sizeof(struct io_uring_sqe));
}

/* Take all completions; the wait is over if there was one. Returns its result or 0. */
static int ring_reap(struct ring *r) {
  _Atomic uint32_t *head = ring_word(r, r->params.cq_off.head);
  _Atomic uint32_t *tail = ring_word(r, r->params.cq_off.tail);
  uint32_t mask = *(uint32_t *)(void *)(r->queues + r->params.cq_off.ring_mask);
  struct io_uring_cqe *cqes = (struct io_uring_cqe *)(void *)(r->queues + r->params.cq_off.cqes);
  uint32_t at = atomic_load_explicit(head, memory_order_relaxed);
  int result = 0;
  for (; at != atomic_load_explicit(tail, memory_order_acquire); at++) {
    result = cqes[at & mask].res;
    r->waiting = false;
  }
  atomic_store_explicit(head, at, memory_order_release);
  return result;
}

static void fill_wait(struct io_uring_sqe *sqe, _Atomic uint32_t *word, uint32_t value) {
  sqe->opcode = OP_FUTEX_WAIT;
  sqe->fd = FUTEX_SIZE_U32; /* FUTEX2 flags: 32 bits, shared */
  sqe->addr = (uint64_t)(uintptr_t)word;
  sqe->addr2 = value;
  sqe->addr3 = FUTEX_BITSET_MATCH_ANY;
}

static void fill_timeout(struct io_uring_sqe *sqe) {
  static const struct __kernel_timespec brief = {.tv_nsec = UNORDERED_NS};
  sqe->opcode = IORING_OP_TIMEOUT;
  sqe->addr = (uint64_t)(uintptr_t)&brief;
  sqe->len = 1;
}

/* The entry that ring_submit sends next, cleared. */
static struct io_uring_sqe *ring_entry(struct ring *r) {
  uint32_t mask = *(uint32_t *)(void *)(r->queues + r->params.sq_off.ring_mask);
  uint32_t tail = atomic_load_explicit(ring_word(r, r->params.sq_off.tail), memory_order_relaxed);
  ((uint32_t *)(void *)(r->queues + r->params.sq_off.array))[tail & mask] = tail & mask;
  return memset(&r->entries[tail & mask], 0, sizeof *r->entries);
}

static int ring_submit(struct shmq__futex_fd *f) {
  _Atomic uint32_t *tail = ring_word(&f->ring, f->ring.params.sq_off.tail);
  uint32_t at = atomic_load_explicit(tail, memory_order_relaxed);
  atomic_store_explicit(tail, at + 1, memory_order_release);
  return syscall(SYS_io_uring_enter, f->fd, 1, 0, 0, NULL, 0) < 0 ? -errno : 0;
}

static int ring_arm(struct shmq__futex_fd *f, _Atomic uint32_t *word, uint32_t value,
                    bool ordered) {
  struct ring *r = &f->ring;
  (void)ring_reap(r);
  if (r->waiting) return 0;
  if (ordered)
    fill_wait(ring_entry(r), word, value);
  else
    fill_timeout(ring_entry(r));
  int rc = ring_submit(f);
  r->waiting = rc == 0;
  return rc;
}

/* Closing alone ends the wait some time later, and until then it would catch wake-ups that are meant for others. */
static void ring_disarm(struct shmq__futex_fd *f) {
  if (!f->ring.queues) return;
  (void)ring_reap(&f->ring);
  if (!f->ring.waiting) return;
  ring_entry(&f->ring)->opcode = IORING_OP_ASYNC_CANCEL; /* what has user data 0, as all has */
  (void)ring_submit(f);
}

/* Does this kernel's ring know FUTEX_WAIT? Ask for a wait that must fail at once. */
static bool ring_works(struct shmq__futex_fd *f) {
  _Atomic uint32_t probe = 1;
  if (ring_arm(f, &probe, 0, true) < 0) return false;
  /* A value that differs completes with -EAGAIN inside the enter; an unknown opcode with -EINVAL. */
  return ring_reap(&f->ring) == -EAGAIN;
}

/* ---- helper thread ---- */

/* On the word, and on what tells us to stop: the word's memory may not be there any more by then. */
static int helper_wait(struct helper *h, _Atomic uint32_t *word, uint32_t value, int64_t until) {
  int rc = shmq__futex_waitv((struct shmq__futex_item[]){{word, value}, {&h->stop, 0}}, 2, until);
  return rc == -ENOSYS ? shmq__futex_wait(word, value, until) : rc;
}

static void *helper_main(void *argument) {
  struct shmq__futex_fd *f = argument;
  struct helper *h = &f->helper;
  pthread_mutex_lock(&h->lock);
  while (!h->stop) {
    _Atomic uint32_t *word = h->word;
    uint32_t value = h->value;
    if (!word) {
      pthread_cond_wait(&h->armed, &h->lock);
      continue;
    }
    int64_t until = h->ordered ? INT64_MAX : shmq__now_ns() + UNORDERED_NS;
    pthread_mutex_unlock(&h->lock);
    int rc = helper_wait(h, word, value, until);
    pthread_mutex_lock(&h->lock);
    if (rc == -EINTR || h->word != word || h->value != value) continue;
    uint64_t one = 1;
    h->word = NULL;
    (void)!write(f->fd, &one, sizeof one);
  }
  pthread_mutex_unlock(&h->lock);
  return NULL;
}

static int helper_make(struct shmq__futex_fd *f) {
  sigset_t all, old;
  f->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (f->fd < 0) return -errno;
  pthread_mutex_init(&f->helper.lock, NULL);
  pthread_cond_init(&f->helper.armed, NULL);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int rc = pthread_create(&f->helper.thread, NULL, helper_main, f);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  f->with_thread = rc == 0;
  return -rc;
}

static void helper_free(struct helper *h) {
  pthread_mutex_lock(&h->lock);
  h->stop = 1;
  _Atomic uint32_t *word = h->word;
  pthread_cond_signal(&h->armed);
  pthread_mutex_unlock(&h->lock);
  (void)shmq__futex_wake(&h->stop, INT32_MAX);
  /* Before Linux 5.16 it may be about to sleep on the word alone: wake until it has gone. */
  while (word && pthread_tryjoin_np(h->thread, NULL) == EBUSY) {
    (void)shmq__futex_wake(word, INT32_MAX);
    usleep(1000);
  }
  if (!word) (void)pthread_join(h->thread, NULL);
  pthread_mutex_destroy(&h->lock);
  pthread_cond_destroy(&h->armed);
}

static int helper_arm(struct shmq__futex_fd *f, _Atomic uint32_t *word, uint32_t value,
                      bool ordered) {
  struct helper *h = &f->helper;
  uint64_t drained;
  pthread_mutex_lock(&h->lock);
  if (h->word != word || h->value != value) {
    (void)!read(f->fd, &drained, sizeof drained);
    h->word = word;
    h->value = value;
    h->ordered = ordered;
    pthread_cond_signal(&h->armed);
  }
  pthread_mutex_unlock(&h->lock);
  return 0;
}

/* ---- both ---- */

bool shmq__futex_fd_inherited(const struct shmq__futex_fd *f) { return f->owner != getpid(); }

void shmq__futex_fd_free(struct shmq__futex_fd *f) {
  if (!f) return;
  bool ours = !shmq__futex_fd_inherited(f);
  if (ours && f->with_thread) helper_free(&f->helper);
  if (ours && !f->with_thread) ring_disarm(f);
  ring_free(&f->ring);
  if (f->fd >= 0) (void)close(f->fd);
  free(f);
}

int shmq__futex_fd_make(struct shmq__futex_fd **out, bool with_thread) {
  struct shmq__futex_fd *f = calloc(1, sizeof *f);
  if (!f) return -ENOMEM;
  f->fd = -1;
  f->owner = getpid();
  if (!with_thread && ring_make(f) == 0 && ring_works(f)) {
    *out = f;
    return 0;
  }
  ring_free(&f->ring);
  memset(&f->ring, 0, sizeof f->ring);
  if (f->fd >= 0) (void)close(f->fd);
  int rc = helper_make(f);
  if (rc < 0)
    shmq__futex_fd_free(f);
  else
    *out = f;
  return rc;
}

int shmq__futex_fd_descriptor(const struct shmq__futex_fd *f) { return f->fd; }

int shmq__futex_fd_arm(struct shmq__futex_fd *f, _Atomic uint32_t *word, uint32_t value,
                       bool ordered) {
  if (shmq__futex_fd_inherited(f)) return -ESTALE;
  return f->with_thread ? helper_arm(f, word, value, ordered) : ring_arm(f, word, value, ordered);
}
