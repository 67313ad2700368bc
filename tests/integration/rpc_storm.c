/* SPDX-License-Identifier: Apache-2.0
 *
 * Askers and servers that are killed all the time. Eight askers call three servers of two services, one that executes
 * again what may be repeated and one that never does, and every 50 ms one of the eleven is killed and replaced.
 *
 *   Every call ends in exactly one of value, error, death of the owner, deadline; each of them occurs.
 *   No answer reaches the wrong asker: every answer carries who asked, and for what.
 *   None is left without an end; that of an asker that is killed in the middle is the only one.
 *   No call outlives its deadline by more than MS in which its process had a processor.
 *   Nothing leaks: afterwards every slot, message and block is free again, and both services work as on the first day.
 *
 *   rpc_storm [CALLS [MS]]
 *
 * The full size is rpc_storm 100000 5. Without MS it only says how late the latest call was: where every processor has
 * more to do than it can, the clocks of late_since no longer tell who kept whom.
 */
#include "support/service.h"
#include "support/stalls.h"

enum {
  ASKERS = 8,
  SERVERS = 3,
  SERVICES = 2,
  KILL_MS = 50,
  LATE_MAX = 4096,
  HUNG_MS = 5000,
  LARGE = 2000
};
enum { OP_NOTHING = 1, OP_WORK, OP_WRONG, OP_SLOW };

/* How calls ended. */
enum { VALUE, ERROR, DIED, EXPIRED, ENDS };
static const char *const names[ENDS] = {"values", "errors", "died", "expired"};

static struct board {
  _Atomic uint64_t ends[ENDS];
  _Atomic uint64_t strange; /* any other end */
  _Atomic uint64_t wrong;   /* somebody else's answer */
  _Atomic unsigned late_count;
  struct span late[LATE_MAX];
  struct {
    _Atomic uint64_t begun, ended;
    _Atomic int64_t deadline_ns; /* of the call that was begun */
  } asker[ASKERS];
} * board;

static int fds[SERVICES]; /* the first repeats, the second never does */

static uint64_t sum_of_ends(void) {
  uint64_t sum = board->strange + board->wrong;
  for (int i = 0; i < ENDS; i++) sum += board->ends[i];
  return sum;
}

/* ---- servers ---- */

static int answer(shmq_incoming *in) {
  return shmq_reply_value(in, in->header.value, in->data, in->size);
}
static int on_nothing(shmq_incoming *in, void *ctx) {
  (void)ctx;
  answer(in);
  return 0;
}
static int on_work(shmq_incoming *in, void *ctx) {
  (void)ctx;
  nap_ms((long)(in->header.value[0] % 4));
  answer(in);
  return 0;
}
static int on_wrong(shmq_incoming *in, void *ctx) {
  (void)ctx;
  shmq_answer a = {.status = -ERANGE,
                   .error_class = SHMQ_CLASS_CLIENT,
                   .value = {in->header.value[0], in->header.value[1]}};
  shmq_reply_answer(in, &a);
  return 0;
}
static int on_slow(shmq_incoming *in, void *ctx) {
  (void)ctx;
  for (int i = 0; i < 100 && !shmq_cancelled(in); i++) nap_ms(1);
  answer(in);
  return 0;
}

static void serve(int fd) {
  static const shmq_handler handlers[] = {
      {OP_NOTHING, on_nothing}, {OP_WORK, on_work}, {OP_WRONG, on_wrong}, {OP_SLOW, on_slow}};
  shmq_service *s;
  MUST(shmq_service_open_fd(&s, fd, 0));
  MUST(shmq_service_run(s, handlers, 4, NULL, SHMQ_FOREVER));
}

/* ---- how late ---- */

/* The few that were late are judged at the end, when it is known what the machine did meanwhile. */
static void note_late(struct span late) {
  if (late.to_ns - late.from_ns < MILLISECOND) return;
  unsigned n = board->late_count++;
  if (n < LATE_MAX) board->late[n] = late;
}

static int64_t latest(const struct stalls *stalls) {
  int64_t most = 0;
  for (unsigned i = 0; i < board->late_count && i < LATE_MAX; i++) {
    int64_t late = without_stalls(stalls, board->late[i]);
    if (late > most) most = late;
  }
  return most;
}

