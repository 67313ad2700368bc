/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls under test: how each is prepared, made, and what the ledger allows after a death in it.
 *
 * Unless expect says otherwise, every message is seen by survivors exactly once and the
 * victim's own messages (w->own..) never.
 */
#include <errno.h>
#include <string.h>

#include "world.h"

#define BIT(x) (1u << (x))
#define ALL_MODES (BIT(MODE_COUNT) - 1)
#define MANY_CONSUMERS (BIT(MODE_MPMC) | BIT(MODE_SPMC))
#define QUIET                                                                                 \
  (BIT(STATE_EMPTY) | BIT(STATE_ONE) | BIT(STATE_FULL) | BIT(STATE_WRAP) | BIT(STATE_BLOCK) | \
   BIT(STATE_WARM) | BIT(STATE_HELD) | BIT(STATE_CONTENDED))
#define WITH_MESSAGE \
  (BIT(STATE_ONE) | BIT(STATE_FULL) | BIT(STATE_WRAP) | BIT(STATE_BLOCK) | BIT(STATE_CONTENDED))

static bool done(const struct world *w) { return w->page->phase == PHASE_RETURNED; }
static bool returned_ok(const struct world *w) { return done(w) && w->page->result >= 0; }

/* ---- expectations that several calls share ---- */

/* One message of the victim's own: in doubt while the call runs. */
static void allow_own(struct world *w, uint64_t id, bool may, bool must) {
  ledger_allow(w, id, must, may);
}

static bool took_nothing(const struct world *w) {
  return w->state == STATE_EMPTY && w->page->result == -EAGAIN;
}
static bool found_full(const struct world *w) {
  return (w->state == STATE_FULL || w->state == STATE_CONTENDED) && w->page->result == -EAGAIN;
}
static bool contended_out(const struct world *w) {
  return w->state == STATE_CONTENDED && w->page->result == -EAGAIN;
}

/* ---- put ---- */

static void act_put(struct world *w, struct actor *a) {
  w->page->result = shmq_put(a->main, w->page->buffer[0], a->size, a->deadline);
}
static void prepare_put(struct world *w, struct actor *a) {
  message_fill(w->page->buffer[0], w->own, a->size);
}
static void expect_put(struct world *w) {
  allow_own(w, w->own, !done(w) || returned_ok(w), returned_ok(w));
}
static bool good_put(const struct world *w) {
  if (w->state == STATE_FULL) return w->page->result == -EAGAIN;
  return w->page->result == 0 || found_full(w);
}

/* ---- put with the policy that drops the oldest ---- */

static void options_drop(shmq_options *options, shmq_queue_options *queues) {
  (void)options;
  queues[0].full_policy = SHMQ_FULL_DROP_OLDEST;
}
static void expect_drop(struct world *w) {
  expect_put(w);
  if (w->state != STATE_FULL) return;
  /* The first message makes room for ours. */
  ledger_allow(w, OWN_MAX + 1, 0, !done(w));
}
static bool good_zero(const struct world *w) { return w->page->result == 0; }

/* ---- reserve and commit, abort ---- */

static void act_reserve_commit(struct world *w, struct actor *a) {
  int rc = shmq_reserve(a->main, a->size, &a->message[0], a->deadline);
  if (rc == 0) {
    memcpy(a->message[0].data, w->page->buffer[0], a->size);
    w->page->stage = 1;
    rc = shmq_commit(a->main, &a->message[0]);
  }
  w->page->result = rc;
}
static void expect_reserve_commit(struct world *w) {
  bool may = done(w) ? returned_ok(w) : w->page->stage == 1;
  allow_own(w, w->own, may, returned_ok(w));
}

static void reserve_own(struct world *w, struct actor *a) {
  if (shmq_reserve(a->main, a->size, &a->message[0], SHMQ_NOWAIT) < 0)
    w->page->stage = 9;
  else
    message_fill(a->message[0].data, w->own, a->size);
}
static void act_abort(struct world *w, struct actor *a) {
  w->page->result = w->page->stage == 9 ? 0 : shmq_abort(a->main, &a->message[0]);
}
static void expect_nothing(struct world *w) { (void)w; }

/* ---- get ---- */

