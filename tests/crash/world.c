/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const mode_names[MODE_COUNT] = {"mpmc", "spmc", "mpsc", "spsc"};
const char *const state_names[STATE_COUNT] = {"empty",  "one",    "full",     "wrap",
                                              "block",  "warm",   "returned", "held",
                                              "asleep", "sleeps", "contended"};

void fault(struct world *w, uint64_t *count, const char *format, ...) {
  va_list args;
  char text[256];
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  ++*count;
  if (*count <= 4) fprintf(stderr, "FAULT %s: %s\n", w->where, text);
}

/* ---- messages and the ledger ---- */

uint32_t cell_bytes = 40, small_bytes = 24;

uint32_t message_size(const struct world *w) { return w->state == STATE_BLOCK ? LARGE : small_bytes; }

static uint64_t mixed(uint64_t id, uint32_t i) {
  uint64_t x = (id + 1) * UINT64_C(0x9e3779b97f4a7c15) + i;
  return (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}

void message_fill(unsigned char *data, uint64_t id, uint32_t size) {
  memcpy(data, &id, 8);
  for (uint32_t i = 8; i + 8 <= size; i += 8) {
    uint64_t word = mixed(id, i);
    memcpy(data + i, &word, 8);
  }
}

uint64_t message_id(const void *data, size_t size) {
  uint64_t id, word;
  if (size != small_bytes && size != LARGE) return 0;
  memcpy(&id, data, 8);
  for (uint32_t i = 8; i + 8 <= size; i += 8) {
    memcpy(&word, (const unsigned char *)data + i, 8);
    if (word != mixed(id, i)) return 0;
  }
  return id;
}

uint64_t ledger_new(struct world *w, int by, uint32_t size) {
  if (w->next_id == MESSAGES_MAX) return 0;
  w->entries[w->next_id] = (struct entry){.size = size, .by = (uint8_t)by};
  return w->next_id++;
}

void ledger_allow(struct world *w, uint64_t id, int min, int max) {
  w->entries[id].min = (uint8_t)min;
  w->entries[id].max = (uint8_t)max;
}

void ledger_doubt(struct world *w, uint64_t id) { w->entries[id].min = 0; }

void ledger_taken(struct world *w, uint64_t id) {
  if (w->entries[id].taken)
    fault(w, &w->tally->duplicated, "message %lu was taken by two victims", (unsigned long)id);
  w->entries[id].taken = true;
  ledger_allow(w, id, 0, 0);
}

void ledger_seen(struct world *w, int queue, uint64_t id, uint32_t attempts) {
  if (id == 0 || id >= w->next_id) {
    fault(w, &w->tally->lost, "a message was delivered damaged (id %lu)", (unsigned long)id);
    return;
  }
  struct entry *e = &w->entries[id];
  e->seen++;
  if (attempts > 1 || queue < 0) return; /* redelivered: its place in the order is gone */
  uint64_t *last = &w->last_seen[queue][e->by];
  if (id < *last)
    fault(w, &w->tally->other, "message %lu of one producer came after %lu", (unsigned long)id,
          (unsigned long)*last);
  *last = id;
}

/* ---- the peer ---- */

static int put_as(struct world *w, shmq *queue, int by, int64_t deadline) {
  unsigned char data[BLOCK_BYTES];
  uint32_t size = message_size(w);
  uint64_t id = ledger_new(w, by, size);
  message_fill(data, id, size);
  int rc = shmq_put(queue, data, size, deadline);
  ledger_allow(w, id, rc == 0, rc == 0);
  return rc;
}

int peer_put(struct world *w, shmq *queue, int64_t deadline) {
  return put_as(w, queue, BY_PEER, deadline);
}

static int take_as(struct world *w, shmq *queue, int64_t deadline) {
  shmq_message m;
  int rc = shmq_lease(queue, &m, deadline);
  if (rc < 0) return rc;
  int order = queue == w->main ? 0 : w->call->buries ? -1 : 1; /* the dead come as they are found */
  ledger_seen(w, order, message_id(m.data, m.size), m.attempts);
  rc = shmq_ack(queue, &m);
  if (rc < 0) fault(w, &w->tally->other, "ack by the living: %s", shmq_strerror(rc));
  return rc;
}

int peer_take(struct world *w, shmq *queue, int64_t deadline) {
  return take_as(w, queue, deadline);
}

static bool single(const struct world *w, uint32_t side) {
  bool producer = w->mode == MODE_SPMC || w->mode == MODE_SPSC;
  bool consumer = w->mode == MODE_MPSC || w->mode == MODE_SPSC;
  return (w->call->side & side) != 0 && ((side & MAIN_TAKE) != 0 ? consumer : producer);
}

void peer_act(struct world *w, unsigned pick) {
  bool may_put = !single(w, MAIN_PUT);
  bool may_take = !single(w, MAIN_TAKE);
  if (may_put && pick % 3 != 1) peer_put(w, w->main, SHMQ_NOWAIT);
  if (may_take && pick % 3 != 0) peer_take(w, w->main, SHMQ_NOWAIT);
  if (w->call->side & OUT_PUT) peer_take(w, w->out, SHMQ_NOWAIT);
}

/* ---- building a world ---- */

int world_create(const struct world *w) {
  static const uint32_t flags[MODE_COUNT] = {
      [MODE_SPMC] = SHMQ_SINGLE_PRODUCER,
      [MODE_MPSC] = SHMQ_SINGLE_CONSUMER,
      [MODE_SPSC] = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER,
  };
  shmq_queue_options queues[2] = {
      {.name = "main", .capacity = CAPACITY, .message_bytes = cell_bytes, .flags = flags[w->mode]},
      {.name = "out", .capacity = CAPACITY, .message_bytes = cell_bytes, .flags = flags[w->mode]},
  };
  shmq_options options = {.participants = PARTICIPANTS,
                          .blocks = BLOCKS,
                          .block_bytes = BLOCK_BYTES,
                          .queues = queues,
                          .queue_count = 2};
  if (w->call->options) w->call->options(&options, queues);
  return shmq_create(w->name, &options);
}

/* The raw bytes, to see which instructions write to them. */
static int world_map(struct world *w) {
  char path[64];
  struct stat st;
  snprintf(path, sizeof path, "/shmq.%s", w->name);
  int fd = shm_open(path, O_RDONLY, 0);
  if (fd < 0) return -errno;
  if (fstat(fd, &st) == 0) {
    void *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    w->image = at == MAP_FAILED ? NULL : at;
    w->image_bytes = (size_t)st.st_size;
  }
  close(fd);
  return w->image == NULL ? -ENOMEM : 0;
}

uint64_t world_image(void *world) {
  const struct world *w = world;
  uint64_t sum[4] = {1, 2, 3, 4}, word;
  for (size_t i = 0; i + 32 <= w->image_bytes; i += 32)
    for (size_t k = 0; k < 4; k++) {
      memcpy(&word, w->image + i + 8 * k, 8);
      sum[k] = (sum[k] ^ word) * UINT64_C(0x9e3779b97f4a7c15);
      sum[k] ^= sum[k] >> 32;
    }
  return sum[0] ^ sum[1] * 3 ^ sum[2] * 5 ^ sum[3] * 7;
}

/* Messages from before. */
struct fill {
  int put, take, give_back, put_again;
};

static struct fill fill_of(const struct world *w) {
  bool takes = (w->call->side & MAIN_TAKE) != 0, steps = (w->call->side & OUT_PUT) != 0;
  switch (w->state) {
  case STATE_ONE:
  case STATE_BLOCK: return (struct fill){.put = 1};
  case STATE_FULL: return (struct fill){.put = CAPACITY};
  case STATE_WRAP: return (struct fill){.put = 3, .take = 3, .put_again = takes ? 2 : 0};
  case STATE_RETURNED: return (struct fill){.put = 2, .give_back = 2};
  case STATE_WARM:
  case STATE_HELD:
  case STATE_CONTENDED: return (struct fill){.put = 2};
  case STATE_ASLEEP: return (struct fill){.put = steps ? 2 : takes ? CAPACITY : 0};
  case STATE_SLEEPS: return (struct fill){.put = takes ? 0 : CAPACITY};
  default: return (struct fill){0};
  }
}

/* Put by somebody who has left in good order and holds no role any more. */
static int prepare_queue(struct world *w) {
  struct fill fill = fill_of(w);
  shmq_message m[CAPACITY];
  shmq_segment *segment;
  shmq *queue;
  if (fill.put == 0) return 0;
  int rc = shmq_attach(&segment, w->name);
  if (rc < 0) return rc;
  rc = shmq_open_in(&queue, segment, "main", 0);
  for (int i = 0; i < fill.put && rc >= 0; i++) rc = put_as(w, queue, BY_PREPARER, SHMQ_NOWAIT);
  for (int i = 0; i < fill.take && rc >= 0; i++) rc = take_as(w, queue, SHMQ_NOWAIT);
  for (int i = 0; i < fill.give_back && rc >= 0; i++) rc = shmq_lease(queue, &m[i], SHMQ_NOWAIT);
  for (int i = 0; i < fill.give_back && rc >= 0; i++) rc = shmq_nack(queue, &m[i]);
  for (int i = 0; i < fill.put_again && rc >= 0; i++)
    rc = put_as(w, queue, BY_PREPARER, SHMQ_NOWAIT);
  shmq_close(queue);
  shmq_detach(segment);
  return rc;
}

/* STATE_HELD: the peer has leased the first message and reserved a cell behind the last. */
static int peer_hold(struct world *w) {
  int rc = 0;
  if (!single(w, MAIN_TAKE)) rc = shmq_lease(w->main, &w->peer_lease, SHMQ_NOWAIT);
  if (rc < 0 || single(w, MAIN_PUT)) return rc;
  w->peer_reserved_id = ledger_new(w, BY_PEER, message_size(w));
  rc = shmq_reserve(w->main, message_size(w), &w->peer_reservation, SHMQ_NOWAIT);
  if (rc == 0) message_fill(w->peer_reservation.data, w->peer_reserved_id, message_size(w));
  return rc;
}

static int open_peer(struct world *w) {
  int rc = shmq_attach(&w->segment, w->name);
  if (rc < 0) return rc;
  if ((rc = shmq_join_segment(w->segment, "peer", NULL)) < 0) return rc;
  if ((rc = shmq_open_in(&w->main, w->segment, "main", 0)) < 0) return rc;
  if ((rc = shmq_open_in(&w->out, w->segment, "out", 0)) < 0) return rc;
  return shmq_view_open(&w->view, w->name);
}

int world_adopt(struct world *w) {
  int rc = world_map(w);
  return rc < 0 ? rc : open_peer(w);
}

static bool absent(const struct world *w) { return w->call->creates && w->state == STATE_EMPTY; }

int world_open(struct world *w) {
  memset(w->entries, 0, sizeof w->entries);
  memset(w->last_seen, 0, sizeof w->last_seen);
  memset(w->page, 0, sizeof *w->page);
  memset(w->second, 0, sizeof *w->second);
  memset(&w->peer_lease, 0, sizeof w->peer_lease);
  memset(&w->peer_reservation, 0, sizeof w->peer_reservation);
  w->page->traced = w->second->traced = 1;
  w->own = OWN_ID;
  w->next_id = OWN_MAX + 1;
  for (int i = 1; i <= OWN_MAX; i++) w->entries[i].by = BY_VICTIM;
  w->peer_reserved_id = 0;
  w->peer_created = false;
  w->sleeper = 0;
  w->segment = NULL;
  w->main = w->out = NULL;
  w->view = NULL;
  w->image = NULL;
  w->image_bytes = 0;
  if (absent(w)) return 0;

  int rc = world_create(w);
  if (rc == 0) rc = prepare_queue(w);
  if (rc == 0) rc = world_adopt(w);
  if (rc == 0 && w->state == STATE_HELD) rc = peer_hold(w);
  return rc;
}

void world_close(struct world *w) {
  if (w->sleeper > 0) {
    kill(w->sleeper, SIGKILL);
    waitpid(w->sleeper, NULL, 0);
  }
  shmq_view_close(w->view);
  shmq_close(w->main);
  shmq_close(w->out);
  shmq_detach(w->segment);
  if (w->image) munmap((void *)(uintptr_t)w->image, w->image_bytes);
  shmq_unlink(w->name);
}

/* ---- the victim ---- */

static void warm_up(struct world *w, struct actor *a) {
  unsigned char data[BLOCK_BYTES];
  if (w->call->side & MAIN_TAKE) (void)shmq_get(a->main, data, sizeof data, SHMQ_NOWAIT);
  if (w->call->side & MAIN_PUT) {
    message_fill(data, WARM_ID, a->size);
    (void)shmq_put(a->main, data, a->size, SHMQ_NOWAIT);
  }
}

void world_victim(void *world) {
  struct world *w = world;
  struct actor a = {.size = message_size(w)};
  a.deadline = w->state == STATE_SLEEPS ? shmq_after_ns(20 * PATIENCE_NS) : SHMQ_NOWAIT;
  if (!absent(w)) {
    if (shmq_attach(&a.segment, w->name) < 0) _exit(10);
    if (shmq_open_in(&a.main, a.segment, "main", SHMQ_NOSPIN) < 0) _exit(11);
    if (shmq_open_in(&a.out, a.segment, "out", SHMQ_NOSPIN) < 0) _exit(12);
    if (!w->call->joins && shmq_join_segment(a.segment, "victim", NULL) < 0) _exit(13);
  }
  if (w->state == STATE_WARM && w->own == OWN_ID) warm_up(w, &a);
  if (w->call->prepare) w->call->prepare(w, &a);
  victim_begin(w->page);
  w->call->act(w, &a);
  victim_end(w->page);
  if (w->call->leaves) return;
  shmq_close(a.main);
  shmq_close(a.out);
  shmq_detach(a.segment);
}

/* The same call by somebody else, with messages of its own. */
void world_twin(void *world) {
  struct world *w = world;
  w->page = w->second;
  w->own = TWIN_ID;
  world_victim(w);
}

void world_wake_victim(void *world) {
  struct world *w = world;
  if (w->call->side & MAIN_TAKE)
    peer_put(w, w->main, SHMQ_NOWAIT);
  else
    peer_take(w, w->main, SHMQ_NOWAIT);
}
