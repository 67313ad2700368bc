/* SPDX-License-Identifier: Apache-2.0
 *
 * A server dies at each instruction of putting a request aside, for which another has to move as well, and the next
 * one finds each request that was not answered, once.
 */
#include <shmq/inspect.h>
#include <shmq/rpc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "step.h"

enum {
  ASKED = 20,
  ASIDE = 8,
  CELLS = 2 * ASIDE,
  PASSED = CELLS / 4 * 3, /* put aside and answered: the oldest lies as far back as it may */
  STATES_MAX = 200000
};

#define CHECK(condition, what)                                                              \
  do {                                                                                      \
    if (!(condition)) {                                                                     \
      fprintf(stderr, "%s:%d: state %u: %s: %s\n", __FILE__, __LINE__, state, what, #condition); \
      exit(1);                                                                              \
    }                                                                                       \
  } while (0)

static struct page {
  uint32_t phase, traced;
  int result;
} * page;

static uint32_t state; /* at which it dies */

/* ---- the world ---- */

static int fd;
static void *memory;
static size_t bytes;
static shmq_client *client;
static shmq_future *future[ASKED];

/* Every other one travels in a block. */
static void ask_all(void) {
  for (uint64_t i = 0; i < ASKED; i++) {
    shmq_ask a = {.op = 1, .value = {i, 0}, .room = i % 2 ? 1000 : 0};
    CHECK(shmq_request(client, &a, SHMQ_NOWAIT, &future[i]) == 0, "asking");
  }
}

static void begin(void) {
  const shmq_service_options o = {.credits = 32,
                                  .blocks = ASKED,
                                  .block_bytes = 1000,
                                  .redeliver = SHMQ_REDELIVER_ALWAYS,
                                  .aside = ASIDE,
                                  .single = 1};
  struct stat st;
  CHECK(shmq_service_create_memfd(&o, &fd) == 0 && fstat(fd, &st) == 0, "memory");
  bytes = (size_t)st.st_size;
  memory = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
  CHECK(memory != MAP_FAILED, "memory");
  CHECK(shmq_client_open_fd(&client, fd, 0) == 0, "the asker");
  ask_all();
}

static void end(void) {
  shmq_client_close(client);
  munmap(memory, bytes);
  close(fd);
}

static uint64_t image(void *unused) {
  uint64_t hash = 0;
  (void)unused;
  for (size_t i = 0; i < bytes / 8; i++) hash = (hash ^ ((const uint64_t *)memory)[i]) * UINT64_C(0x9e3779b97f4a7c15);
  return hash;
}

static void answer(shmq_incoming *in) {
  uint64_t value[2] = {in->header.value[0] + 1, 0};
  CHECK(shmq_reply_value(in, value, NULL, 0) == 0, "an answer");
}

/* ---- who dies ---- */

/* The first is kept all the time, and has to move as well when the last one comes. */
static void victim(void *unused) {
  static shmq_incoming in, oldest, kept;
  shmq_service *s;
  (void)unused;
  if (shmq_service_open_fd(&s, fd, SHMQ_NEVER_WAIT) || shmq_serve(s, &in, SHMQ_NOWAIT)) abort();
  if (shmq_reply_later(&in, &oldest)) abort();
  for (int i = 0; i < PASSED - 1; i++) {
    if (shmq_serve(s, &in, SHMQ_NOWAIT) || shmq_reply_later(&in, &kept)) abort();
    answer(&kept);
  }
  if (shmq_serve(s, &in, SHMQ_NOWAIT) || shmq_reply_later(&in, &kept)) abort();
  answer(&kept);
  if (shmq_serve(s, &in, SHMQ_NOWAIT)) abort();
  victim_begin(page);
  page->result = shmq_reply_later(&in, &kept);
  victim_end(page);
  pause();
}

/* ---- who comes after ---- */

static void check_memory(void) {
  shmq_view *view;
  shmq_audit audit;
  CHECK(shmq_view_open_fd(&view, fd) == 0 && shmq_view_audit(view, &audit) == 0, "looking");
  CHECK(!audit.leaked_blocks && !audit.damaged && !audit.unexplained && !audit.held_by_dead, "the memory");
  shmq_view_close(view);
}

static void survive(void) {
  static shmq_incoming in[ASKED], kept[ASKED];
  shmq_service *s;
  shmq_result r;
  uint32_t seen = 0;
  int n = 0;
  CHECK(shmq_service_open_fd(&s, fd, SHMQ_NEVER_WAIT) == 0, "the next server");
  CHECK(shmq_recover(shmq_service_segment(s)) >= 0, "recovery");
  for (; n < ASKED && shmq_serve(s, &in[n], SHMQ_NOWAIT) == 0; n++) {
    uint64_t number = in[n].header.value[0];
    CHECK(number < ASKED && !(seen >> number & 1), "taken twice");
    seen |= UINT32_C(1) << number;
    CHECK((in[n].attempts > 1) == (number == 0 || number == PASSED + 1), "attempts");
  }
  CHECK(n == ASKED - PASSED, "each that was not answered");
  for (int i = 0; i < n; i++) CHECK(shmq_reply_later(&in[i], &kept[i]) == 0, "keeping it again");
  for (int i = 0; i < n; i++) answer(&kept[i]);
  for (int i = 0; i < ASKED; i++) {
    CHECK(shmq_await(future[i], &r, SHMQ_NOWAIT) == 0 && r.value[0] == (uint64_t)i + 1, "its answer");
    shmq_future_free(future[i]);
  }
  shmq_client_stats stats;
  shmq_client_get_stats(client, &stats);
  CHECK(stats.dropped == 0, "one answer each");
  check_memory();
  shmq_service_close(s);
}

/* ---- all deaths ---- */

static void start(struct victim *v) {
  begin();
  *page = (struct page){.traced = 1};
  *v = (struct victim){.phase = &page->phase};
  CHECK(victim_start(v, victim, NULL) == 0, "the victim");
}

static void finish(struct victim *v) {
  victim_kill(v);
  survive();
  end();
}

/* Where the oldest of what is put aside stands. */
static uint64_t oldest(void) {
  shmq_view *view;
  uint64_t cursor = 0;
  shmq_cell_info cell = {0};
  CHECK(shmq_view_open_fd(&view, fd) == 0, "looking");
  while (shmq_view_next(view, 3, &cursor, &cell, NULL, 0) == 1 && cell.state != SHMQ_CELL_LEASED) continue;
  shmq_view_close(view);
  return cell.position;
}

static void record(struct path *path) {
  struct victim v;
  start(&v);
  CHECK(path_record(path, &v, image, NULL, STATES_MAX) == STOP_DONE, "the whole call");
  CHECK(page->result == 0 && oldest() == PASSED + 1, "both have moved");
  finish(&v);
}

static void die_at(const struct path *path, uint32_t n) {
  struct victim v;
  state = n;
  start(&v);
  enum stop stop = victim_hop(&v, path, n);
  CHECK(stop == STOP_AT || stop == STOP_DONE, "on its way");
  finish(&v);
}

int main(void) {
  struct path path = {0};
  page = mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return 1;
  record(&path);
  for (uint32_t n = 0; n < path.length; n++) die_at(&path, n);
  printf("%u instructions\n", path.length - 1);
  return 0;
}