static void act_get(struct world *w, struct actor *a) {
  w->page->result = shmq_get(a->main, w->page->buffer[0], BLOCK_BYTES, a->deadline);
}
/* A message whole in the victim's buffer may be gone from the queue; a get that returned it was the
 * delivery. */
static void expect_taken(struct world *w, int i, bool returned) {
  uint64_t id = message_id(w->page->buffer[i], message_size(w));
  if (id == 0 || id >= w->next_id) {
    if (returned) fault(w, &w->tally->lost, "get returned a damaged message");
    return;
  }
  if (returned)
    ledger_taken(w, id);
  else
    ledger_doubt(w, id);
}
static void expect_get(struct world *w) {
  if (done(w) && !returned_ok(w)) return;
  expect_taken(w, 0, done(w));
}
static bool good_get(const struct world *w) {
  return w->page->result == (int64_t)message_size(w) || took_nothing(w) || contended_out(w);
}

/* A get into a buffer that is too small takes nothing away. */
static void act_get_small(struct world *w, struct actor *a) {
  w->page->result = shmq_get(a->main, w->page->buffer[0], 8, a->deadline);
}
static bool good_get_small(const struct world *w) {
  return w->page->result == -EMSGSIZE || contended_out(w);
}

/* ---- lease, ack, nack ---- */

static void note_held(struct world *w, const shmq_message *m, int i) {
  w->page->held[i] = message_id(m->data, m->size);
}
static void act_lease_ack(struct world *w, struct actor *a) {
  int rc = shmq_lease(a->main, &a->message[0], a->deadline);
  if (rc == 0) {
    note_held(w, &a->message[0], 0);
    w->page->stage = 1;
    rc = shmq_ack(a->main, &a->message[0]);
  }
  w->page->result = rc;
}
/* Its ack had begun. */
static void expect_acked(struct world *w, uint64_t id) {
  if (done(w))
    ledger_taken(w, id);
  else
    ledger_doubt(w, id);
}
static void expect_lease_ack(struct world *w) {
  if (w->page->stage == 1) expect_acked(w, w->page->held[0]);
}
static bool good_lease_ack(const struct world *w) {
  return w->page->result == 0 || took_nothing(w) || contended_out(w);
}

static void lease_one(struct world *w, struct actor *a) {
  if (shmq_lease(a->main, &a->message[0], SHMQ_NOWAIT) == 0) note_held(w, &a->message[0], 0);
}
static void act_nack(struct world *w, struct actor *a) {
  w->page->result = shmq_nack(a->main, &a->message[0]);
}
static void options_dead_letter(shmq_options *options, shmq_queue_options *queues) {
  (void)options;
  queues[0].max_attempts = 1;
  queues[0].dead_letter = "out";
  queues[1].flags &= ~SHMQ_SINGLE_PRODUCER; /* whoever finds a message dead puts it there */
}
static void options_timed(shmq_options *options, shmq_queue_options *queues) {
  (void)options;
  queues[0].flags |= SHMQ_TIMED;
}
static void act_nack_later(struct world *w, struct actor *a) {
  w->page->result = shmq_nack_with(a->main, &a->message[0], 1000000, NULL);
}

/* ---- two priorities ---- */

static void options_bands(shmq_options *options, shmq_queue_options *queues) {
  (void)options;
  queues[0].priorities = 2;
}
static void act_put_high(struct world *w, struct actor *a) {
  shmq_put_options high = {.priority = 1};
  w->page->result = shmq_put_with(a->main, w->page->buffer[0], a->size, &high, a->deadline);
}

/* ---- batches ---- */

enum { BATCH = 3 };

static void prepare_put_batch(struct world *w, struct actor *a) {
  for (int i = 0; i < BATCH; i++) message_fill(w->page->buffer[i], w->own + (uint64_t)i, a->size);
}
static void act_put_batch(struct world *w, struct actor *a) {
  struct iovec iov[BATCH];
  for (int i = 0; i < BATCH; i++) iov[i] = (struct iovec){w->page->buffer[i], a->size};
  w->page->result = shmq_put_batch(a->main, iov, BATCH, a->deadline);
}
static void expect_put_batch(struct world *w) {
  for (int i = 0; i < BATCH; i++) {
    bool put = done(w) && i < w->page->result;
    allow_own(w, w->own + (uint64_t)i, !done(w) || put, put);
  }
}
static bool good_put_batch(const struct world *w) {
  return w->state == STATE_FULL ? w->page->result == -EAGAIN : w->page->result > 0 || found_full(w);
}

