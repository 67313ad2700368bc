/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring: owner-tagged index words, record arrays with helping, tombstones, redelivery, and recovery
 * of a participant that dies at any step, the recoverer included.
 *
 * Every access to shared memory is one STEP; before each, the process may die (while the budget
 * DEATHS lasts). A dead participant's slot stays dirty until a recoverer has finished; then the
 * same index lives again and goes on. A recoverer that dies drops its lock and a recoverer starts over.
 * Waiting is a blocking guard, so a wedge is an invalid end state; what must hold on the way is
 * asserted where it happens. The ring has N cells (2 or 4, single modes 2), positions count on and never wrap.
 *
 * Switches: N; P, C producers and consumers; MSGS messages each; DEATHS, NACKS, ABORTS budgets; K cells
 * a claim; R recoverers; SP, SC single modes; SHUT with a shutdown at any moment; BUG_* mutations.
 */
#ifndef P
#define P 2
#endif
#ifndef C
#define C 1
#endif
#ifndef MSGS
#define MSGS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef R
#define R 1
#endif
#ifndef K
#define K 1
#endif
#ifndef NACKS
#define NACKS 0
#endif
#ifndef ABORTS
#define ABORTS 0
#endif
#ifndef N
#define N 2
#endif
#define POSITIONS 16

/* cell word: turn | owner | kind */
#define FREE 0
#define READY 1
#define TOMB 2
#define RETURNED 3
#define LEASED 4
#define WORD(turn, owner, kind) ((turn) * 64 + (owner) * 8 + (kind))
#define KIND(w) ((w) & 7)
#define OWNER(w) (((w) >> 3) & 7)
#define TURN(w) ((w) >> 6)
#define LAP(p) ((p) / N)
/* index word: position | run | owner, and record: position | owner */
#define INDEX(pos, run, owner) ((pos) * 64 + (run) * 8 + (owner))
#define POS(x) ((x) >> 6)
#define RUN(x) (((x) >> 3) & 7)
#define WHO(x) ((x) & 7)
#define REC(pos, owner) ((pos) * 8 + (owner))
#define RPOS(r) ((r) >> 3)

short cell[N], payload[N];
short tail, head;
short prec[N], crec[N]; /* who claimed the position: for producers, for consumers */
byte returned_seq, returned_seen;
byte prole, crole;
bit shut;

/* The participants' slots and locks. */
bit dirty[8], locked[8];
byte dirt; /* how many are dirty */
byte deaths = DEATHS;

/* The ledger, by position; nothing in the protocol reads it. A message is promised once it is published
 * (put returns 0 only after that). */
byte holder[POSITIONS];
bit done[POSITIONS], acked[POSITIONS];
byte nacks = NACKS, aborts = ABORTS, finished;
bit pipe_seen;

#define DIE (deaths > 0) -> deaths--; dirty[me] = 1; dirt++; goto dead
#define STEP(s) atomic { if :: s :: DIE fi }

#define IS_FREE(p) (cell[(p) % N] == WORD(LAP(p), 0, FREE))
#define TAKEABLE(w, p) ((w) == WORD(LAP(p), 0, READY) || (w) == WORD(LAP(p), 0, TOMB))
#if N == 4
#define MORE_FREE IS_FREE(POS(tail) + 2) && IS_FREE(POS(tail) + 3)
#else
#define MORE_FREE 1
#endif
#define QUIET (finished == P && dirt == 0 && POS(head) == POS(tail) && IS_FREE(POS(tail)) && IS_FREE(POS(tail) + 1) && MORE_FREE)

/* Record the run that x names, where x was read from `index`: shmq__ring_record_run. */
#ifdef BUG_HELP_BLIND /* a stalled helper writes an old record over a new one */
#define HELP_STORE(rec, q) STEP(rec[q % N] = REC(q, WHO(x)))
#else
#define HELP_STORE(rec, q) STEP(if :: rec[q % N] == r -> rec[q % N] = REC(q, WHO(x)) :: else fi)
#endif
#ifdef BUG_HELP_NO_RECHECK /* compares with what was there after the index had moved on */
#define HELP_RECHECK(index) skip
#else
#define HELP_RECHECK(index) STEP(if :: index != x -> q = POS(x) :: else fi)
#endif
#ifdef BUG_HELP_DESCENDING /* the last record is written first, and stands for all */
#define HELP_AT (2 * POS(x) - RUN(x) - 1 - q)
#else
#define HELP_AT q
#endif
#define HELP(index, rec) \
  q = POS(x) - 1; \
  STEP(r = rec[q % N]); \
  if \
  :: r != REC(q, WHO(x)) -> \
    q = POS(x) - RUN(x); \
    do \
    :: q < POS(x) -> \
      STEP(r = rec[HELP_AT % N]); \
      if \
      :: r != REC(HELP_AT, WHO(x)) -> \
        HELP_RECHECK(index); \
        if \
        :: q < POS(x) -> HELP_STORE(rec, HELP_AT); q++ \
        :: else \
        fi \
      :: else -> q++ \
      fi \
    :: else -> break \
    od \
  :: else \
  fi; \
  q = 0; r = 0

