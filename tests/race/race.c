/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads at work on one mapping, for the thread sanitizer; and, in every build, a ledger: each message is
 * settled exactly once, and a consumer sees each producer's in order where nothing is redelivered.
 *
 *   race CASE [MESSAGES]
 */
#include <pthread.h>
#include <stdarg.h>

#include "share.h"

enum { WORKERS_MAX = 8, PRODUCERS_MAX = 4, BLOCK_BYTES = 512 };

struct item {
  uint32_t producer, sequence, size, check;
};
enum { ITEM = sizeof(struct item) };

/* What a case is made of. */
enum how { BY_COPY, BY_BATCH, IN_PLACE, MORTAL, NO_ONE };
struct plan {
  const char *name;
  uint32_t flags;
  enum how producing, consuming;
  uint32_t producers, consumers;
  uint32_t stages;      /* between the two, by commit_all and forward */
  bool large;           /* messages in blocks as well */
  bool timed;           /* delayed and prioritised ones as well */
  uint32_t max_attempts;
  bool reopening;       /* somebody shuts down and reopens all the time */
};
static const struct plan plans[] = {
    {.name = "mpmc", .producing = BY_COPY, .consuming = BY_COPY, .producers = 3, .consumers = 3},
    {.name = "spsc", .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER, .producing = BY_COPY,
     .consuming = BY_COPY, .producers = 1, .consumers = 1},
    {.name = "spmc", .flags = SHMQ_SINGLE_PRODUCER, .producing = IN_PLACE, .consuming = IN_PLACE,
     .producers = 1, .consumers = 3},
    {.name = "mpsc", .flags = SHMQ_SINGLE_CONSUMER, .producing = BY_BATCH, .consuming = IN_PLACE,
     .producers = 3, .consumers = 1},
    {.name = "batch", .producing = BY_BATCH, .consuming = BY_BATCH, .producers = 2, .consumers = 2},
    {.name = "lease", .producing = IN_PLACE, .consuming = IN_PLACE, .producers = 2, .consumers = 3},
    {.name = "blocks", .producing = BY_COPY, .consuming = BY_COPY, .producers = 2, .consumers = 2,
     .large = true},
    {.name = "blocks-lease", .producing = IN_PLACE, .consuming = IN_PLACE, .producers = 2,
     .consumers = 2, .large = true},
    {.name = "stages", .producing = BY_COPY, .consuming = IN_PLACE, .producers = 2, .consumers = 2,
     .stages = 2, .large = true},
    {.name = "timed", .flags = SHMQ_TIMED, .producing = IN_PLACE, .consuming = IN_PLACE,
     .producers = 2, .consumers = 3, .timed = true, .large = true},
    {.name = "dead-letters", .producing = BY_COPY, .consuming = IN_PLACE, .producers = 2,
     .consumers = 3, .max_attempts = 2, .large = true},
    {.name = "recovery", .producing = MORTAL, .consuming = MORTAL, .producers = 2, .consumers = 2,
     .large = true},
    {.name = "recovery-spsc", .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER,
     .producing = MORTAL, .consuming = MORTAL, .producers = 1, .consumers = 1, .large = true},
    {.name = "recovery-stages", .producing = BY_COPY, .consuming = MORTAL, .producers = 2,
     .consumers = 2, .stages = 2, .large = true},
    {.name = "shutdown", .producing = BY_COPY, .consuming = BY_COPY, .producers = 2, .consumers = 2,
     .reopening = true},
};

static const struct plan *plan;
static uint32_t messages = 4000; /* of each producer */
static int fd;
static shmq_segment *base;
static _Atomic uint8_t *settled; /* producer x sequence: how often */
static _Atomic uint64_t settled_total;
static _Atomic bool over;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "%s: ", plan->name);
  vfprintf(stderr, format, args);
  fprintf(stderr, "\n");
  va_end(args);
  _exit(1);
}
static int must(int rc, const char *what) {
  if (rc < 0) fail("%s: %s", what, shmq_strerror(rc));
  return rc;
}