static void act_get_batch(struct world *w, struct actor *a) {
  struct iovec iov[BATCH];
  for (int i = 0; i < BATCH; i++) iov[i] = (struct iovec){w->page->buffer[i], BLOCK_BYTES};
  w->page->result = shmq_get_batch(a->main, iov, BATCH, a->deadline);
}
static void expect_get_batch(struct world *w) {
  for (int i = 0; i < BATCH; i++)
    if (!done(w) || i < w->page->result) expect_taken(w, i, done(w));
}
static bool good_get_batch(const struct world *w) {
  return w->page->result > 0 || took_nothing(w) || contended_out(w);
}

static void act_lease_batch(struct world *w, struct actor *a) {
  int n = shmq_lease_batch(a->main, a->message, BATCH, a->deadline);
  if (n > 0) {
    for (int i = 0; i < n; i++) note_held(w, &a->message[i], i);
    w->page->stage = (uint32_t)n;
    n = shmq_ack_batch(a->main, a->message, n);
  }
  w->page->result = n;
}
static void expect_lease_batch(struct world *w) {
  for (uint32_t i = 0; i < w->page->stage; i++) expect_acked(w, w->page->held[i]);
}
static bool good_lease_batch(const struct world *w) {
  return w->page->result >= 0 || took_nothing(w) || contended_out(w);
}

/* ---- several as one step ---- */

static void lease_two(struct world *w, struct actor *a) {
  for (int i = 0; i < 2; i++) {
    if (shmq_lease(a->main, &a->message[i], SHMQ_NOWAIT) < 0)
      w->page->stage = 9;
    else
      note_held(w, &a->message[i], i);
  }
}
static void prepare_step(struct world *w, struct actor *a) {
  lease_two(w, a);
  for (int i = 0; i < 2; i++) {
    if (shmq_reserve(a->out, a->size, &a->message[2 + i], SHMQ_NOWAIT) < 0)
      w->page->stage = 9;
    else
      message_fill(a->message[2 + i].data, w->own + (uint64_t)i, a->size);
  }
}
static void act_commit_all(struct world *w, struct actor *a) {
  shmq_step steps[4] = {
      {a->main, &a->message[0]},
      {a->main, &a->message[1]},
      {a->out, &a->message[2]},
      {a->out, &a->message[3]},
  };
  w->page->result = w->page->stage == 9 ? -EPROTO : shmq_commit_all(steps, 4);
}
static void expect_step(struct world *w) {
  for (int i = 0; i < 2 && w->page->stage != 9; i++) {
    ledger_allow(w, w->page->held[i], 0, 1);
    ledger_allow(w, w->own + (uint64_t)i, 0, 1);
    w->entries[w->page->held[i]].step = STEP_INPUT;
    w->entries[w->own + (uint64_t)i].step = STEP_OUTPUT;
    w->entries[w->page->held[i]].step_of = w->entries[w->own + (uint64_t)i].step_of =
        w->own == TWIN_ID;
    if (!returned_ok(w)) continue;
    ledger_allow(w, w->page->held[i], 0, 0);
    ledger_allow(w, w->own + (uint64_t)i, 1, 1);
  }
}

static void act_forward(struct world *w, struct actor *a) {
  w->page->result = shmq_forward(a->main, &a->message[0], a->out, a->deadline);
}

static void act_forward_all(struct world *w, struct actor *a) {
  shmq_step steps[4];
  int rc = w->page->stage == 9 ? -EPROTO : 0;
  for (int i = 0; i < 2 && rc == 0; i++) {
    rc = shmq_reserve_forward(a->main, &a->message[i], a->out, &a->message[2 + i], a->deadline);
    steps[2 * i] = (shmq_step){a->out, &a->message[2 + i]};
    steps[2 * i + 1] = (shmq_step){a->main, &a->message[i]};
  }
  w->page->result = rc ? rc : shmq_commit_all(steps, 4);
}

/* ---- join, leave, open, close ---- */

static void act_join(struct world *w, struct actor *a) {
  w->page->result = shmq_join_segment(a->segment, "victim", "joins");
}

