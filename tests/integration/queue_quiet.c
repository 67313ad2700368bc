/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call costs beside its own instructions when nobody sleeps: no system call, no allocation and no clock
 * read. System calls are counted by the kernel (the process traces itself through its parent); allocations and
 * clock reads by functions that stand before libc's.
 */
#include <dlfcn.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <time.h>

#include "support/check.h"

#if defined(__SANITIZE_ADDRESS__)
/* gcc 12 in Debian comes without its header. */
int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void *, size_t),
                                              void (*free_hook)(const volatile void *));
#endif

static volatile bool counting;
static volatile long allocations, clock_reads;

#if defined(__SANITIZE_ADDRESS__)
static void count_allocation(const volatile void *memory, size_t size) {
  (void)memory;
  (void)size;
  if (counting) allocations++;
}
static void count_nothing(const volatile void *memory) { (void)memory; }
static void count_allocations(void) {
  CHECK(__sanitizer_install_malloc_and_free_hooks(count_allocation, count_nothing) > 0);
}
#else
static void count_allocations(void) {}
#pragma GCC visibility push(default)
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
void *malloc(size_t size) {
  if (counting) allocations++;
  return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
  if (counting) allocations++;
  return __libc_calloc(n, size);
}
void *realloc(void *memory, size_t size) {
  if (counting) allocations++;
  return __libc_realloc(memory, size);
}
#pragma GCC visibility pop
#endif

#pragma GCC visibility push(default)
int clock_gettime(clockid_t clock, struct timespec *now) {
  static int (*next)(clockid_t, struct timespec *);
  if (!next) next = (int (*)(clockid_t, struct timespec *))(uintptr_t)dlsym(RTLD_NEXT, "clock_gettime");
  if (counting) clock_reads++;
  return next(clock, now);
}
#pragma GCC visibility pop

/* ---- the calls ---- */

enum { ROUNDS = 500, CAPACITY = 64 };
static unsigned char data[2048];
static char buffers[8][64];