struct worker {
  pthread_t thread;
  void (*work)(struct worker *);
  uint32_t number;
  uint32_t random;
  shmq_segment *segment;
  shmq *in, *out;
  int64_t last[PRODUCERS_MAX]; /* for the order */
  uint64_t deaths;
};

static uint32_t pick(struct worker *w, uint32_t below) {
  w->random = w->random * 1664525u + 1013904223u;
  return (w->random >> 8) % below;
}

static void come(struct worker *w) {
  w->segment = attached_beside(fd, base);
  if (w->work == NULL) return;
  w->in = opened(w->segment, plan->stages ? "in" : "main");
  w->out = opened(w->segment, "main");
}
static void go(struct worker *w) {
  shmq_close(w->in);
  shmq_close(w->out);
  shmq_detach(w->segment);
}
static void drop_dead(struct worker *w) {
  w->deaths++;
  die_beside(w->segment);
  come(w);
}

/* ---- messages ---- */

static uint32_t check_of(const struct item *item) {
  return (item->producer + 1) * 2654435761u ^ item->sequence * 40503u ^ item->size;
}
static uint32_t size_of(uint32_t sequence) {
  if (plan->large && sequence % 3 == 0) return ITEM + sequence % (BLOCK_BYTES - ITEM);
  return ITEM + sequence % 17;
}
static void write_item(void *data, uint32_t producer, uint32_t sequence) {
  struct item item = {.producer = producer, .sequence = sequence, .size = size_of(sequence)};
  item.check = check_of(&item);
  memcpy(data, &item, ITEM);
  memset((char *)data + ITEM, (int)(sequence & 0xff), item.size - ITEM);
}
static struct item read_item(const void *data, size_t size) {
  struct item item;
  if (size < ITEM) fail("a message of %zu bytes", size);
  memcpy(&item, data, ITEM);
  if (item.size != size || item.check != check_of(&item) || item.producer >= plan->producers ||
      item.sequence >= messages)
    fail("a message that nobody wrote: %u %u %u", item.producer, item.sequence, item.size);
  for (size_t i = ITEM; i < size; i++)
    if (((const unsigned char *)data)[i] != (item.sequence & 0xff)) fail("torn bytes");
  return item;
}

/* In order only where nothing can come back: not after nacks, deaths, delays or shutdowns. */
static bool ordered(void) {
  return plan->consuming <= BY_BATCH && plan->producing != MORTAL && !plan->stages;
}
static void settle(struct worker *w, const struct item *item) {
  size_t at = (size_t)item->producer * messages + item->sequence;
  if (atomic_fetch_add(&settled[at], 1) != 0) fail("%u of %u twice", item->sequence, item->producer);
  if (ordered() && w->last[item->producer] >= (int64_t)item->sequence)
    fail("%u of %u after %ld", item->sequence, item->producer, (long)w->last[item->producer]);
  w->last[item->producer] = item->sequence;
  (void)atomic_fetch_add(&settled_total, 1);
}

/* A role whose holder has died is another's in a moment; until somebody has noticed it is refused. */
static bool refused(int rc) { return rc == -EBUSY && plan->producing == MORTAL; }

/* ---- producers ---- */

static shmq *target(const struct worker *w) { return w->in; }

static void produce_copy(struct worker *w) {
  unsigned char data[BLOCK_BYTES];
  for (uint32_t i = 0; i < messages;) {
    write_item(data, w->number, i);
    int rc = shmq_put(target(w), data, size_of(i), PATIENCE);
    if (rc == -EPIPE && plan->reopening) continue;
    must(rc, "put");
    i++;
  }
}

static void produce_batch(struct worker *w) {
  static const uint32_t most = 20;
  unsigned char data[20][BLOCK_BYTES];
  struct iovec iov[20];
  for (uint32_t i = 0; i < messages;) {
    uint32_t n = 1 + pick(w, most);
    if (n > messages - i) n = messages - i;
    for (uint32_t k = 0; k < n; k++) {
      write_item(data[k], w->number, i + k);
      iov[k] = (struct iovec){data[k], size_of(i + k)};
    }
    i += (uint32_t)must(shmq_put_batch(target(w), iov, (int)n, PATIENCE), "put_batch");
  }
}