/* It leaves with a lease and a reservation in its hands. */
static void prepare_leave(struct world *w, struct actor *a) {
  if (w->state != STATE_EMPTY) lease_one(w, a);
  if (w->state != STATE_FULL) reserve_own(w, a);
}
static void act_leave(struct world *w, struct actor *a) {
  shmq_close(a->main);
  shmq_close(a->out);
  w->page->stage = 1;
  shmq_detach(a->segment);
  w->page->result = 0;
}
static void act_close(struct world *w, struct actor *a) {
  shmq_close(a->main);
  a->main = NULL;
  w->page->result = 0;
}
static void act_open(struct world *w, struct actor *a) {
  (void)a;
  shmq *queue = NULL;
  w->page->result = shmq_open(&queue, w->name, 0);
  if (w->page->result == 0) w->page->stage = 1;
}

static void act_create(struct world *w, struct actor *a) {
  (void)a;
  w->page->result = world_create(w);
}
static bool good_create(const struct world *w) {
  return w->page->result == (w->state == STATE_EMPTY ? 0 : -EEXIST);
}

/* ---- shutdown, reopen, recover ---- */

static void act_shutdown(struct world *w, struct actor *a) {
  w->page->result = shmq_shutdown(a->main);
}
static void prepare_reopen(struct world *w, struct actor *a) {
  w->page->stage = (uint32_t)-shmq_shutdown(a->main);
}
static void act_reopen(struct world *w, struct actor *a) { w->page->result = shmq_reopen(a->main); }
static void act_recover(struct world *w, struct actor *a) {
  w->page->result = shmq_recover(a->segment);
}