/* Await with a look at the clocks every millisecond before the deadline; the wait that ends behind it is one that
 * knows of no deadline but the request's. */
static int await(shmq_future *f, shmq_result *r, int64_t deadline_ns) {
  struct moment before = moment();
  int64_t until = deadline_ns - 20 * MILLISECOND;
  int64_t due =
      before.now_ns > deadline_ns ? before.now_ns : deadline_ns; /* it took long to be sent */
  int rc = -EAGAIN;
  r->more = 1;
  for (; rc == -EAGAIN && r->more && until < deadline_ns; until += MILLISECOND) {
    before = moment();
    if (until > before.now_ns) rc = shmq_await(f, r, until);
  }
  if (rc == -EAGAIN && r->more) rc = shmq_await(f, r, SHMQ_FOREVER);
  note_late(late_since(before, due));
  return rc;
}

/* ---- askers ---- */

static int end_of(int rc, const shmq_result *r, const shmq_ask *a) {
  bool mine = r->value[0] == a->value[0] && r->value[1] == a->value[1];
  if (rc == 0) mine = mine && r->size == (a->part_count ? LARGE : 0);
  if (rc == 0 || rc == -ERANGE) {
    if (!mine) board->wrong++;
    return rc || a->op == OP_WRONG ? (rc && a->op == OP_WRONG ? ERROR : ENDS) : VALUE;
  }
  if (rc == -EOWNERDEAD && r->executed == SHMQ_EXECUTED_UNKNOWN) return DIED;
  return rc == -ETIMEDOUT ? EXPIRED : ENDS;
}

static void ask(shmq_client *c, int number, uint64_t n) {
  static char large[LARGE];
  static const uint16_t ops[32] = {[3] = OP_WORK,  [9] = OP_WORK,   [15] = OP_WORK,
                                   [21] = OP_WORK, [27] = OP_WRONG, [31] = OP_SLOW};
  uint16_t op = ops[n % 32] ? ops[n % 32] : OP_NOTHING;
  struct iovec part = {large, sizeof large};
  shmq_ask a = {.op = op,
                .value = {n, ~((uint64_t)getpid() << 32 | n)},
                .flags = n / 32 % 2 ? SHMQ_ASK_IDEMPOTENT : 0,
                .parts = &part,
                .part_count = n % 8 == 5};
  int64_t deadline = shmq_after_ns((op == OP_SLOW ? 10 : 10000) * MILLISECOND);
  board->asker[number].deadline_ns = deadline;
  shmq_future *f;
  shmq_result r = {0};
  int rc = shmq_request(c, &a, deadline, &f);
  if (rc == 0) {
    rc = await(f, &r, deadline);
    shmq_future_free(f);
  }
  int end = end_of(rc, &r, &a);
  if (end == ENDS) fprintf(stderr, "a call ended with %s\n", shmq_strerror(rc));
  (*(end == ENDS ? &board->strange : &board->ends[end]))++;
}

static void ask_for_ever(int number) {
  shmq_client *c[SERVICES];
  for (int i = 0; i < SERVICES; i++) c[i] = asker(fds[i]);
  for (uint64_t n = 0;; n++) {
    board->asker[number].begun++;
    ask(c[n / 64 % SERVICES], number, n);
    board->asker[number].ended++;
  }
}

/* ---- the storm ---- */

static pid_t start(int which) {
  pid_t pid = fork();
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (which < ASKERS)
    ask_for_ever(which);
  else
    serve(fds[which % SERVICES]);
  _exit(1);
}

/* Its call, if it was in the middle of one, has no end. */
static void kill_one(pid_t pid, int which) {
  int status;
  kill(pid, SIGKILL);
  CHECK(waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "%d ended by itself", which);
  if (which >= ASKERS) return;
  uint64_t open = board->asker[which].begun - board->asker[which].ended;
  CHECK(open <= 1);
  CHECK(!open || board->asker[which].deadline_ns > shmq_now_ns() - HUNG_MS * MILLISECOND,
        "asker %d hung", which);
  board->asker[which].ended += open;
}

static bool enough(uint64_t calls) {
  bool all = sum_of_ends() >= calls;
  for (int i = 0; i < ENDS; i++) all = all && board->ends[i] > 0;
  return all;
}