/* Also gives reservations up, and delays and ranks messages where the queue can. */
static void produce_in_place(struct worker *w) {
  for (uint32_t i = 0; i < messages;) {
    shmq_message m;
    shmq_put_options o = {.priority = i % 3};
    if (plan->timed && i % 5 == 0) o.not_before_ns = shmq_after_ns(pick(w, 2000) * 1000);
    must(shmq_reserve_with(target(w), size_of(i), &m, plan->timed ? &o : NULL, PATIENCE), "reserve");
    if (pick(w, 8) == 0) {
      must(shmq_abort(target(w), &m), "abort");
      continue;
    }
    write_item(m.data, w->number, i);
    must(shmq_commit(target(w), &m), "commit");
    i++;
  }
}

/* Dies now and then with reservations in hand, which therefore never were messages. */
static void produce_mortal(struct worker *w) {
  for (uint32_t i = 0; i < messages;) {
    shmq_message m[3];
    uint32_t n = 1 + pick(w, 3);
    if (n > messages - i) n = messages - i;
    uint32_t got = 0;
    int rc = 0;
    while (got < n && rc == 0) {
      rc = shmq_reserve(target(w), size_of(i + got), &m[got], got ? SHMQ_NOWAIT : PATIENCE);
      got += rc == 0;
    }
    if (refused(rc)) continue;
    if (got == 0) must(rc, "reserve");
    bool dies = pick(w, 64) == 0;
    uint32_t lives = dies ? pick(w, got + 1) : got;
    for (uint32_t k = 0; k < lives; k++) {
      write_item(m[k].data, w->number, i + k);
      must(shmq_commit(target(w), &m[k]), "commit");
    }
    i += lives;
    if (dies) drop_dead(w);
  }
}

/* ---- consumers: until the queue is shut down for good ---- */

static bool finished(int rc, const char *what) {
  if (rc == -EPIPE && over) return true;
  if (rc == -EPIPE && plan->reopening) return false;
  if (rc == -ETIMEDOUT && over) return true;
  must(rc, what);
  return false;
}

static void consume_copy(struct worker *w) {
  unsigned char data[BLOCK_BYTES];
  for (;;) {
    /* Buffers of all sizes: a message that does not fit stays for another try. */
    size_t room = pick(w, 4) == 0 ? pick(w, BLOCK_BYTES) : BLOCK_BYTES;
    ssize_t n = shmq_get(w->out, data, room, PATIENCE);
    if (n == -EMSGSIZE) continue;
    if (finished((int)n, "get")) return;
    if (n < 0) continue;
    struct item item = read_item(data, (size_t)n);
    settle(w, &item);
  }
}

static void consume_batch(struct worker *w) {
  unsigned char data[20][BLOCK_BYTES];
  for (;;) {
    struct iovec iov[20];
    for (int k = 0; k < 20; k++) iov[k] = (struct iovec){data[k], BLOCK_BYTES};
    int n = shmq_get_batch(w->out, iov, 20, PATIENCE);
    if (finished(n, "get_batch")) return;
    for (int k = 0; k < n; k++) {
      struct item item = read_item(data[k], iov[k].iov_len);
      settle(w, &item);
    }
  }
}

/* Settled when acked and not before; nacked ones come back. */
static void consume_in_place(struct worker *w) {
  for (;;) {
    shmq_message m[4];
    int n = shmq_lease_batch(w->out, m, 1 + (int)pick(w, 4), PATIENCE);
    if (finished(n, "lease")) return;
    for (int k = n - 1; k >= 0; k--) {
      struct item item = read_item(m[k].data, m[k].size);
      if (pick(w, 6) == 0) {
        int64_t delay = plan->timed ? pick(w, 500000) : 0;
        must(shmq_nack_with(w->out, &m[k], delay, NULL), "nack");
        continue;
      }
      settle(w, &item);
      must(shmq_ack(w->out, &m[k]), "ack");
    }
  }
}