/* clang-format off */
const struct call calls[] = {
    {.name = "put", .side = MAIN_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | QUIET | BIT(STATE_ASLEEP) | BIT(STATE_SLEEPS),
     .prepare = prepare_put, .act = act_put, .expect = expect_put, .good = good_put},
    {.name = "get", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | QUIET | BIT(STATE_ASLEEP) | BIT(STATE_SLEEPS),
     .act = act_get, .expect = expect_get, .good = good_get},
    {.name = "reserve+commit", .side = MAIN_PUT, .modes = ALL_MODES,
     .states = QUIET | BIT(STATE_ASLEEP) | BIT(STATE_SLEEPS), .prepare = prepare_put,
     .act = act_reserve_commit, .expect = expect_reserve_commit, .good = good_put},
    {.name = "lease+ack", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | QUIET | BIT(STATE_ASLEEP) | BIT(STATE_SLEEPS),
     .act = act_lease_ack, .expect = expect_lease_ack, .good = good_lease_ack},
    {.name = "nack", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | WITH_MESSAGE | BIT(STATE_WARM) | BIT(STATE_HELD),
     .prepare = lease_one, .act = act_nack, .expect = expect_nothing, .good = good_zero},
    {.name = "commit_all", .side = MAIN_TAKE | OUT_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | BIT(STATE_FULL) | BIT(STATE_WRAP) | BIT(STATE_CONTENDED) |
               BIT(STATE_ASLEEP),
     .prepare = prepare_step, .act = act_commit_all, .expect = expect_step, .good = good_zero},
    {.name = "forward", .side = MAIN_TAKE | OUT_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | WITH_MESSAGE | BIT(STATE_WARM) | BIT(STATE_HELD) |
               BIT(STATE_ASLEEP),
     .prepare = lease_one, .act = act_forward, .expect = expect_nothing, .good = good_zero},
    {.name = "forward_all", .side = MAIN_TAKE | OUT_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | BIT(STATE_FULL) | BIT(STATE_WRAP) | BIT(STATE_CONTENDED) |
               BIT(STATE_ASLEEP),
     .prepare = lease_two, .act = act_forward_all, .expect = expect_nothing, .good = good_zero},
    {.name = "put_batch", .side = MAIN_PUT, .modes = ALL_MODES,
     .states = QUIET | BIT(STATE_ASLEEP) | BIT(STATE_SLEEPS), .prepare = prepare_put_batch,
     .act = act_put_batch, .expect = expect_put_batch, .good = good_put_batch},
    {.name = "get_batch", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | QUIET | BIT(STATE_ASLEEP) | BIT(STATE_SLEEPS),
     .act = act_get_batch, .expect = expect_get_batch, .good = good_get_batch},
    {.name = "lease_batch+ack_batch", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | WITH_MESSAGE | BIT(STATE_HELD) | BIT(STATE_ASLEEP),
     .act = act_lease_batch, .expect = expect_lease_batch, .good = good_lease_batch},
    {.name = "get_too_small", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | WITH_MESSAGE | BIT(STATE_HELD), .act = act_get_small,
     .expect = expect_nothing, .good = good_get_small},
    {.name = "abort", .side = MAIN_PUT, .modes = ALL_MODES, .states = QUIET & ~BIT(STATE_FULL),
     .prepare = reserve_own, .act = act_abort, .expect = expect_nothing, .good = good_zero},
    {.name = "put_drop_oldest", .side = MAIN_PUT, .modes = MANY_CONSUMERS,
     .states = BIT(STATE_ONE) | BIT(STATE_FULL), .options = options_drop, .prepare = prepare_put,
     .act = act_put, .expect = expect_drop, .good = good_zero, .drops = true},
    {.name = "put_priority", .side = MAIN_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_EMPTY) | BIT(STATE_FULL) | BIT(STATE_CONTENDED),
     .options = options_bands, .prepare = prepare_put, .act = act_put_high, .expect = expect_put,
     .good = good_zero},
    {.name = "get_priority", .side = MAIN_TAKE, .modes = ALL_MODES,
     .states = BIT(STATE_EMPTY) | BIT(STATE_ONE) | BIT(STATE_CONTENDED),
     .options = options_bands, .act = act_get, .expect = expect_get, .good = good_get},
    {.name = "nack_dead_letter", .side = MAIN_TAKE | OUT_PUT, .modes = ALL_MODES,
     .states = WITH_MESSAGE, .options = options_dead_letter, .prepare = lease_one,
     .act = act_nack, .expect = expect_nothing, .good = good_zero, .buries = true},
    {.name = "nack_delayed", .side = MAIN_TAKE, .modes = ALL_MODES, .states = WITH_MESSAGE,
     .options = options_timed, .prepare = lease_one, .act = act_nack_later,
     .expect = expect_nothing, .good = good_zero},
    {.name = "join", .modes = BIT(MODE_MPMC), .states = BIT(STATE_EMPTY) | BIT(STATE_ONE),
     .joins = true, .act = act_join, .expect = expect_nothing, .good = good_zero},
    {.name = "leave", .side = MAIN_TAKE | MAIN_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | BIT(STATE_EMPTY) | BIT(STATE_ONE) | BIT(STATE_FULL) |
               BIT(STATE_BLOCK) | BIT(STATE_WRAP),
     .prepare = prepare_leave, .act = act_leave, .expect = expect_nothing, .good = good_zero,
     .leaves = true},
    {.name = "create", .modes = BIT(MODE_MPMC),
     .states = BIT(STATE_EMPTY) | BIT(STATE_ONE), .act = act_create,
     .expect = expect_nothing, .good = good_create, .creates = true},
    {.name = "open", .modes = BIT(MODE_MPMC), .states = BIT(STATE_EMPTY) | BIT(STATE_ONE),
     .act = act_open, .expect = expect_nothing, .good = good_zero},
    {.name = "close", .side = MAIN_TAKE | MAIN_PUT, .modes = ALL_MODES,
     .states = BIT(STATE_RETURNED) | BIT(STATE_EMPTY) | BIT(STATE_ONE) | BIT(STATE_FULL) |
               BIT(STATE_BLOCK),
     .prepare = prepare_leave, .act = act_close, .expect = expect_nothing, .good = good_zero},
    {.name = "shutdown", .modes = ALL_MODES,
     .states = BIT(STATE_EMPTY) | BIT(STATE_ONE) | BIT(STATE_FULL) | BIT(STATE_ASLEEP),
     .act = act_shutdown, .expect = expect_nothing, .good = good_zero, .shuts = true},
    {.name = "reopen", .modes = BIT(MODE_MPMC), .states = BIT(STATE_EMPTY) | BIT(STATE_ONE),
     .prepare = prepare_reopen, .act = act_reopen, .expect = expect_nothing, .good = good_zero,
     .shuts = true},
    {.name = "recover", .modes = ALL_MODES, .states = BIT(STATE_ONE) | BIT(STATE_BLOCK),
     .act = act_recover, .expect = expect_nothing, .good = good_zero},
};
/* clang-format on */
const unsigned call_count = sizeof calls / sizeof *calls;
