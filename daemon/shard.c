/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads of shards, and what one asks of another.
 */
#define _GNU_SOURCE
#include "shard.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "shmq/pin.h"

/* ---- sending ---- */

void shard_post(struct shard *to, struct post *post) {
  if (inbox_put(&to->inbox, post)) io_wake(to->io);
}

static void stay_stopped(struct daemon *d) {
  pthread_barrier_wait(&d->stopped);
  pthread_barrier_wait(&d->stopped);
}

static void run_errands(struct post *post) {
  struct shard *s = (struct shard *)((char *)post - offsetof(struct shard, errand));
  unsigned errands = atomic_exchange(&s->errands, 0);
  if (errands & ERRAND_DRAIN) shard_drain(s);
  if (errands & ERRAND_KNOW) resources_know_sessions(s);
  if (errands & ERRAND_STOP) stay_stopped(s->daemon);
}

/* Who finds none there sends the post. It has been taken by then, for they are cleared where it is delivered. */
void shard_ask(struct shard *s, enum errand errand) {
  if (atomic_fetch_or(&s->errands, errand)) return;
  s->errand.deliver = run_errands;
  shard_post(s, &s->errand);
}

void shards_ask_others(struct daemon *d, enum errand errand) {
  for (unsigned i = 1; i < d->shard_count; i++) shard_ask(&d->shards[i], errand);
}

/* ---- receiving ---- */

/* A shard that is sent something is likely to be sent more: it is polled as long as a session would be. */
int shard_deliver(struct shard *s) {
  int n = 0;
  struct post *post = inbox_take(&s->inbox);
  if (!post) return 0;
  s->takes++;
  shard_set_quiet(s, false); /* before anything that others can see comes of it */
  for (struct post *next; post; post = next, n++) {
    next = post->next;
    post->deliver(post);
  }
  s->awake_until_ns = shmq_after_ns(s->daemon->spin_ns);
  return n;
}

bool shard_may_sleep(struct shard *s) {
  return shmq_now_ns() >= s->awake_until_ns && inbox_sleep(&s->inbox);
}

/* ---- draining ---- */

void shard_set_quiet(struct shard *s, bool quiet) {
  bool was = atomic_load_explicit(&s->quiet, memory_order_relaxed);
  if (quiet == was) return;
  if (quiet) s->quiet_serial++;
  atomic_store_explicit(&s->quiet, quiet ? s->quiet_serial : 0, memory_order_release);
  if (quiet && s->index) shard_ask(s->daemon->shards, ERRAND_LOOK);
}

/* Who is quiet can be woken only by who is not, and says so before it sends anything on. So if each is in the same
 * quiet at a second look, all were between the two. */
bool shards_quiet(const struct daemon *d) {
  uint64_t seen[SHARDS_MAX];
  for (unsigned i = 0; i < d->shard_count; i++) {
    seen[i] = atomic_load_explicit(&d->shards[i].quiet, memory_order_acquire);
    if (!seen[i]) return false;
  }
  for (unsigned i = 0; i < d->shard_count; i++)
    if (atomic_load_explicit(&d->shards[i].quiet, memory_order_acquire) != seen[i]) return false;
  return true;
}

/* ---- threads ---- */

/* The machine was looked at before anybody was pinned, or there would be one CPU left to choose from. */
static int pin(const struct shard *s) {
  struct daemon *d = s->daemon;
  const char *places = section_text(d->settings, "pin");
  if (!d->machine) return 0;
  pthread_mutex_lock(&d->lock);
  int rc = shmq_pin_self(d->machine, places, s->index, NULL, NULL);
  if (rc < 0) say(SAY_ERROR, "pin %s: %s", places, shmq_pin_error(d->machine));
  pthread_mutex_unlock(&d->lock);
  return rc < 0 ? rc : 0;
}

static int open_here(struct shard *s) {
  const struct section *settings = s->daemon->settings;
  int rc = pin(s);
  if (rc) return rc;
  rc = io_open(&s->io, (enum io_rung)section_number(settings, "io"));
  if (rc)
    say(SAY_ERROR, "cannot set up I/O '%s': %s", section_text(settings, "io"), strerror(-rc));
  else if (s->daemon->shard_count > 1)
    io_watch_wakes(s->io);
  return rc;
}

/* A loop that cannot go on is the worker's end: the next one goes on with what it has left. */
static void *thread_main(void *argument) {
  struct shard *s = argument;
  char name[16];
  snprintf(name, sizeof name, "shmqd-shard-%u", s->index + 1);
  prctl(PR_SET_NAME, name);
  s->error = open_here(s);
  stay_stopped(s->daemon);
  if (shard_run(s)) _exit(EXIT_FAILURE);
  return NULL;
}

static int look_at_machine(struct daemon *d) {
  const char *places = section_text(d->settings, "pin");
  if (!*places || strcmp(places, "none") == 0) return 0;
  int rc = shmq_pin_open(&d->machine);
  if (rc) say(SAY_ERROR, "pin %s: %s", places, strerror(-rc));
  return rc;
}

static int start_threads(struct daemon *d) {
  for (unsigned i = 1; i < d->shard_count; i++) {
    int rc = pthread_create(&d->shards[i].thread, NULL, thread_main, &d->shards[i]);
    if (!rc) continue;
    say(SAY_ERROR, "a thread cannot be started: %s", strerror(rc));
    return -rc;
  }
  return 0;
}

static void make(struct daemon *d) {
  static struct shard shards[SHARDS_MAX];
  d->shards = shards;
  d->shard_count = (unsigned)section_number(d->settings, "shards");
  for (unsigned i = 0; i < d->shard_count; i++) {
    shards[i].daemon = d;
    shards[i].index = i;
  }
  pthread_mutex_init(&d->lock, NULL);
  pthread_barrier_init(&d->stopped, NULL, d->shard_count);
}

int shards_open(struct daemon *d) {
  make(d);
  int rc = look_at_machine(d);
  if (!rc) rc = start_threads(d);
  if (rc) return rc;
  d->shards->error = open_here(d->shards);
  pthread_barrier_wait(&d->stopped);
  shmq_pin_close(d->machine);
  for (unsigned i = 0; i < d->shard_count && !rc; i++) rc = d->shards[i].error;
  return rc;
}

void shards_stop(struct daemon *d) {
  shards_ask_others(d, ERRAND_STOP);
  pthread_barrier_wait(&d->stopped);
}

void shards_go(struct daemon *d) { pthread_barrier_wait(&d->stopped); }

void shards_end(struct daemon *d) {
  d->over = true;
  shards_ask_others(d, ERRAND_LOOK);
  for (unsigned i = 1; i < d->shard_count; i++) pthread_join(d->shards[i].thread, NULL);
}