static void consume_mortal(struct worker *w) {
  for (;;) {
    shmq_message m[4];
    int n = shmq_lease_batch(w->out, m, 1 + (int)pick(w, 4), PATIENCE);
    if (refused(n)) continue;
    if (finished(n, "lease")) return;
    bool dies = pick(w, 64) == 0;
    int lives = dies ? (int)pick(w, (uint32_t)n + 1) : n;
    for (int k = 0; k < lives; k++) {
      struct item item = read_item(m[k].data, m[k].size);
      settle(w, &item);
      must(shmq_ack(w->out, &m[k]), "ack");
    }
    if (dies) drop_dead(w);
  }
}

/* Dead letters are messages like others: who is buried is settled there. */
static void consume_dead(struct worker *w) {
  shmq *dead = opened(w->segment, "dead");
  unsigned char data[BLOCK_BYTES];
  for (;;) {
    ssize_t n = shmq_get(dead, data, sizeof data, shmq_after_ns(20 * MILLISECOND));
    if (n == -ETIMEDOUT && !over) {
      shmq__sweep_dead_letters(w->out); /* those that found no room */
      continue;
    }
    if (n == -ETIMEDOUT || finished((int)n, "get dead")) break;
    struct item item = read_item(data, (size_t)n);
    settle(w, &item);
  }
  shmq_close(dead);
}

/* ---- stages ---- */

static void stage(struct worker *w) {
  while (!over) {
    shmq_message in[4], out[4];
    shmq_step steps[8];
    int n = shmq_lease_batch(w->in, in, 1 + (int)pick(w, 4), shmq_after_ns(50 * MILLISECOND));
    if (n == -ETIMEDOUT || n == -EPIPE) continue;
    must(n, "lease for a stage");
    if (pick(w, 4) == 0) {
      for (int k = 0; k < n; k++) must(shmq_forward(w->in, &in[k], w->out, PATIENCE), "forward");
      continue;
    }
    int got = 0;
    while (got < n && shmq_reserve(w->out, in[got].size, &out[got], got ? SHMQ_NOWAIT : PATIENCE) == 0)
      got++;
    for (int k = 0; k < got; k++) {
      memcpy(out[k].data, in[k].data, in[k].size);
      steps[2 * k] = (shmq_step){w->out, &out[k]};
      steps[2 * k + 1] = (shmq_step){w->in, &in[k]};
    }
    if (plan->consuming == MORTAL && pick(w, 64) == 0) {
      drop_dead(w); /* neither the leases nor the reservations happened */
      continue;
    }
    if (got > 0) must(shmq_commit_all(steps, 2 * got), "commit_all");
    for (int k = got; k < n; k++) must(shmq_nack(w->in, &in[k]), "nack");
  }
}

/* ---- bystanders ---- */

static void reopen(struct worker *w) {
  while (!over) {
    usleep(300);
    must(shmq_shutdown(w->out), "shutdown");
    (void)shmq_drain(w->out, SHMQ_NOWAIT);
    must(shmq_reopen(w->out), "reopen");
  }
}

/* Looks at everything that may be looked at while others work, and recovers the dead. */
static void watch(struct worker *w) {
  while (!over) {
    usleep(500);
    (void)shmq_depth(w->out);
    (void)shmq_join(w->out, SHMQ_NOWAIT);
    shmq_wait_item item = {.queue = w->out, .want = SHMQ_READABLE | SHMQ_WRITABLE};
    (void)shmq_wait(&item, 1, SHMQ_NOWAIT);
    must(shmq_recover(w->segment), "recover");
  }
}

/* ---- the run ---- */

static void *worker_main(void *argument) {
  struct worker *w = argument;
  come(w);
  w->work(w);
  go(w);
  return NULL;
}

