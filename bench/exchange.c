/* SPDX-License-Identifier: Apache-2.0
 *
 * Each message carries a number. Between two sides numbers must come in order; between more, the sum of what
 * was taken must be the sum of what was sent. A transport that fails this ends the program.
 */
#define _GNU_SOURCE
#include "exchange.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sides.h"

enum { WARM, TIMED, PHASES };

struct counter {
  _Alignas(LINES) _Atomic long taken;
};

/* What a side reports. */
struct score {
  _Alignas(LINES) long messages;
  long robbed_ns;
  uint64_t sum; /* of the numbers, both phases */
  double start, end;
};

/* Shared by the sides of a window. */
struct board {
  struct gate gate;
  struct counter counter[PHASES][2]; /* messages handed out to producers and consumers, in chunks */
  struct score side[SIDES_MAX];
};

struct run {
  const struct exchange *what;
  struct board *board;
  struct channel channels[2]; /* ping-pong answers on the second */
  long total[PHASES];
};

struct side {
  const struct run *run;
  struct channel channels[2];
  int number;
  bool producer, pair;
  unsigned char *data;
  uint64_t next; /* number of the next message */
  uint64_t sum;
};

/* ---- numbers ---- */

#define NUMBER_BITS 48 /* the rest says which producer */

static size_t number_bytes(size_t n) { return n < sizeof(uint64_t) ? n : sizeof(uint64_t); }

static void put_number(struct side *s, unsigned char *at, size_t n) {
  uint64_t number = s->next++ | (uint64_t)s->number << NUMBER_BITS;
  memcpy(at, &number, number_bytes(n));
  s->sum += number;
}

static void take_number(struct side *s, const unsigned char *at, size_t n) {
  uint64_t number = 0;
  memcpy(&number, at, number_bytes(n));
  s->sum += number;
  if (!s->pair || number == s->next++) return;
  fprintf(stderr, "bench: %s: message %" PRIu64 " came when %" PRIu64 " was due\n",
          s->channels[0].transport->name, number, s->next - 1);
  abort();
}

/* ---- what the sides do ---- */

static void ping(struct side *s, long total) {
  struct channel *there = &s->channels[0], *back = &s->channels[1];
  size_t n = there->shape.bytes;
  for (long i = 0; i < total; i++) {
    uint64_t sent = s->next;
    put_number(s, s->data, n);
    there->transport->send(there, s->data, n);
    back->transport->receive(back, s->data, n);
    s->next = sent;
    take_number(s, s->data, n);
  }
}

static void pong(struct side *s, long total) {
  struct channel *there = &s->channels[0], *back = &s->channels[1];
  size_t n = there->shape.bytes;
  for (long i = 0; i < total; i++) {
    there->transport->receive(there, s->data, n);
    take_number(s, s->data, n);
    back->transport->send(back, s->data, n);
  }
}

/* Shares of the total that one side works off before it asks for more. A pair needs no counter to share. */
#define CHUNK 256

static long take_chunk(const struct side *s, _Atomic long *counter, long total) {
  long want = s->pair ? total : CHUNK;
  long at = atomic_fetch_add_explicit(counter, want, memory_order_relaxed);
  return at >= total ? 0 : at + want > total ? total - at : want;
}

static int smaller(long left, int batch) { return left < batch ? (int)left : batch; }

static int send_some(struct side *s, struct channel *c, long left) {
  size_t n = c->shape.bytes;
  int want = c->transport->send_batch ? smaller(left, s->run->what->batch) : 1;
  if (want == 1) {
    put_number(s, s->data, n);
    c->transport->send(c, s->data, n);
    return 1;
  }
  uint64_t first = s->next, sum = s->sum;
  for (int i = 0; i < want; i++) put_number(s, s->data + (size_t)i * n, n);
  int sent = c->transport->send_batch(c, s->data, n, want);
  if (sent == want) return sent;
  s->next = first, s->sum = sum; /* count only those that went */
  for (int i = 0; i < sent; i++) put_number(s, s->data + (size_t)i * n, n);
  return sent;
}

static int receive_some(struct side *s, struct channel *c, long left) {
  size_t n = c->shape.bytes;
  int want = c->transport->receive_batch ? smaller(left, s->run->what->batch) : 1, got = 1;
  if (want == 1)
    c->transport->receive(c, s->data, n);
  else
    got = c->transport->receive_batch(c, s->data, n, want);
  for (int i = 0; i < got; i++) take_number(s, s->data + (size_t)i * n, n);
  return got;
}

static long stream(struct side *s, int phase) {
  _Atomic long *counter = &s->run->board->counter[phase][s->producer].taken;
  struct channel *c = &s->channels[0];
  long done = 0, chunk;
  while ((chunk = take_chunk(s, counter, s->run->total[phase])) > 0) {
    for (long i = 0; i < chunk;) i += (s->producer ? send_some : receive_some)(s, c, chunk - i);
    done += chunk;
  }
  if (s->producer && c->transport->flush) c->transport->flush(c);
  return done;
}

static long work(struct side *s, int phase) {
  long total = s->run->total[phase];
  if (s->run->what->workload == WORKLOAD_STREAM) return stream(s, phase);
  (s->producer ? ping : pong)(s, total);
  return total;
}

/* ---- a side ---- */

/* Nanoseconds that this thread stood ready and another had its CPU. */
static long robbed_ns(void) {
  long delay = 0;
  FILE *f = fopen("/proc/thread-self/schedstat", "re");
  if (f && fscanf(f, "%*u %ld", &delay) != 1) delay = 0;
  if (f) fclose(f);
  return delay;
}

static int channel_count(const struct exchange *e) {
  return e->workload == WORKLOAD_PING_PONG ? 2 : 1;
}