proctype producer(byte me) {
  short x, r;
  byte p, q, left = MSGS;
  bit ok;

life:
#ifdef SP
  /* The role is free, or its dead holder has been recovered. */
  atomic { prole == 0 -> prole = me }
#endif
  do
  :: left == 0 -> break
  :: else ->
again:
    STEP(x = tail);
    p = POS(x);
    q = 0;
    do
    :: q < K ->
      STEP(ok = IS_FREE(p + q));
      if
      :: !ok -> goto no_room
      :: else -> q++
      fi
    :: else -> break
    od;
    ok = 0;
#ifdef SP
    q = 0;
    STEP(tail = INDEX(p + K, K, me));
#else
#ifndef BUG_NO_HELP /* the index moves on though the run it names is not recorded */
    if
    :: WHO(x) != me && WHO(x) != 0 -> HELP(tail, prec)
    :: else /* our own last run is recorded */
    fi;
#endif
    STEP(if :: tail == x -> tail = INDEX(p + K, K, me); ok = 1 :: else fi);
    if
    :: !ok -> goto again
    :: else -> ok = 0
    fi;
#endif
    x = 0;
#ifndef SP
    q = 0;
    do
    :: q < K ->
#ifdef BUG_RECORD_LATE /* recorded after the publication: someone may have come round already */
      skip;
#else
      STEP(assert(RPOS(prec[(p + q) % N]) <= p + q); prec[(p + q) % N] = REC(p + q, me));
#endif
      q++
    :: else -> break
    od;
#endif
#ifdef SHUT
#ifndef BUG_SHUT_CHECK /* the flag is looked at before the claim only */
    STEP(ok = shut);
    if
    :: ok ->
      q = 0;
      do
      :: q < K -> STEP(cell[(p + q) % N] = WORD(LAP(p + q), 0, TOMB)); q++
      :: else -> break
      od;
      goto gone
    :: else
    fi;
#endif
#endif
    q = 0;
    do
    :: q < K ->
#ifdef BUG_PUBLISH_FIRST /* a swapped pair of stores */
      STEP(cell[(p + q) % N] = WORD(LAP(p + q), 0, READY); done[p + q] = 1);
      STEP(payload[(p + q) % N] = p + q + 1);
#else
      STEP(payload[(p + q) % N] = p + q + 1);
      if
      :: STEP(assert(IS_FREE(p + q) && !pipe_seen); cell[(p + q) % N] = WORD(LAP(p + q), 0, READY); done[p + q] = 1)
      :: atomic { aborts > 0 -> aborts--; cell[(p + q) % N] = WORD(LAP(p + q), 0, TOMB) }
      fi;
#endif
      q++
    :: else -> break
    od;
#ifdef BUG_RECORD_LATE
    STEP(assert(RPOS(prec[p % N]) <= p); prec[p % N] = REC(p, me));
#endif
    atomic { p = 0; q = 0; left-- } /* put returns 0 */
  od;
gone:
#ifdef SP
  prole = 0;
#endif
  atomic { x = 0; r = 0; p = 0; q = 0; ok = 0; left = 0; finished++ };
  goto out;

no_room: /* until there is room or the index has moved */
#ifdef SHUT
  atomic { (tail != x || IS_FREE(p + q) || shut) -> p = 0; q = 0; ok = shut;
    if
    :: tail == x && ok -> goto gone
    :: else -> x = 0; ok = 0; goto again
    fi }
#else
  atomic { (tail != x || IS_FREE(p + q)) -> x = 0; p = 0; q = 0; goto again }
#endif

dead: /* the message that was under way promises nothing; a new life goes on with the next */
  atomic {
    !dirty[me] -> x = 0; r = 0; p = 0; q = 0; ok = 0;
    if
    :: left > 0 -> left--
    :: else
    fi;
    goto life
  }
out:
  skip
}