static void create(void) {
  shmq_queue_options queues[3] = {
      {.name = "main", .capacity = 32, .message_bytes = 40, .flags = plan->flags,
       .priorities = plan->timed ? 3 : 1, .max_attempts = plan->max_attempts,
       .dead_letter = plan->max_attempts ? "dead" : NULL},
      {.name = "in", .capacity = 16, .message_bytes = 40},
      {.name = "dead", .capacity = 4, .message_bytes = 40}};
  shmq_options o = {.queues = queues, .queue_count = 3, .participants = 16,
                    .blocks = plan->large ? 24 : 0, .block_bytes = BLOCK_BYTES};
  fd = fresh_fd(&o);
  base = attached(fd);
}

int main(int argc, char **argv) {
  static void (*const producing[])(struct worker *) = {produce_copy, produce_batch,
                                                       produce_in_place, produce_mortal};
  static void (*const consuming[])(struct worker *) = {consume_copy, consume_batch,
                                                       consume_in_place, consume_mortal};
  struct worker workers[16] = {{0}};
  uint32_t n = 0, waiting = 0, lasting = 0;
  for (size_t i = 0; argc > 1 && i < sizeof plans / sizeof *plans; i++)
    if (strcmp(plans[i].name, argv[1]) == 0) plan = &plans[i];
  if (!plan) {
    fprintf(stderr, "usage: race CASE [MESSAGES]; cases:");
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) fprintf(stderr, " %s", plans[i].name);
    fprintf(stderr, "\n");
    return 2;
  }
  if (argc > 2) messages = (uint32_t)atoi(argv[2]);
  create();
  settled = calloc((size_t)plan->producers * messages, 1);

  for (uint32_t i = 0; i < plan->producers; i++)
    workers[n++] = (struct worker){.work = producing[plan->producing], .number = i};
  waiting = n;
  if (plan->reopening) workers[n++] = (struct worker){.work = reopen};
  lasting = n;
  for (uint32_t i = 0; i < plan->consumers; i++)
    workers[n++] = (struct worker){.work = consuming[plan->consuming]};
  for (uint32_t i = 0; i < plan->stages; i++) workers[n++] = (struct worker){.work = stage};
  if (plan->max_attempts) workers[n++] = (struct worker){.work = consume_dead};
  workers[n++] = (struct worker){.work = watch};
  for (uint32_t i = 0; i < n; i++) {
    workers[i].random = 12345 + i * 77;
    for (int k = 0; k < PRODUCERS_MAX; k++) workers[i].last[k] = -1;
    pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]);
  }

  for (uint32_t i = 0; i < waiting; i++) pthread_join(workers[i].thread, NULL);
  uint64_t expected = (uint64_t)plan->producers * messages;
  while (settled_total < expected) usleep(1000); /* a loss hangs here, and the test's time-out tells */
  over = true;
  shmq *q = opened(base, "main");
  uint64_t deaths = 0;
  /* Nobody reopens what is shut down for good: a consumer that slept through both would wait on. */
  for (uint32_t i = waiting; i < lasting; i++) pthread_join(workers[i].thread, NULL);
  must(shmq_shutdown(q), "shutdown");
  for (uint32_t i = lasting; i < n; i++) pthread_join(workers[i].thread, NULL);
  for (uint32_t i = 0; i < n; i++) deaths += workers[i].deaths;
  must(shmq_recover(base), "recover");
  if (settled_total != expected) fail("%lu settled of %lu", settled_total, expected);
  must(shmq_join(q, SHMQ_NOWAIT), "join");
  shmq_audit a = audit(fd);
  if (a.held_by_dead || a.leaked_blocks || a.damaged || a.unexplained || a.dead_participants)
    fail("audit: held %lu, leaked %lu, damaged %lu, unexplained %lu", a.held_by_dead,
         a.leaked_blocks, a.damaged, a.unexplained);
  if (plan->large && blocks_free(fd) != 24) fail("%u blocks free of 24", blocks_free(fd));
  printf("%s: %lu messages, %lu deaths\n", plan->name, expected, deaths);
  shmq_close(q);
  shmq_detach(base);
  close(fd);
  free((void *)settled);
  return 0;
}