static void put_get(shmq *q) {
  EXPECT(shmq_put(q, data, 40, SHMQ_NOWAIT), 0);
  EXPECT(shmq_get(q, data, sizeof data, SHMQ_NOWAIT), 40);
}
static void put_get_with_deadline(shmq *q) {
  EXPECT(shmq_put(q, data, 8, SHMQ_FOREVER), 0);
  EXPECT(shmq_get(q, data, sizeof data, SHMQ_FOREVER), 8);
}
static void block(shmq *q) {
  EXPECT(shmq_put(q, data, 1500, SHMQ_NOWAIT), 0);
  EXPECT(shmq_get(q, data, sizeof data, SHMQ_NOWAIT), 1500);
}
static void empty(shmq *q) { EXPECT(shmq_get(q, data, sizeof data, SHMQ_NOWAIT), -EAGAIN); }
static void full(shmq *q) {
  for (int i = 0; i < CAPACITY; i++) EXPECT(shmq_put(q, data, 8, SHMQ_NOWAIT), 0);
  EXPECT(shmq_put(q, data, 8, SHMQ_NOWAIT), -EAGAIN);
  for (int i = 0; i < CAPACITY; i++) EXPECT(shmq_get(q, data, 8, SHMQ_NOWAIT), 8);
}
static void in_place(shmq *q) {
  shmq_message m;
  EXPECT(shmq_reserve(q, 16, &m, SHMQ_NOWAIT), 0);
  EXPECT(shmq_commit(q, &m), 0);
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  EXPECT(shmq_ack(q, &m), 0);
}
static void returned(shmq *q) {
  shmq_message m;
  EXPECT(shmq_put(q, data, 16, SHMQ_NOWAIT), 0);
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  EXPECT(shmq_nack(q, &m), 0);
  EXPECT(shmq_get(q, data, sizeof data, SHMQ_NOWAIT), 16);
}
static void batch(shmq *q) {
  struct iovec iov[8];
  for (int i = 0; i < 8; i++) iov[i] = (struct iovec){buffers[i], 64};
  EXPECT(shmq_put_batch(q, iov, 8, SHMQ_NOWAIT), 8);
  EXPECT(shmq_get_batch(q, iov, 8, SHMQ_NOWAIT), 8);
}
static void step(shmq *q) {
  shmq_message in, out;
  shmq_step steps[2] = {{q, &in}, {q, &out}};
  EXPECT(shmq_put(q, data, 8, SHMQ_NOWAIT), 0);
  EXPECT(shmq_lease(q, &in, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reserve(q, 8, &out, SHMQ_NOWAIT), 0);
  EXPECT(shmq_commit_all(steps, 2), 0);
  EXPECT(shmq_get(q, data, 8, SHMQ_NOWAIT), 8);
}
static void looks(shmq *q) {
  shmq_wait_item item = {.queue = q, .want = SHMQ_READABLE};
  EXPECT(shmq_depth(q), 0);
  EXPECT(shmq_drain(q, SHMQ_NOWAIT), 0);
  EXPECT(shmq_wait(&item, 1, SHMQ_NOWAIT), -EAGAIN);
}

static const struct {
  const char *name;
  void (*call)(shmq *);
} calls[] = {{"put and get", put_get}, {"with a deadline", put_get_with_deadline}, {"in a block", block},
             {"empty", empty}, {"full", full}, {"in place", in_place}, {"nack", returned},
             {"batches", batch}, {"a step", step}, {"looks", looks}};

/* ---- the traced process ---- */

/* The parent counts system calls between two of this kind; see below. */
static void mark(long what) { (void)getpgid((pid_t)what); }
enum { MARK = 0x5eed };

static shmq *new_queue(uint32_t flags) {
  shmq_queue_options queue = {.capacity = CAPACITY, .message_bytes = 64, .flags = flags};
  shmq_options o = {.queues = &queue, .queue_count = 1, .participants = 4, .blocks = 4,
                    .block_bytes = 2048};
  shmq_segment *s;
  int fd;
  EXPECT(shmq_create_memfd(&o, &fd), 0);
  return open_fd(fd, &s);
}

static void work(void) {
  const uint32_t flags[] = {0, SHMQ_SINGLE_PRODUCER, SHMQ_SINGLE_CONSUMER,
                            SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};
  count_allocations();
  for (int f = 0; f < 4; f++) {
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
      shmq *q = new_queue(flags[f]);
      calls[c].call(q); /* joins, and takes the roles */
      allocations = clock_reads = 0;
      mark(MARK);
      counting = true;
      for (int i = 0; i < ROUNDS; i++) calls[c].call(q);
      counting = false;
      mark(MARK);
      /* "empty" alone is a taker that never was anything but a taker, and so on: no waiting anywhere. */
      CHECK(allocations == 0, "%s: %ld allocations", calls[c].name, allocations);
      CHECK(clock_reads == 0, "%s: %ld clock reads", calls[c].name, clock_reads);
      shmq_segment *s = shmq_segment_of(q);
      shmq_close(q);
      shmq_detach(s);
    }
  }
  /* And the counters count: waiting does read the clock, opening does allocate. */
  counting = true;
  shmq *q = new_queue(0);
  EXPECT(shmq_get(q, data, sizeof data, shmq_after_ns(1000)), -ETIMEDOUT);
  counting = false;
  CHECK(allocations > 0 && clock_reads > 0);
  shmq_segment *s = shmq_segment_of(q);
  shmq_close(q);
  shmq_detach(s);
}

/* ---- the tracer ---- */

int main(void) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    CHECK(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
    raise(SIGSTOP);
    work();
    _exit(0); /* a traced process cannot be searched for leaks */
  }
  int status;
  bool entry = true, between = false;
  long inside = 0, all = 0, marks = 0;
  CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
  CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) == 0);
  while (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
         !WIFEXITED(status)) {
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80), "stopped by %d", WSTOPSIG(status));
    if (entry) {
      struct __ptrace_syscall_info info;
      CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info) > 0);
      all++;
      bool mark_here = info.entry.args[0] == MARK;
      if (between && !mark_here) {
        fprintf(stderr, "system call %lu\n", (unsigned long)info.entry.nr);
        inside++;
      }
      if (mark_here) {
        between = !between;
        marks++;
      }
    }
    entry = !entry;
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the traced process ended with %d", status);
  CHECK(marks == 80, "%ld marks", marks);
  CHECK(all > marks + 100, "the tracer sees system calls");
  CHECK(inside == 0, "%ld system calls", inside);
  printf("40 mixes of %d calls: 0 system calls, 0 allocations, 0 clock reads\n", ROUNDS);
  return 0;
}
