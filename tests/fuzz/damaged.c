/* SPDX-License-Identifier: Apache-2.0
 *
 * Damage that was once not noticed, word by word: what the fuzzers and the hostile peer found, or what a
 * reader of the library feared, kept so that it stays found. Each case is a function in the list below.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "core/segment.h"
#include "guard.h"
#include "shmq/inspect.h"

/* ---- a segment, and the words of its first queue ---- */

struct stage {
  int fd;
  shmq_segment *segment; /* the victim's */
  shmq *queue;
  shmq_segment *peer; /* whose words are changed */
};

static void stage_open(struct stage *t, const shmq_queue_options *queues, uint32_t count,
                       uint32_t blocks) {
  shmq_options o = {.queues = queues, .queue_count = count, .participants = 4, .blocks = blocks,
                    .block_bytes = 64};
  check(shmq_create_memfd(&o, &t->fd) == 0 && shmq_attach_fd(&t->segment, t->fd) == 0 &&
            shmq_open_in(&t->queue, t->segment, NULL, 0) == 0 &&
            shmq_attach_fd(&t->peer, t->fd) == 0,
        "the stage cannot be set");
  guard_poison(t->segment);
}

static void stage_close(struct stage *t) {
  shmq_close(t->queue);
  shmq_detach(t->segment);
  shmq_detach(t->peer);
  close(t->fd);
}

static const shmq__ring_view *first_ring(const struct stage *t) { return &t->peer->rings[0]; }

static void set_cell(const struct stage *t, uint64_t position, uint64_t word) {
  a_store(cell_word(first_ring(t), position), word);
}
static uint64_t get_cell(const struct stage *t, uint64_t position) {
  return a_load(cell_word(first_ring(t), position));
}
static void set_reference(const struct stage *t, uint64_t position, uint32_t index, uint32_t length) {
  struct shmq__block_ref ref = {.index = index, .length = length};
  memcpy(cell_payload(first_ring(t), position), &ref, sizeof ref);
}

static void put(const struct stage *t, const char *text) {
  check(shmq_put(t->queue, text, strlen(text), SHMQ_NOWAIT) == 0, "put");
}

static const shmq_queue_options with_dead_letters[] = {
    {.capacity = 4, .message_bytes = 16, .max_attempts = 2, .flags = SHMQ_TIMED, .dead_letter = "dead"},
    {.name = "dead", .capacity = 4, .message_bytes = 16}};

static void check_no_dead_letters(const struct stage *t) {
  shmq *dead;
  check(shmq_open_in(&dead, t->segment, "dead", 0) == 0, "the dead letter queue");
  check(shmq_depth(dead) == 0, "bytes that are no message became a dead letter");
  shmq_close(dead);
}

/* ---- cases ---- */

/* A message at its limit whose length is beyond its cell must not be copied to the dead letter queue. */
static void dead_letter_of_any_length(struct stage *t) {
  stage_open(t, with_dead_letters, 2, 2);
  put(t, "x");
  shmq_message m;
  check(shmq_lease(t->queue, &m, SHMQ_NOWAIT) == 0, "lease");
  check(shmq_nack(t->queue, &m) == 0, "nack");
  uint64_t w = get_cell(t, 0);
  set_cell(t, 0, cell_make(cell_turn(w), 60, 0, 2, false, CELL_RETURNED));
  check(shmq_get(t->queue, NULL, 0, SHMQ_NOWAIT) == -EAGAIN, "a damaged message was delivered");
  set_cell(t, 0, cell_make(cell_turn(w), LENGTH_MASK, 0, 2, false, CELL_RETURNED));
  (void)a_add(&t->peer->queues[0].returned_seq, 1u);
  (void)shmq_get(t->queue, NULL, 0, SHMQ_NOWAIT);
  check_no_dead_letters(t);
}