static int storm(uint64_t calls) {
  pid_t pids[ASKERS + SERVERS];
  unsigned seed = 1;
  int kills = 0;
  for (int i = 0; i < ASKERS + SERVERS; i++) pids[i] = start(i);
  for (; !enough(calls); kills++) {
    nap_ms(KILL_MS);
    int victim = (int)((unsigned)rand_r(&seed) % (ASKERS + SERVERS));
    kill_one(pids[victim], victim);
    pids[victim] = start(victim);
  }
  for (int i = 0; i < ASKERS + SERVERS; i++) kill_one(pids[i], i);
  return kills;
}

/* ---- afterwards ---- */

static void check_service(int fd) {
  shmq_client *c[ASKERS];
  shmq_result r;
  for (int i = 0; i < ASKERS; i++) c[i] = asker(fd); /* every slot */
  pid_t server = start_server(fd);
  for (int i = 0; i < 1000; i++) EXPECT(ask_value(c[i % ASKERS], OP_ECHO, 1, &r), 0);
  EXPECT(ask_value(c[0], OP_STOP, 1, &r), 0);
  int status;
  CHECK(waitpid(server, &status, 0) == server && status == 0); /* killed, it may die before it acks */
  for (int i = 0; i < ASKERS; i++) shmq_client_close(c[i]);
}

static void check_nothing_leaks(int fd) {
  shmq_segment *s;
  shmq_view *view;
  shmq_audit found;
  shmq_segment_info segment;
  shmq_queue_info queue;
  MUST(shmq_attach_fd(&s, fd));
  MUST(shmq_recover(s));
  MUST(shmq_view_open_fd(&view, fd));
  MUST(shmq_view_audit(view, &found));
  EXPECT(found.held_by_dead, 0);
  EXPECT(found.leaked_blocks, 0);
  EXPECT(found.damaged, 0);
  EXPECT(found.unexplained, 0);
  MUST(shmq_view_segment(view, &segment));
  EXPECT(segment.blocks_free, segment.blocks);
  for (uint32_t i = 0; i < segment.queues; i++) {
    MUST(shmq_view_queue(view, i, &queue));
    CHECK(queue.leased == 0 && queue.reserved == 0, "%s", queue.name);
  }
  MUST(shmq_view_queue(view, 0, &queue));
  EXPECT(queue.depth, 0);
  shmq_view_close(view);
  shmq_detach(s);
}

int main(int argc, char **argv) {
  uint64_t calls = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000;
  for (int i = 0; i < SERVICES; i++) {
    shmq_service_options o = {.askers = ASKERS,
                              .credits = 4,
                              .blocks = 4 * ASKERS,
                              .block_bytes = LARGE,
                              .participants = 200,
                              .redeliver = i ? SHMQ_REDELIVER_NEVER : SHMQ_REDELIVER_IDEMPOTENT};
    MUST(shmq_service_create_memfd(&o, &fds[i]));
  }
  board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(board != MAP_FAILED);
  for (int i = 0; i < ASKERS; i++) board->asker[i].deadline_ns = SHMQ_FOREVER; /* none asks yet */
  int descriptors = count_entries("/proc/self/fd");
  struct stalls *stalls = stalls_begin();
  int kills = storm(calls);
  stalls_end(stalls);
  for (int i = 0; i < SERVICES; i++) {
    check_service(fds[i]);
    check_nothing_leaks(fds[i]);
  }
  printf("kills=%d calls=%llu", kills, (unsigned long long)sum_of_ends());
  for (int i = 0; i < ENDS; i++) printf(" %s=%llu", names[i], (unsigned long long)board->ends[i]);
  printf(" wrong=%llu strange=%llu latest_ms=%.2f\n", (unsigned long long)board->wrong,
         (unsigned long long)board->strange, (double)latest(stalls) / MILLISECOND);
  fflush(stdout);
  EXPECT(count_entries("/proc/self/fd"), descriptors);
  EXPECT(board->wrong, 0);
  EXPECT(board->strange, 0);
  CHECK(board->late_count <= LATE_MAX);
  CHECK(argc < 3 || latest(stalls) <= atoi(argv[2]) * MILLISECOND);
  return 0;
}