static void attach(struct side *s) {
  memcpy(s->channels, s->run->channels, sizeof s->channels);
  for (int i = 0; i < channel_count(s->run->what); i++) {
    struct channel *c = &s->channels[i];
    if (!c->transport->attach || c->transport->attach(c, s->producer == (i == 0)) == 0) continue;
    fprintf(stderr, "bench: %s: attach failed\n", c->transport->name);
    abort();
  }
}

/* The warm-up goes once round the queue and more, so that no page is touched for the first time in the window. */
static void run_side(void *context, int number) {
  const struct run *run = context;
  const struct exchange *e = run->what;
  size_t bytes = e->shape.bytes * (size_t)e->batch;
  struct side s = {.run = run,
                   .number = number,
                   .producer = number < (int)e->shape.producers,
                   .pair = e->shape.producers + e->shape.consumers == 2,
                   .data = aligned_alloc(64, (bytes + 127) / 64 * 64)};
  struct score *score = &run->board->side[number];
  if (!s.data) abort();
  memset(s.data, 1, bytes);
  placement_pin(placement_cpu(number));
  attach(&s);
  work(&s, WARM);
  long before = robbed_ns();
  gate_pass(&run->board->gate);
  score->start = window_now();
  score->messages = work(&s, TIMED);
  score->end = window_now();
  score->robbed_ns = robbed_ns() - before;
  score->sum = s.sum;
  for (int i = 0; i < channel_count(e); i++)
    if (s.channels[i].transport->detach) s.channels[i].transport->detach(&s.channels[i]);
  free(s.data);
}

/* ---- what came of it ---- */

/* All sides of one kind take from the same total until it is used up, so a share is a rate. */
static double slowest_to_fastest(const struct score *side, int n) {
  double least = (double)side[0].messages, most = least;
  for (int i = 1; i < n; i++) {
    double messages = (double)side[i].messages;
    if (messages < least) least = messages;
    if (messages > most) most = messages;
  }
  return most > 0 ? least / most : 0;
}

static uint64_t sum_of(const struct score *side, int n) {
  uint64_t sum = 0;
  for (int i = 0; i < n; i++) sum += side[i].sum;
  return sum;
}

#define ROBBED_SHARE 0.02 /* of a window's time; a tick's housekeeping is no more */

static void summarise(const struct run *run, struct window *out) {
  const struct exchange *e = run->what;
  const struct score *side = run->board->side;
  int producers = (int)e->shape.producers, n = producers + (int)e->shape.consumers;
  double start = side[0].start, end = side[0].end;
  long robbed = 0;
  for (int i = 0; i < n; i++) {
    if (side[i].start < start) start = side[i].start;
    if (side[i].end > end) end = side[i].end;
    robbed += side[i].robbed_ns;
  }
  long total = run->total[TIMED];
  out->value = e->workload == WORKLOAD_PING_PONG ? (end - start) * 1e9 / (double)total
                                                 : (double)total / (end - start);
  double of_producers = slowest_to_fastest(side, producers),
         of_consumers = slowest_to_fastest(side + producers, n - producers);
  out->fairness = of_producers < of_consumers ? of_producers : of_consumers;
  if (n == 2 && !e->shape.sleeping && (double)robbed > ROBBED_SHARE * 1e9 * (end - start))
    out->ok = false;
  if (e->workload == WORKLOAD_STREAM &&
      sum_of(side, producers) != sum_of(side + producers, n - producers)) {
    fprintf(stderr, "bench: %s: what was taken is not what was sent\n", e->transport->name);
    abort();
  }
}

/* ---- a window ---- */

static bool make(const struct exchange *e, struct run *run, int *made) {
  for (*made = 0; *made < channel_count(e); ++*made) {
    run->channels[*made] =
        (struct channel){.transport = e->transport, .shape = e->shape, .number = *made};
    if (e->transport->make(&run->channels[*made]) != 0) return false;
  }
  return true;
}

static bool exchange(const struct exchange *e, long count, struct window *out) {
  long warm = 2 * (long)e->shape.depth;
  struct run run = {.what = e, .board = shared_memory(sizeof *run.board), .total = {warm, count}};
  int made = 0, n = (int)(e->shape.producers + e->shape.consumers);
  bool ok = run.board && make(e, &run, &made) &&
            sides_run(&run.board->gate, n, e->transport->threads, run_side, &run);
  if (ok) summarise(&run, out);
  for (int i = 0; i < made; i++)
    if (e->transport->destroy) e->transport->destroy(&run.channels[i]);
  shared_memory_free(run.board, sizeof *run.board);
  return ok;
}

static double elapsed(const struct exchange *e, long count, double value) {
  return e->workload == WORKLOAD_PING_PONG ? value * 1e-9 * (double)count : (double)count / value;
}

/* The count that takes about the time asked for: fourfold trials until one lasts an eighth of it. */
static bool find_count(struct exchange *e, double seconds) {
  for (long count = e->workload == WORKLOAD_PING_PONG ? 200 : 2000;; count *= 4) {
    struct window trial = {0};
    if (!exchange(e, count, &trial)) return false;
    double took = elapsed(e, count, trial.value);
    if (took < seconds / 8) continue;
    e->count = (long)((double)count * seconds / took) + 1;
    return true;
  }
}

bool exchange_window(void *what, double seconds, struct window *out) {
  struct exchange *e = what;
  if (e->count == 0 && !find_count(e, seconds)) return false;
  if (!exchange(e, e->count, out)) return false;
  /* The next window is as long as this one should have been: the placement may have changed since the trial. */
  e->count = (long)((double)e->count * seconds / elapsed(e, e->count, out->value)) + 1;
  return true;
}
