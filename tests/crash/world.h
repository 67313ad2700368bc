/* SPDX-License-Identifier: Apache-2.0
 *
 * The world in which a victim dies: one small segment in a known state, a living peer, perhaps a
 * sleeping one, and the ledger that knows what must become of every message.
 *
 * The segment is as small as it can be and still show everything (rings of 4 cells), because the
 * path through a call, not the size of the ring, is what is being searched.
 */
#ifndef CRASH_WORLD_H
#define CRASH_WORLD_H

#include <shmq/inspect.h>
#include <shmq/shmq.h>

#include "step.h"

enum {
  CAPACITY = 4,
  BLOCKS = 8,
  BLOCK_BYTES = 256,
  PARTICIPANTS = 8,
  LARGE = 200, /* bytes of a message in a block */
  MESSAGES_MAX = 96,
  WARM_ID = 1, /* what the victim put before its call, in STATE_WARM */
  OWN_ID = 2,  /* the victim's own messages, at most three */
  TWIN_ID = 5, /* those of a second victim */
  OWN_MAX = 7,
  HELD_MAX = 4
};

/* What a cell holds, and the length of a message in one: --cell. */
extern uint32_t cell_bytes, small_bytes;

/* A survivor that waits longer than this hangs; no bounded look takes a tenth of it, but a loaded machine may. */
#define PATIENCE_NS INT64_C(20000000000)

/* ---- what is written here by the victim and read by us ---- */

struct page {
  volatile uint32_t phase;  /* enum phase */
  volatile uint32_t traced; /* the victim traps at its end */
  volatile uint32_t stage;  /* how far an act of several calls has come */
  volatile int64_t result;
  volatile uint64_t held[HELD_MAX]; /* ids of the messages leased before or in the call */
  unsigned char buffer[HELD_MAX][BLOCK_BYTES]; /* where the victim's gets put their messages */
  struct {
    volatile uint32_t ready; /* about to sleep */
    volatile int64_t result;
    volatile uint64_t id;
    volatile int64_t returned_ns;
  } sleeper;
};

/* ---- ledger ---- */

struct entry {
  uint8_t min, max; /* how often survivors may see it */
  uint8_t seen;
  uint8_t step;    /* STEP_: takes part in a commit_all */
  uint8_t step_of; /* which victim's */
  bool taken;      /* a victim's call returned it: that was the delivery */
  uint32_t size;
  uint8_t by; /* who put it: order holds per producer */
};
enum { STEP_NONE, STEP_INPUT, STEP_OUTPUT };
enum { BY_VICTIM, BY_PREPARER, BY_PEER, BY_SLEEPER, BY_COUNT };

struct tally {
  uint64_t points; /* deaths, or stops */
  uint64_t lost, duplicated, leaked, hung, other;
  double worst_wait_ms, seconds;
  uint32_t instructions;
};

enum mode { MODE_MPMC, MODE_SPMC, MODE_MPSC, MODE_SPSC, MODE_COUNT };
enum state {
  STATE_EMPTY,
  STATE_ONE,
  STATE_FULL,
  STATE_WRAP,
  STATE_BLOCK,     /* messages in blocks */
  STATE_WARM,      /* the victim has already worked: it holds its roles */
  STATE_RETURNED,  /* the messages have been delivered before, and given back */
  STATE_HELD,      /* a living peer holds a lease and a reservation in the way */
  STATE_ASLEEP,    /* a living peer sleeps until the call wakes it */
  STATE_SLEEPS,    /* the victim sleeps in the call and is woken */
  STATE_CONTENDED, /* a living peer puts and takes between two of the victim's instructions */
  STATE_COUNT
};
extern const char *const mode_names[MODE_COUNT];
extern const char *const state_names[STATE_COUNT];

struct call;

struct world {
  const struct call *call;
  enum mode mode;
  enum state state;
  char name[48];
  struct tally *tally;
  char where[160]; /* what is being done, for fault messages */

