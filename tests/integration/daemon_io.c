/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's seam to asynchronous I/O, on the rung that $SHMQD_DAEMON_IO names.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <liburing.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io.h"
#include "io_rung.h"
#include "shmq/shmq.h"

enum { WORDS = 300, STRIDE = 64, BYTES = WORDS * STRIDE, PATIENCE_S = 60 };

static struct io *io;
static char *memory; /* of the words; shared, as a client's is */
static int results[WORDS], calls;

static const char *wanted(void) {
  const char *name = getenv("SHMQD_DAEMON_IO");
  return name ? name : "uring-plain";
}

static char *map(void) {
  char *m = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  cr_assert_neq((void *)m, MAP_FAILED);
  return m;
}

static _Atomic uint32_t *word_in(char *m, int i) {
  return (_Atomic uint32_t *)(void *)(m + STRIDE * i);
}

static void begin(void) {
  static const char *const names[] = {"auto", "uring-futex", "uring-eventfd", "uring-plain",
                                      "threads"};
  int rung = 4;
  while (rung > 0 && strcmp(names[rung], wanted()) != 0) rung--;
  cr_assert_eq(io_open(&io, (enum io_rung)rung), 0);
  memory = map();
}
static void end(void) {
  io_close(io);
  munmap(memory, BYTES);
}
TestSuite(daemon_io, .init = begin, .fini = end, .timeout = 2 * PATIENCE_S);

static void told(struct io_op *op, int result) {
  results[op->bytes] = result;
  calls++;
}

static void run_until(int n) {
  int64_t deadline = shmq_after_ns(PATIENCE_S * INT64_C(1000000000));
  while (calls < n && shmq_now_ns() < deadline) cr_assert_geq(io_run(io, deadline), 0);
  cr_assert_eq(calls, n);
}

static void wait_on(struct io_op *op, int i, uint32_t value) {
  *op = (struct io_op){.what = IO_FUTEX,
                       .buffer = word_in(memory, i),
                       .offset = value,
                       .bytes = (size_t)i, /* whose result */
                       .done = told};
  results[i] = 1;
  io_submit(io, op);
}

static void wake(_Atomic uint32_t *word) {
  atomic_fetch_add(word, 1);
  syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

Test(daemon_io, it_is_the_rung_that_was_asked_for)
{ cr_assert_str_eq(io_name(io), wanted()); }

Test(daemon_io, a_word_that_differs_needs_no_waiting)
{
  struct io_op op;
  wait_on(&op, 0, 7);
  run_until(1);
  cr_assert_eq(results[0], 0);
  cr_assert_eq(io_in_flight(io), 0);
}

static void *wake_all(void *unused) {
  for (int i = 0; i < WORDS; i++) wake(word_in(memory, i));
  return unused;
}

Test(daemon_io, each_of_many_words_is_told_once, .timeout = 2 * PATIENCE_S)
{
  static struct io_op ops[WORDS];
  for (int round = 1; round <= 20; round++) {
    pthread_t thread;
    for (int i = 0; i < WORDS; i++) wait_on(&ops[i], i, (uint32_t)round - 1);
    cr_assert_eq(io_run(io, SHMQ_NOWAIT), 0);
    pthread_create(&thread, NULL, wake_all, NULL);
    run_until(round * WORDS);
    pthread_join(thread, NULL);
    for (int i = 0; i < WORDS; i++) cr_assert_eq(results[i], 0);
  }
  cr_assert_eq(io_in_flight(io), 0);
}

static void cancelled(struct io_op *op, int result) {
  (void)op;
  (void)result;
  calls++;
}

Test(daemon_io, memory_may_go_when_its_wait_was_cancelled, .timeout = 2 * PATIENCE_S)
{
  static struct io_op ops[WORDS], cancels[WORDS];
  for (int i = 0; i < WORDS; i++) wait_on(&ops[i], i, 0);
  cr_assert_eq(io_run(io, SHMQ_NOWAIT), 0);
  for (int i = 1; i < WORDS; i++) {
    cancels[i] = (struct io_op){.what = IO_CANCEL, .target = &ops[i], .done = cancelled};
    io_submit(io, &cancels[i]);
  }
  run_until(2 * (WORDS - 1));
  for (int i = 1; i < WORDS; i++) cr_assert_eq(results[i], -ECANCELED);
  cr_assert_eq(results[0], 1);

  /* The first goes on where it was, the others lie elsewhere now. */
  char *before = memory;
  munmap(before + 4096, BYTES - 4096);
  memory = map();
  for (int i = 1; i < WORDS; i++) wait_on(&ops[i], i, 0);
  calls = 0;
  wake_all(NULL);
  run_until(WORDS - 1);
  wake(word_in(before, 0));
  run_until(WORDS);
  cr_assert_eq(results[0], 0);
  munmap(before, 4096);
}

static int add(struct io_op *op) { return (int)op->offset + 1; }

Test(daemon_io, calls_reads_and_writes)
{
  char text[8] = "written", back[8] = "";
  int fd = memfd_create("daemon_io", MFD_CLOEXEC);
  struct io_op call = {.what = IO_CALL, .call = add, .offset = 41, .bytes = 0, .done = told};
  struct io_op write_op = {.what = IO_WRITE,
                           .fd = fd,
                           .buffer = text,
                           .bytes = sizeof text,
                           .offset = 5,
                           .done = cancelled};
  io_submit(io, &call);
  io_submit(io, &write_op);
  run_until(2);
  cr_assert_eq(results[0], 42);
  cr_assert_eq(write_op.result, (int)sizeof text);
  struct io_op read_op = {.what = IO_READ,
                          .fd = fd,
                          .buffer = back,
                          .bytes = sizeof back,
                          .offset = 5,
                          .done = cancelled};
  struct io_op sync_op = {.what = IO_SYNC, .fd = fd, .done = cancelled};
  io_submit(io, &read_op);
  io_submit(io, &sync_op);
  run_until(4);
  cr_assert_str_eq(back, text);
  cr_assert_eq(read_op.result, (int)sizeof text);
  cr_assert_eq(sync_op.result, 0);
  close(fd);
}

Test(daemon_io, calls_end_while_nothing_else_is_waited_for)
{
  struct io_op op = {.what = IO_CALL, .call = add, .done = told};
  for (int i = 1; i <= 1000; i++) {
    io_submit(io, &op);
    run_until(i);
  }
}

/* The ring of the two upper rungs does what the seam offers and nothing else. */
Test(daemon_io, the_ring_refuses_other_operations)
{
  const struct io_rung_ops *rung = strcmp(wanted(), "uring-futex") == 0     ? &io_uring_futex_rung
                                   : strcmp(wanted(), "uring-eventfd") == 0 ? &io_uring_eventfd_rung
                                                                            : NULL;
  void *state;
  struct io_uring_cqe *cqe;
  if (!rung) return;
  cr_assert_eq(rung->open(&state), 0);
  for (int i = 0; i < 3; i++) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(state);
    if (i == 0) io_uring_prep_nop(sqe);
    if (i == 1) io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY, 0);
    if (i == 2) {
      io_uring_prep_poll_add(sqe, 0, 0);
      io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    cr_assert_eq(io_uring_submit_and_wait(state, 1), 1);
    cr_assert_eq(io_uring_wait_cqe(state, &cqe), 0);
    cr_assert_eq(cqe->res, -EACCES, "case %d: %d", i, cqe->res);
    io_uring_cqe_seen(state, cqe);
  }
  rung->close(state);
}