/* Give `pos` to the caller of get or lease, who checks what it got. */
#define DELIVER(pos) \
  STEP(assert(!acked[pos] && holder[pos] == 0 && payload[(pos) % N] == (pos) + 1); holder[pos] = me)

proctype consumer(byte me) {
  short x, w, r;
  byte p, q, s, e;
  bit ok;

life:
#ifdef SC
  atomic {
    if
    :: crole == 0 -> crole = me
    :: QUIET -> goto out
    fi
  }
#endif
again:
  /* Messages that were given back come first. */
  STEP(s = returned_seq);
  STEP(e = returned_seen);
  if
  :: s != e ->
    q = 0;
    do
    :: q < N ->
      STEP(w = cell[q]);
      if
      :: KIND(w) == RETURNED ->
#ifdef BUG_LEASE_STORE /* two takers lease one message */
        STEP(cell[q] = WORD(TURN(w), me, LEASED); ok = 1);
#else
        STEP(if :: cell[q] == w -> cell[q] = WORD(TURN(w), me, LEASED); ok = 1 :: else fi);
#endif
        if
        :: ok -> p = TURN(w) * N + q; s = 0; e = 0; q = 0; x = 0; w = WORD(LAP(p), me, LEASED); ok = 0; goto deliver
        :: else
        fi
      :: else
      fi;
      q++
    :: else -> break
    od;
    w = 0; q = 0;
    STEP(if :: returned_seen == e -> returned_seen = s :: else fi);
    s = 0; e = 0;
    goto again
  :: else
  fi;
  s = 0; e = 0;

  STEP(x = head);
  p = POS(x);
  STEP(w = cell[p % N]);
  if
  :: !TAKEABLE(w, p) -> goto nothing
  :: else
  fi;
#ifdef SC
  STEP(head = INDEX(p + 1, 1, me));
#else
#ifndef BUG_NO_HELP
  if
  :: WHO(x) != me && WHO(x) != 0 -> HELP(head, crec)
  :: else
  fi;
#endif
  STEP(if :: head == x -> head = INDEX(p + 1, 1, me); ok = 1 :: else fi);
  if
  :: !ok -> goto again
  :: else -> ok = 0
  fi;
  STEP(assert(RPOS(crec[p % N]) <= p); crec[p % N] = REC(p, me));
#endif
  x = 0;
  if
  :: KIND(w) == TOMB -> STEP(cell[p % N] = WORD(LAP(p) + 1, 0, FREE)); w = 0; goto again
  :: else
  fi;

deliver:
  DELIVER(p);
  if
  :: STEP(assert(cell[p % N] == w); cell[p % N] = WORD(LAP(p) + 1, 0, FREE); acked[p] = 1; holder[p] = 0)
  :: atomic { nacks > 0 -> nacks-- }
#ifdef BUG_RAISE_FIRST /* the sequence is raised before the cell is returned */
    STEP(returned_seq++);
#endif
    STEP(cell[p % N] = WORD(LAP(p), 0, RETURNED); holder[p] = 0);
#ifndef BUG_RAISE_FIRST
    STEP(returned_seq++);
#endif
  fi;
  w = 0; p = 0;
  goto again;

nothing:
  w = 0;
#ifdef SHUT
  /* Shut down and nothing claimed beyond head: nothing can come any more. */
  STEP(ok = shut);
  if
  :: ok ->
    ok = 0;
    STEP(if :: POS(tail) == p -> pipe_seen = 1 :: else fi)
  :: else
  fi;
#endif
  atomic {
    (head != x || TAKEABLE(cell[p % N], p) || returned_seq != returned_seen || QUIET) ->
    x = 0; p = 0;
    if
    :: QUIET -> goto out
    :: else -> goto again
    fi
  }

dead:
  atomic { !dirty[me] -> x = 0; w = 0; r = 0; p = 0; q = 0; s = 0; e = 0; ok = 0; goto life }
out:
  q = 1;
  do
  :: q < POSITIONS -> assert(!done[q - 1] || acked[q - 1]); q++
  :: else -> break
  od
}

