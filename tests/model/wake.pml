/* SPDX-License-Identifier: Apache-2.0
 *
 * The event count of core/wake.h: publishers that look for sleepers without a fence, or with one where they are told
 * to; takers that announce themselves, fence everybody else with membarrier unless all fence by themselves, look
 * again, and sleep on a futex.
 *
 * A publication goes through the publisher's store buffer (x86-TSO) and reaches memory at any later
 * moment, at the latest with its next locked instruction or when somebody's membarrier passes its CPU.
 * Positions may be published out of order. Each taker takes one message and is busy for ever after, so a
 * wake-up that is lost stays lost: a taker that sleeps while a message waits is an invalid end state.
 *
 * Switches: PUBS publishers of BATCH messages each, ROUNDS times; T takers of TAKES messages each, FORBIDDEN of which may
 * not make a barrier and sleep briefly; WAKE_ALL, once; DEATHS, with the bounded look (nobody may need
 * a timeout while nobody has died); DEADLINES, takers that give up; BUG_* mutations.
 */
#ifndef PUBS
#define PUBS 2
#endif
#ifndef BATCH
#define BATCH 1
#endif
#ifndef T
#define T 2
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef TAKES
#define TAKES 1
#endif
#ifndef FORBIDDEN
#define FORBIDDEN 0
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef DEADLINES
#define DEADLINES 0
#endif
#define M (PUBS * BATCH * ROUNDS)
#define SLEEPERS 1
#define FENCED 2
#define SETTLED 4
#define NEXT 8

bit ready[M + 1]; /* the cell at this position is published, in memory */
byte tail, head;
byte word; /* the futex: the three bits, and above them the sequence */
bit asleep[3];

byte base[3], pending[3]; /* each publisher's store buffer: `pending` publications from `base` on */
byte finished;            /* publishers that are through or dead */
byte deaths = DEATHS, deadlines = DEADLINES;
bit died;

#define DIE (deaths > 0) -> deaths--; died = 1; goto dead
#define STEP(s) atomic { if :: s :: DIE fi }
#define COMMIT(j) ready[base[j]] = 1; base[j]++; pending[j]--
#define DRAIN(j) \
  do \
  :: pending[j] > 0 -> COMMIT(j) \
  :: else -> break \
  od
#define OVER (finished == PUBS && pending[0] + pending[1] + pending[2] == 0 && head == tail)

/* Wakes up to n of the sleepers, any of them; `some` says whether there was one. */
#define FUTEX_WAKE(n) \
  i = 0; \
  do \
  :: i < (n) -> \
    if \
    :: asleep[0] -> asleep[0] = 0; some = 1 \
    :: asleep[1] -> asleep[1] = 0; some = 1 \
    :: asleep[2] -> asleep[2] = 0; some = 1 \
    :: else -> break \
    fi; \
    i++ \
  :: else -> break \
  od; \
  i = 0

#ifdef BUG_CLEAR_SILENT /* who announced between the raise and the clear sleeps on */
#define AFTER_CLEAR skip
#else
#define AFTER_CLEAR if :: some -> some = 0; STEP(FUTEX_WAKE(3)) :: else fi
#endif
#ifdef BUG_CLEAR_NEAR /* a clearing and a new announcement leave the word as it was */
#define CLEARED NEXT
#else
#define CLEARED (2 * NEXT)
#endif
#define CLEAR(w) word = (w + CLEARED) & 254; some = 1 /* nobody woken: the bit goes */
#ifdef BUG_NO_FENCE /* a publisher looks once, whatever it was told */
#define FENCE(flush) skip
#else
#define FENCE(flush) STEP(flush; w = word)
#endif
/* Enough fences in vain, or not yet. */
#define END_FENCES \
  STEP(if :: word == w -> word = w & 249 :: skip fi)

/* event_signal(n). `flush` is what a locked instruction does to the caller's stores. */
#define SIGNAL(n, flush) \
  STEP(w = word); \
  if \
  :: (w & SLEEPERS) == 0 && (w & FENCED) -> \
    FENCE(flush); \
    if \
    :: (w & SLEEPERS) == 0 && (w & FENCED) -> END_FENCES \
    :: else \
    fi \
  :: else \
  fi; \
  do \
  :: (w & SLEEPERS) == 0 -> break \
  :: else -> \
    STEP(flush; if :: word == w -> word = w + NEXT; some = 1 :: else -> w = word fi); \
    if \
    :: some -> \
      some = 0; \
      STEP(FUTEX_WAKE(n)); \
      if \
      :: !some -> STEP(if :: word == w + NEXT -> CLEAR(w) :: else fi); AFTER_CLEAR \
      :: else \
      fi; \
      break \
    :: else \
    fi \
  od; \
  w = 0; some = 0