  /* The living peer is this very process. */
  shmq_segment *segment;
  shmq *main, *out;
  shmq_view *view;
  const unsigned char *image;
  size_t image_bytes;
  bool peer_created; /* the segment, while its creator was stopped */
  shmq_message peer_lease, peer_reservation;
  uint64_t peer_reserved_id;
  pid_t sleeper;
  int64_t death_ns;

  struct page *page;   /* of the victim */
  uint64_t own;        /* its first own message */
  struct page *second; /* of whoever comes after it: a recoverer, or a second victim */
  bool twin;           /* a second victim, whose messages count too */

  uint32_t next_id;
  struct entry entries[MESSAGES_MAX];
  uint64_t last_seen[2][BY_COUNT]; /* per queue */
};

/* ---- calls under test ---- */

enum { MAIN_PUT = 1, MAIN_TAKE = 2, OUT_PUT = 4 };

/* The victim's own handles; it has inherited w, whose handles it does not use. */
struct actor {
  shmq_segment *segment;
  shmq *main, *out;
  shmq_message message[HELD_MAX];
  uint32_t size; /* of messages in this state */
  int64_t deadline;
};

struct call {
  const char *name;
  uint32_t side;   /* what the victim does: MAIN_PUT.. */
  uint32_t states; /* bits: 1 << STATE_.. */
  uint32_t modes;  /* bits */
  void (*options)(shmq_options *options, shmq_queue_options *queues);
  void (*prepare)(struct world *w, struct actor *a);
  void (*act)(struct world *w, struct actor *a);
  /* After the death: what the ledger must allow, given how far the page says the victim came. */
  void (*expect)(struct world *w);
  /* Was the result right? For runs in which nobody dies. */
  bool (*good)(const struct world *w);
  bool drops;   /* messages, to make room */
  bool buries;  /* a message given back goes to the dead letter queue, out */
  bool shuts;   /* puts may find the queue shut down */
  bool joins;   /* the victim is not a participant before the call */
  bool leaves;  /* the victim's attachment is gone after the call */
  bool creates; /* in STATE_EMPTY there is no segment before the call */
};
extern const struct call calls[];
extern const unsigned call_count;

/* ---- world.c ---- */

void fault(struct world *w, uint64_t *count, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Build the segment and bring it into the state. Returns 0 or a negative errno. */
int world_open(struct world *w);
void world_close(struct world *w);
/* Create the segment of this world by its name: a negative errno, or 0. */
int world_create(const struct world *w);
/* Take part in the segment that somebody else has created. */
int world_adopt(struct world *w);
uint64_t world_image(void *world);
/* The bodies of forked victims. */
void world_victim(void *world);
void world_twin(void *world);
/* The wake-up of STATE_SLEEPS. */
void world_wake_victim(void *world);

uint32_t message_size(const struct world *w);
void message_fill(unsigned char *data, uint64_t id, uint32_t size);
/* The id of a whole and undamaged message, or 0. */
uint64_t message_id(const void *data, size_t size);

uint64_t ledger_new(struct world *w, int by, uint32_t size);
void ledger_allow(struct world *w, uint64_t id, int min, int max);
/* Survivors may see it or not; a call that returned to a victim was its delivery. */
void ledger_doubt(struct world *w, uint64_t id);
void ledger_taken(struct world *w, uint64_t id);
/* queue: 0 main, 1 out, -1 no order is kept. */
void ledger_seen(struct world *w, int queue, uint64_t id, uint32_t attempts);

/* What the peer does; each puts or takes one message and keeps the ledger. */
int peer_put(struct world *w, shmq *queue, int64_t deadline);
int peer_take(struct world *w, shmq *queue, int64_t deadline);
/* STATE_CONTENDED: one action, chosen by pick, that the mode allows beside the victim. */
void peer_act(struct world *w, unsigned pick);

/* ---- sleeper.c ---- */

/* STATE_ASLEEP: fork it, and return once it sleeps. */
bool sleeper_start(struct world *w);

/* ---- survive.c ---- */

/* Everything that must hold after a death: go on working, recover, drain, balance, audit. */
void survive(struct world *w, unsigned pick);
/* While the victim is stopped: nothing is taken from it. */
void respect(struct world *w, unsigned pick);

#endif
