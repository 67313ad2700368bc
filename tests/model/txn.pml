/* SPDX-License-Identifier: Apache-2.0
 *
 * The redo record: a stage takes a message from one queue and puts its result into another as one step,
 * dying at any step, as does its recoverer. Exactly one result of every message must come out.
 *
 * Each queue is one cell whose turn tells the laps apart. Claims and their records are one step here;
 * ring.pml is about them. Switches: MSGS; DEATHS; BUG_* mutations.
 */
#ifndef MSGS
#define MSGS 3
#endif
#ifndef DEATHS
#define DEATHS 3
#endif
#define FREE 0
#define READY 1
#define TOMB 2
#define RETURNED 3
#define LEASED 4
#define WORD(turn, kind) ((turn) * 8 + (kind))
#define KIND(w) ((w) & 7)
#define TURN(w) ((w) >> 3)

byte in, out;                /* cell words */
byte in_payload, out_payload;
byte taken, claimed;         /* the stage's records: turn + 1 of what it took or claimed last */
byte in_next;                /* next turn that the stage takes from head */
bit returned;                /* raised sequence and seen sequence, as one bit */

byte redo_in, redo_out;      /* the entries: turn + 1, 0: none */
bit redo_leased;             /* the word the input had */
bit committed;

bit dirty, locked;
byte deaths = DEATHS;
byte results[MSGS + 2];      /* the ledger: how often the result of each message came out */
byte through;

#define DIE (deaths > 0) -> deaths--; dirty = 1; goto dead
#define STEP(s) atomic { if :: s :: DIE fi }

active proctype source() {
  byte n;
  do
  :: n < MSGS -> atomic { in == WORD(n, FREE) -> in_payload = n + 1; in = WORD(n, READY) }; n++
  :: else -> break
  od
}

active proctype sink() {
  byte n;
end_idle:
  do
  :: atomic { KIND(out) == READY -> n = out_payload; assert(n > 0 && n <= MSGS && results[n] == 0); results[n]++; through++; n = 0 };
     out = WORD(TURN(out) + 1, FREE)
  :: atomic { KIND(out) == TOMB -> out = WORD(TURN(out) + 1, FREE) }
  od
}

#ifdef BUG_REPLAY_BLIND /* publishes without a look at the cell: a second replay publishes twice */
#define APPLY_OUT out = WORD(redo_out - 1, READY)
#else
#define APPLY_OUT if :: redo_out > 0 && out == WORD(redo_out - 1, FREE) -> out = WORD(redo_out - 1, READY) :: else fi
#endif
#define APPLY_IN \
  if \
  :: redo_in > 0 && (in == WORD(redo_in - 1, READY) || in == WORD(redo_in - 1, LEASED)) -> in = WORD(redo_in, FREE) \
  :: else \
  fi
#ifdef BUG_NO_CLEAR /* the record stays COMMITTED while the next step's entries are written */
#define APPLY_END skip
#else
#define APPLY_END STEP(committed = 0)
#endif
#ifdef BUG_CLEAR_EARLY /* the record is cleared before it is applied */
#define APPLY STEP(committed = 0); STEP(APPLY_OUT); STEP(APPLY_IN)
#else
#define APPLY STEP(APPLY_OUT); STEP(APPLY_IN); APPLY_END
#endif

active proctype stage() {
  byte t, o, m;
  bit leased;

life:
  do
  :: atomic { (through == MSGS || returned || in == WORD(in_next, READY)) -> t = 0 }
    if
    :: through == MSGS -> break
    :: else
    fi;
    if
    :: returned && KIND(in) == RETURNED -> STEP(leased = 1; t = TURN(in); in = WORD(t, LEASED); returned = 0)
    :: returned && KIND(in) != RETURNED -> STEP(returned = 0); goto life
    :: !returned && in == WORD(in_next, READY) -> STEP(t = in_next; taken = t + 1; in_next++)
    :: else -> goto life
    fi;
    /* Reserve the output. */
    atomic { KIND(out) == FREE && claimed != TURN(out) + 1 -> if :: o = TURN(out); claimed = o + 1 :: DIE fi }
    STEP(m = in_payload);
    STEP(out_payload = m);
    m = 0;
#ifdef BUG_STATE_FIRST /* decided before it is written what */
    STEP(committed = 1);
#endif
    STEP(redo_out = o + 1);
    STEP(redo_in = t + 1);
#ifndef BUG_STATE_FIRST
    STEP(committed = 1);
#endif
    APPLY;
    t = 0; o = 0; leased = 0
  od;
  goto out_of_here;
dead:
  atomic { !dirty -> t = 0; o = 0; m = 0; leased = 0; goto life }
out_of_here:
  assert(results[1] == 1 && results[MSGS] == 1)
}

#undef DIE
#define DIE (deaths > 0) -> deaths--; locked = 0; goto dead
#define ROLL_BACK \
  STEP(if :: claimed > 0 && out == WORD(claimed - 1, FREE) -> out = WORD(claimed - 1, TOMB) :: else fi); \
  STEP(if \
       :: taken > 0 && in == WORD(taken - 1, READY) -> in = WORD(taken - 1, RETURNED) \
       :: KIND(in) == LEASED -> in = WORD(TURN(in), RETURNED) \
       :: else \
       fi)

active [2] proctype recoverer() {
dead:
end_idle:
  atomic { dirty && !locked -> locked = 1 }
#ifdef BUG_ROLLBACK_FIRST /* what was decided must roll forward before the rest rolls back */
  ROLL_BACK;
#endif
#ifndef BUG_NO_REPLAY
  if
  :: committed -> APPLY
  :: else
  fi;
#endif
#ifndef BUG_ROLLBACK_FIRST
  ROLL_BACK;
#endif
  STEP(returned = 1);
  STEP(dirty = 0; locked = 0);
  goto dead
}