proctype publisher(byte me) {
  byte w, p, i, rounds;
  bit some;

again: /* several publishers take positions with a locked instruction, a single one with a store */
  atomic {
#if PUBS > 1
    DRAIN(me);
#endif
    p = tail; tail = tail + BATCH
  }
#ifdef BUG_LOOK_FIRST /* a swapped pair: looks for sleepers, then publishes */
  STEP(w = word);
#endif
  i = 0;
  do
  :: i < BATCH ->
    atomic {
      if
      :: pending[me] == 0 -> base[me] = p + i
      :: else
      fi;
      pending[me]++
    }
    i++
  :: else -> break
  od;
  p = 0; i = 0;
#ifdef BUG_LOOK_FIRST
  if
  :: (w & SLEEPERS) == 0 -> goto dead
  :: else
  fi;
#endif
#ifndef BUG_NO_SIGNAL
  SIGNAL(BATCH, DRAIN(me));
#endif
#if ROUNDS > 1
  atomic { rounds++; if :: rounds < ROUNDS -> goto again :: else fi }
#endif
dead:
  atomic { w = 0; i = 0; some = 0; rounds = 0; finished++ }
}

/* The hardware empties the buffers when it likes. */
active proctype hardware() {
end_idle:
  do
  :: atomic { pending[0] > 0 -> COMMIT(0) }
  :: atomic { pending[1] > 0 -> COMMIT(1) }
  :: atomic { pending[2] > 0 -> COMMIT(2) }
  od
}

proctype taker(byte me) {
  byte w, v, i, h, takes;
  bit some, slept, last, brief;

look: /* ring.pml is about how; here taking is one step */
#ifdef BUG_GLANCE /* at the cell where head was, which others have taken and freed by now */
  STEP(h = head);
  STEP(if :: ready[h] && h == head -> head++; some = 1 :: else fi);
#else
  STEP(if :: ready[head] -> head++; some = 1 :: else fi);
#endif
  if
  :: some -> some = 0; v = 0; goto got
  :: else
  fi;
  if
  :: last -> goto dead
  :: v == 0 -> /* announce, and look again */
    STEP(w = word; word = word | SLEEPERS | FENCED; v = word);
#ifndef BUG_NO_MEMBARRIER
    if
#ifdef BUG_SETTLED_EARLY /* whoever told the publishers to fence may not have waited for them yet */
    :: w & FENCED
#else
    :: w & SETTLED
#endif
#if FORBIDDEN > 0
    :: me < FORBIDDEN && !(w & SETTLED) -> brief = 1
#endif
    :: else ->
      i = 0;
      do
      :: i < PUBS -> STEP(DRAIN(i)); i++
      :: else -> break
      od;
      i = 0;
#ifdef BUG_SETTLE_BLIND /* what it was told may have ended, and begun anew */
      STEP(if :: word & FENCED -> word = word | SETTLED; v = word :: else fi)
#else
      STEP(if :: word == v -> word = word | SETTLED; v = word :: else fi)
#endif
    fi;
#endif
    w = 0;
#ifndef BUG_NO_RECHECK
    goto look
#endif
  :: else
  fi;
#ifdef BUG_WAIT_BLIND /* sleeps whatever the word says by now */
  STEP(asleep[me] = 1);
#else
  STEP(if :: word == v -> asleep[me] = 1 :: else fi);
#endif
  v = 0;
  atomic {
    if
    :: !asleep[me] -> slept = 1
    :: asleep[me] && deadlines > 0 -> deadlines--; asleep[me] = 0; last = 1
    :: !asleep[me] && deadlines > 0 -> deadlines--; last = 1; slept = 1 /* with a wake-up */
#ifndef BUG_NO_LOOK
    :: asleep[me] && died -> asleep[me] = 0; slept = 1 /* the bounded look */
#endif
#if FORBIDDEN > 0
    :: asleep[me] && brief -> asleep[me] = 0; slept = 1
#endif
    :: OVER -> asleep[me] = 0; goto dead
    fi;
    brief = 0
  }
#ifdef BUG_GIVE_UP /* woken at its deadline, it leaves without a look and takes the wake-up along */
  if
  :: last -> goto dead
  :: else
  fi;
#endif
  goto look;

got: /* Who slept passes on: a position published before its predecessor woke nobody who could use it. */
#ifndef BUG_NO_CHAIN
  if
  :: slept ->
#ifdef BUG_GLANCE
    STEP(h = head);
    STEP(some = ready[h] && h == head);
#else
    STEP(some = ready[head]);
#endif
    if
    :: some -> some = 0; SIGNAL(1, skip)
    :: else
    fi
  :: else
  fi;
#endif
#if TAKES > 1
  atomic { takes++; slept = 0; if :: takes < TAKES && !last -> goto look :: else fi }
#endif
dead:
  atomic { w = 0; v = 0; i = 0; h = 0; takes = 0; some = 0; slept = 0; last = 0; brief = 0; asleep[me] = 0 }
}

/* Recovery and shutdown: everybody looks again, announced or not. */
proctype waker() {
  byte i;
  bit some;
  atomic { word = word + NEXT }
  atomic { FUTEX_WAKE(3); some = 0 }
}

init {
  atomic {
    byte n = 0;
    do
    :: n < PUBS -> run publisher(n); n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < T -> run taker(n); n++
    :: else -> break
    od;
#ifdef WAKE_ALL
    run waker()
#endif
  }
}
