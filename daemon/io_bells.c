/* SPDX-License-Identifier: Apache-2.0
 *
 * Futexes for the rungs that cannot wait on them: a helper thread sleeps on up to 127 words at once
 * (futex_waitv) and, when one is woken, makes the loop's eventfd readable.
 *
 * A word is the client's memory and goes with its session, after its operation is done or cancelled. A ringer
 * reads words only of operations that are still there, under the lock; the addresses that it hands to the
 * kernel may be gone by then, which the kernel answers with -EFAULT, and the changed `news` wakes it.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io_rung.h"

enum { WORDS = FUTEX_WAITV_MAX - 1 };

struct ringer {
  struct ringer *next;
  struct bells *bells;
  pthread_t thread;
  _Atomic uint32_t news; /* it has more or less to wait for than it knows */
  unsigned count;
  struct io_op *waiting[WORDS]; /* NULL: free */
};

struct bells {
  pthread_mutex_t lock; /* guards everything below, and all of the ringers but `news` */
  struct ringer *ringers;
  struct io_op *done, **done_end;
  bool closing;
  int wake;
};

static void ring(struct bells *b, struct io_op *op) {
  static const uint64_t one = 1;
  bool first = !b->done;
  op->next = NULL;
  op->result = 0;
  *b->done_end = op;
  b->done_end = &op->next;
  if (first && write(b->wake, &one, sizeof one) < 0) return; /* full: it is readable */
}

/* ---- a ringer's thread ---- */

struct asked {
  struct futex_waitv words[FUTEX_WAITV_MAX]; /* the first is `news` */
  unsigned slots[FUTEX_WAITV_MAX];
  unsigned count;
};

static void ask(struct ringer *r, struct asked *a) {
  a->words[0] = (struct futex_waitv){.val = atomic_load(&r->news),
                                     .uaddr = (uintptr_t)&r->news,
                                     .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG};
  a->count = 1;
  for (unsigned i = 0; i < WORDS; i++) {
    const struct io_op *op = r->waiting[i];
    if (!op) continue;
    a->slots[a->count] = i;
    a->words[a->count++] =
        (struct futex_waitv){.val = op->offset, .uaddr = (uintptr_t)op->buffer, .flags = FUTEX_32};
  }
}

static bool has_changed(const struct io_op *op) {
  return atomic_load((_Atomic uint32_t *)op->buffer) != (uint32_t)op->offset;
}

/* An operation that came into the slot meanwhile may be told for the one before: its session looks once in vain. */
static void collect(struct ringer *r, const struct asked *a, long woken) {
  for (unsigned i = 1; i < a->count; i++) {
    struct io_op *op = r->waiting[a->slots[i]];
    if (!op || !(woken == (long)i || has_changed(op))) continue;
    r->waiting[a->slots[i]] = NULL;
    r->count--;
    ring(r->bells, op);
  }
}

static void *ringer_main(void *argument) {
  struct ringer *r = argument;
  struct bells *b = r->bells;
  struct asked a;
  pthread_mutex_lock(&b->lock);
  while (!b->closing) {
    ask(r, &a);
    pthread_mutex_unlock(&b->lock);
    long woken = syscall(SYS_futex_waitv, a.words, a.count, 0, NULL, 0);
    pthread_mutex_lock(&b->lock);
    collect(r, &a, woken);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

static void tell(struct ringer *r) {
  atomic_fetch_add(&r->news, 1);
  syscall(SYS_futex, &r->news, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- ringers ---- */

/* Signals are for the thread that runs the loop. */
static int ringer_new(struct bells *b, struct ringer **out) {
  struct ringer *r = calloc(1, sizeof *r);
  sigset_t all, before;
  if (!r) return -ENOMEM;
  r->bells = b;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int rc = pthread_create(&r->thread, NULL, ringer_main, r);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (rc) {
    free(r);
    return -rc;
  }
  r->next = b->ringers;
  b->ringers = r;
  *out = r;
  return 0;
}

int bells_open(struct bells **out, int wake) {
  /* Nothing to wait for is an error of its own where the call exists. */
  if (syscall(SYS_futex_waitv, NULL, 0, 0, NULL, 0) < 0 && errno != EINVAL) return -errno;
  struct bells *b = calloc(1, sizeof *b);
  if (!b) return -ENOMEM;
  pthread_mutex_init(&b->lock, NULL);
  b->done_end = &b->done;
  b->wake = wake;
  *out = b;
  return 0;
}

void bells_close(struct bells *b) {
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  b->closing = true;
  pthread_mutex_unlock(&b->lock);
  for (struct ringer *r = b->ringers, *next; r; r = next) {
    next = r->next;
    tell(r);
    pthread_join(r->thread, NULL);
    free(r);
  }
  pthread_mutex_destroy(&b->lock);
  free(b);
}

static int put(struct bells *b, struct io_op *op) {
  struct ringer *r = b->ringers;
  while (r && r->count == WORDS) r = r->next;
  int rc = r ? 0 : ringer_new(b, &r);
  if (rc) return rc;
  unsigned i = 0;
  while (r->waiting[i]) i++;
  r->waiting[i] = op;
  r->count++;
  tell(r);
  return 0;
}

int bells_submit(struct bells *b, struct io_op *op) {
  pthread_mutex_lock(&b->lock);
  int rc = put(b, op);
  pthread_mutex_unlock(&b->lock);
  return rc;
}

static bool take_out(struct ringer *r, const struct io_op *op) {
  for (unsigned i = 0; i < WORDS; i++) {
    if (r->waiting[i] != op) continue;
    r->waiting[i] = NULL;
    r->count--;
    tell(r);
    return true;
  }
  return false;
}

bool bells_cancel(struct bells *b, const struct io_op *op) {
  bool found = false;
  pthread_mutex_lock(&b->lock);
  for (struct ringer *r = b->ringers; r && !found; r = r->next) found = take_out(r, op);
  pthread_mutex_unlock(&b->lock);
  return found;
}

struct io_op *bells_take(struct bells *b) {
  pthread_mutex_lock(&b->lock);
  struct io_op *list = b->done;
  b->done = NULL;
  b->done_end = &b->done;
  pthread_mutex_unlock(&b->lock);
  return list;
}