/* recover(i). The kernel gives the lock of i to one at a time and takes it back at death. */
#undef DIE
#define DIE (deaths > 0) -> deaths--; locked[i] = 0; goto dead
proctype recoverer() {
  short x, r, w;
  byte i, q, p;

dead:
  x = 0; r = 0; w = 0; i = 0; q = 0; p = 0;
end_idle:
  atomic {
    if
    :: dirty[1] && !locked[1] -> i = 1
    :: dirty[2] && !locked[2] -> i = 2
    :: dirty[3] && !locked[3] -> i = 3
    :: dirty[4] && !locked[4] -> i = 4
    :: dirty[5] && !locked[5] -> i = 5
    fi;
    locked[i] = 1
  }
#ifdef BUG_ROLE_EARLY /* the role is free before its claims are repaired */
  STEP(if :: prole == i -> prole = 0 :: else fi);
#endif
#ifndef BUG_RECOVER_NO_RECORD /* recovery forgets the run that the index still names */
#ifndef SP
  STEP(x = tail);
  if
  :: WHO(x) == i -> HELP(tail, prec)
  :: else
  fi;
  x = 0; q = 0; r = 0;
#endif
#ifndef SC
  STEP(x = head);
  if
  :: WHO(x) == i -> HELP(head, crec)
  :: else
  fi;
  x = 0; q = 0; r = 0;
#endif
#endif
#ifdef BUG_RAISE_FIRST
  STEP(returned_seq++);
#endif
  do
  :: q < N ->
#ifdef SP
    STEP(if :: prole == i -> r = tail :: else fi);
    p = POS(r);
    if
    :: r != 0 -> /* the position of this cell in [tail - N, tail) */
      if
      :: p > 0 && (p - 1) % N == q -> p = p - 1
      :: p > 1 && (p - 2) % N == q -> p = p - 2
      :: else -> r = 0
      fi
    :: else
    fi;
    if
    :: r != 0 ->
#else
    STEP(r = prec[q]);
    if
    :: WHO(r) == i ->
      p = RPOS(r);
#endif
#ifdef BUG_TURN /* another lap's claim is taken for the dead one's */
      STEP(if :: KIND(cell[q]) == FREE -> cell[q] = WORD(TURN(cell[q]), 0, TOMB) :: else fi)
#else
      STEP(if :: cell[q] == WORD(LAP(p), 0, FREE) -> cell[q] = WORD(LAP(p), 0, TOMB) :: else fi)
#endif
    :: else
    fi;
    r = 0; p = 0;
#ifdef SC
    STEP(if :: crole == i -> r = head :: else fi);
    p = POS(r);
    if
    :: r != 0 ->
      if
      :: p > 0 && (p - 1) % N == q -> p = p - 1
      :: p > 1 && (p - 2) % N == q -> p = p - 2
      :: else -> r = 0
      fi
    :: else
    fi;
    if
    :: r != 0 ->
#else
    STEP(r = crec[q]);
    if
    :: WHO(r) == i ->
      p = RPOS(r);
#endif
      r = 0;
      STEP(w = cell[q]);
      if
      :: w == WORD(LAP(p), 0, READY) ->
#ifdef BUG_DROP_LEASE /* what the dead held is freed, not returned */
        STEP(if :: cell[q] == w -> cell[q] = WORD(LAP(p) + 1, 0, FREE) :: else fi)
#else
        STEP(if :: cell[q] == w -> assert(holder[p] == 0 || holder[p] == i); holder[p] = 0; cell[q] = WORD(LAP(p), 0, RETURNED) :: else fi)
#endif
      :: w == WORD(LAP(p), 0, TOMB) ->
        STEP(if :: cell[q] == w -> cell[q] = WORD(LAP(p) + 1, 0, FREE) :: else fi)
      :: else
      fi
    :: else
    fi;
    r = 0; p = 0;
    STEP(w = cell[q]);
    if
    :: KIND(w) == LEASED && OWNER(w) == i ->
      STEP(if :: cell[q] == w -> holder[TURN(w) * N + q] = 0; cell[q] = WORD(TURN(w), 0, RETURNED) :: else fi)
    :: else
    fi;
    w = 0;
    q++
  :: else -> break
  od;
  q = 0;
#ifndef BUG_RAISE_FIRST
  STEP(returned_seq++); /* always: the dead may have returned a message and not said so */
#endif
#ifdef SP
  STEP(if :: prole == i -> prole = 0 :: else fi);
#endif
#ifdef SC
  STEP(if :: crole == i -> crole = 0 :: else fi);
#endif
  STEP(dirty[i] = 0; dirt--; locked[i] = 0);
  goto dead
}

#ifdef SHUT
proctype closer() {
  shut = 1
}
#endif

init {
  atomic {
    byte n = 1;
    do
    :: n <= P -> run producer(n); n++
    :: n > P && n <= P + C -> run consumer(n); n++
    :: else -> break
    od;
    n = 0;
    do
    :: n < R -> run recoverer(); n++
    :: else -> break
    od;
#ifdef SHUT
    run closer();
#endif
  }
}
