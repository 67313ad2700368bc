/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "window.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIDES_MAX 32

double window_now(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Shared by the sides of a window. */
struct board {
  _Atomic int ready, go;
  _Atomic long sent;     /* messages handed out to producers, in chunks */
  _Atomic long received;
  long total;
  struct {
    long messages, robbed_ns;
    double start, end;
  } side[SIDES_MAX];
};

struct side {
  struct board *board;
  struct channel channels[2]; /* ping-pong answers on the second */
  const struct job *job;
  int number;
  bool producer;
};

#define ROBBED_SHARE 0.02 /* of a window's time; a tick's housekeeping is no more */

/* Nanoseconds that this thread stood ready and another had its CPU. */
static long robbed_ns(void) {
  long delay = 0;
  FILE *f = fopen("/proc/thread-self/schedstat", "r");
  if (f && fscanf(f, "%*u %ld", &delay) != 1) delay = 0;
  if (f) fclose(f);
  return delay;
}

static void check(const void *data, uint64_t want, size_t n) {
  uint64_t have;
  if (n < sizeof have) return;
  memcpy(&have, data, sizeof have);
  if (have == want) return;
  fprintf(stderr, "bench: message %lu came when %lu was due\n", have, want);
  abort();
}

/* ---- what the sides do ---- */

static void ping(struct side *s, unsigned char *data, size_t n) {
  for (uint64_t i = 0; i < (uint64_t)s->board->total; i++) {
    memcpy(data, &i, sizeof i);
    s->channels[0].transport->send(&s->channels[0], data, n);
    s->channels[1].transport->receive(&s->channels[1], data, n);
    check(data, i, n);
  }
}

static void pong(struct side *s, unsigned char *data, size_t n) {
  for (long i = 0; i < s->board->total; i++) {
    s->channels[0].transport->receive(&s->channels[0], data, n);
    s->channels[1].transport->send(&s->channels[1], data, n);
  }
}

/* Shares of the total that one side works off before it asks for more: a chunk each time. */
#define CHUNK 256

static long take_chunk(_Atomic long *counter, long total) {
  long at = atomic_fetch_add_explicit(counter, CHUNK, memory_order_relaxed);
  return at >= total ? 0 : at + CHUNK > total ? total - at : CHUNK;
}

static long stream_out(struct side *s, unsigned char *data, size_t n, bool numbered) {
  struct channel *c = &s->channels[0];
  long done = 0, chunk;
  while ((chunk = take_chunk(&s->board->sent, s->board->total)) > 0) {
    for (long i = 0; i < chunk;) {
      int k = 1;
      uint64_t number = (uint64_t)(done + i);
      if (s->job->batch > 1 && c->transport->send_batch) {
        int want = chunk - i < s->job->batch ? (int)(chunk - i) : s->job->batch;
        for (int j = 0; numbered && j < want; j++, number++)
          memcpy(data + (size_t)j * n, &number, sizeof number < n ? sizeof number : n);
        k = c->transport->send_batch(c, data, n, want);
      } else {
        if (numbered) memcpy(data, &number, sizeof number < n ? sizeof number : n);
        c->transport->send(c, data, n);
      }
      i += k;
    }
    done += chunk;
  }
  return done;
}

static long stream_in(struct side *s, unsigned char *data, size_t n, bool numbered) {
  struct channel *c = &s->channels[0];
  long done = 0, chunk;
  while ((chunk = take_chunk(&s->board->received, s->board->total)) > 0) {
    for (long i = 0; i < chunk;) {
      int k = 1;
      if (s->job->batch > 1 && c->transport->receive_batch) {
        int want = chunk - i < s->job->batch ? (int)(chunk - i) : s->job->batch;
        k = c->transport->receive_batch(c, data, n, want);
      } else {
        c->transport->receive(c, data, n);
      }
      for (int j = 0; numbered && j < k; j++) check(data + (size_t)j * n, (uint64_t)(done + i + j), n);
      i += k;
    }
    done += chunk;
  }
  return done;
}

/* ---- sides as processes or threads ---- */

static void pin_side(const struct side *s) {
  int cpus[2];
  placement_cpus(cpus);
  const struct shape *shape = &s->job->shape;
  if (shape->producers + shape->consumers == 2) placement_pin(cpus[s->producer ? 0 : 1]);
  else placement_pin(cpus[s->number % 2]);
}

static void side_run(struct side *s) {
  const struct job *job = s->job;
  size_t n = job->shape.bytes;
  unsigned char *data = aligned_alloc(64, (n * (size_t)job->batch + 127) / 64 * 64);
  bool pair = job->shape.producers == 1 && job->shape.consumers == 1;
  memset(data, 1, n * (size_t)job->batch);
  pin_side(s);
  int channels = job->workload == WORKLOAD_PING_PONG ? 2 : 1;
  for (int i = 0; i < channels; i++)
    if (s->channels[i].transport->attach &&
        s->channels[i].transport->attach(&s->channels[i], s->producer == (i == 0)) < 0) {
      fprintf(stderr, "bench: %s: attach failed\n", job->transport->name);
      abort();
    }
  atomic_fetch_add(&s->board->ready, 1);
  while (!atomic_load_explicit(&s->board->go, memory_order_acquire)) sched_yield();
  long before = robbed_ns(), messages = s->board->total;
  double start = window_now();
  if (job->workload == WORKLOAD_PING_PONG) (s->producer ? ping : pong)(s, data, n);
  else messages = (s->producer ? stream_out : stream_in)(s, data, n, pair);
  s->board->side[s->number].end = window_now();
  s->board->side[s->number].start = start;
  s->board->side[s->number].messages = messages;
  s->board->side[s->number].robbed_ns = robbed_ns() - before;
  for (int i = 0; i < channels; i++)
    if (s->channels[i].transport->detach) s->channels[i].transport->detach(&s->channels[i]);
  free(data);
}

static void *side_thread(void *side) {
  side_run(side);
  return NULL;
}

static void start_and_wait(struct side *sides, int n, bool threads) {
  pthread_t thread[SIDES_MAX];
  pid_t pid[SIDES_MAX];
  for (int i = 0; i < n; i++) {
    if (threads) {
      pthread_create(&thread[i], NULL, side_thread, &sides[i]);
    } else if ((pid[i] = fork()) == 0) {
      side_run(&sides[i]);
      _exit(0);
    }
  }
  while (atomic_load(&sides[0].board->ready) < n) usleep(200);
  atomic_store_explicit(&sides[0].board->go, 1, memory_order_release);
  for (int i = 0; i < n; i++)
    if (threads) pthread_join(thread[i], NULL);
    else waitpid(pid[i], NULL, 0);
}

/* ---- one window ---- */

static double slowest_to_fastest(const struct board *b, int from, int to) {
  double least = 0, most = 0;
  for (int i = from; i < to; i++) {
    double rate = (double)b->side[i].messages;
    if (i == from || rate < least) least = rate;
    if (i == from || rate > most) most = rate;
  }
  return most > 0 ? least / most : 0;
}

static void summarise(const struct job *job, const struct board *b, int n, struct window *out) {
  double start = b->side[0].start, end = 0;
  for (int i = 0; i < n; i++) {
    if (b->side[i].start < start) start = b->side[i].start;
    if (b->side[i].end > end) end = b->side[i].end;
    out->robbed_ns += b->side[i].robbed_ns;
  }
  int producers = (int)job->shape.producers;
  out->value = job->workload == WORKLOAD_PING_PONG ? (end - start) * 1e9 / (double)b->total
                                                   : (double)b->total / (end - start);
  double p = slowest_to_fastest(b, 0, producers), c = slowest_to_fastest(b, producers, n);
  out->fairness = p < c ? p : c;
}

static bool run_messages(const struct job *job, long total, struct window *out) {
  int n = (int)(job->shape.producers + job->shape.consumers);
  int channels = job->workload == WORKLOAD_PING_PONG ? 2 : 1;
  struct side sides[SIDES_MAX] = {0};
  struct channel made[2] = {0};
  struct board *board =
      mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  bool ok = n <= SIDES_MAX;
  board->total = total;
  int done = 0;
  for (; ok && done < channels; done++) {
    made[done] = (struct channel){.transport = job->transport, .shape = job->shape, .number = done};
    ok = job->transport->make(&made[done]) == 0;
  }
  for (int i = 0; ok && i < n; i++) {
    sides[i] = (struct side){
        .board = board, .job = job, .number = i, .producer = i < (int)job->shape.producers};
    memcpy(sides[i].channels, made, sizeof made);
  }
  if (ok) {
    start_and_wait(sides, n, job->transport->threads);
    summarise(job, board, n, out);
  }
  for (int i = 0; i < done; i++)
    if (job->transport->destroy) job->transport->destroy(&made[i]);
  munmap(board, sizeof *board);
  return ok;
}

bool window_run(const struct job *job, struct window *out) {
  struct window trial = {0};
  long total = job->workload == WORKLOAD_PING_PONG ? 200 : 2000;
  /* Find the count that takes about the time asked for. */
  for (double elapsed = 0; elapsed < job->seconds / 8; total *= 4) {
    if (!run_messages(job, total, &trial)) return false;
    elapsed = job->workload == WORKLOAD_PING_PONG ? trial.value * 1e-9 * (double)total
                                                  : (double)total / trial.value;
    if (elapsed >= job->seconds / 8) {
      total = (long)((double)total * job->seconds / elapsed);
      break;
    }
  }
  *out = (struct window){0};
  double before = placement_probe();
  if (!run_messages(job, total, out)) return false;
  double after = placement_probe();
  out->placement = placement_of(before);
  bool still = after < before * 1.25 && before < after * 1.25;
  bool pair = job->shape.producers + job->shape.consumers == 2;
  out->ok = still && (!pair || job->shape.sleeping || (double)out->robbed_ns <= ROBBED_SHARE * 1e9 * job->seconds);
  return true;
}