/* The same for one that has expired, and for a reference to a block that is not there. */
static void expired_and_damaged(struct stage *t) {
  char data[64];
  stage_open(t, with_dead_letters, 2, 2);
  shmq_put_options o = {.expires_ns = shmq_now_ns()};
  for (uint64_t p = 0; p < 2; p++) {
    check(shmq_put_with(t->queue, "x", 1, &o, SHMQ_NOWAIT) == 0, "put");
    uint64_t w = get_cell(t, p);
    bool in_block = p == 1;
    set_cell(t, p, cell_make(cell_turn(w), 60, 0, 0, in_block, CELL_READY));
    if (in_block) set_reference(t, p, UINT32_MAX, 60);
    ssize_t got = shmq_get(t->queue, data, sizeof data, SHMQ_NOWAIT);
    check(got == -EBADMSG || got == -EAGAIN, "a damaged message was delivered");
  }
  check_no_dead_letters(t);
}

/* What a view says of a message is what could be there. */
static void view_of_any_length(struct stage *t) {
  char data[256];
  uint64_t cursor = 0;
  shmq_view *view;
  shmq_cell_info cell;
  shmq_audit audit;
  stage_open(t, &(shmq_queue_options){.capacity = 4, .message_bytes = 16}, 1, 2);
  put(t, "a");
  put(t, "b");
  set_cell(t, 0, cell_make(0, LENGTH_MASK, 0, 0, false, CELL_READY));
  set_cell(t, 1, cell_make(0, 8, 0, 0, true, CELL_READY));
  set_reference(t, 1, 7, 64);
  check(shmq_view_open_fd(&view, t->fd) == 0, "view");
  while (shmq_view_next(view, 0, &cursor, &cell, data, sizeof data) == 1)
    check(cell.state == SHMQ_CELL_DAMAGED && cell.size == 0, "damage that a view does not see");
  check(shmq_view_audit(view, &audit) == 0 && audit.damaged == 2, "damage that an audit does not count");
  shmq_view_close(view);
}

/* A queue that is its own dead letter queue would never be empty. */
static void its_own_dead_letter_queue(struct stage *t) {
  shmq_segment *segment;
  stage_open(t, with_dead_letters, 2, 0);
  struct shmq__queue_config configs[2] = {t->peer->queues[0].config, t->peer->queues[1].config};
  configs[0].dead_letter = t->peer->queues[0].config.dead_letter = 0;
  t->peer->header->checksum = shmq__checksum(t->peer->header, configs);
  check(shmq_attach_fd(&segment, t->fd) == -EBADMSG, "a circle of dead letters was attached");
}

/* An empty message has a stamp of its own, not that of the last one in its cell. */
static void stamp_of_an_empty_message(struct stage *t) {
  char data[1];
  stage_open(t, with_dead_letters, 2, 0);
  shmq_put_options o = {.not_before_ns = 0, .expires_ns = shmq_now_ns()};
  for (int i = 0; i < 4; i++) {
    check(shmq_put_with(t->queue, "x", 1, &o, SHMQ_NOWAIT) == 0, "put");
    check(shmq_get(t->queue, data, 1, SHMQ_NOWAIT) == -EAGAIN, "an expired message was delivered");
  }
  check(shmq_put(t->queue, "", 0, SHMQ_NOWAIT) == 0, "put");
  check(shmq_get(t->queue, data, 1, SHMQ_NOWAIT) == 0, "an empty message was lost");
}

/* ---- the runner ---- */

static const struct {
  const char *name;
  void (*run)(struct stage *);
} cases[] = {{"dead letter of any length", dead_letter_of_any_length},
             {"expired and damaged", expired_and_damaged},
             {"view of any length", view_of_any_length},
             {"its own dead letter queue", its_own_dead_letter_queue},
             {"stamp of an empty message", stamp_of_an_empty_message}};

int main(int argc, char **argv) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct stage stage = {0};
    if (argc > 1 && strcmp(argv[1], cases[i].name) != 0) continue;
    printf("%s\n", cases[i].name);
    fflush(stdout);
    cases[i].run(&stage);
    stage_close(&stage);
  }
  return 0;
}
