/* SPDX-License-Identifier: Apache-2.0
 *
 * Checks and processes for plain test programs, which use the library as anybody does.
 */
#ifndef TEST_CHECK_H
#define TEST_CHECK_H

#include <dirent.h>
#include <errno.h>
#include <shmq/inspect.h>
#include <shmq/shmq.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MILLISECOND INT64_C(1000000)
/* Long enough for a loaded machine; only a call that hangs ever waits as long. */
#define PATIENCE shmq_after_ns(60000 * MILLISECOND)
enum { SKIPPED = 77 };

#define CHECK(condition, ...)                                                     \
  do {                                                                            \
    if (!(condition)) {                                                           \
      fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);             \
      fprintf(stderr, " " __VA_ARGS__);                                           \
      fprintf(stderr, "\n");                                                      \
      _exit(1);                                                                   \
    }                                                                             \
  } while (0)

/* The call must return `expected`; says what it returned otherwise. */
#define EXPECT(call, expected)                                                                \
  do {                                                                                        \
    long got_ = (long)(call), want_ = (long)(expected);                                       \
    CHECK(got_ == want_, "%s gave %ld (%s), not %ld", #call, got_, shmq_strerror((int)got_), want_); \
  } while (0)

static inline int put_number(shmq *q, uint64_t n) { return shmq_put(q, &n, sizeof n, SHMQ_NOWAIT); }

/* The number got, or a negative errno. */
static inline int64_t get_number(shmq *q, int64_t deadline) {
  uint64_t n = 0;
  ssize_t rc = shmq_get(q, &n, sizeof n, deadline);
  return rc < 0 ? rc : rc == sizeof n ? (int64_t)n : -EPROTO;
}

/* Attach to a memfd and open its first queue; *s goes with shmq_detach. */
static inline shmq *open_fd(int fd, shmq_segment **s) {
  shmq *q;
  EXPECT(shmq_attach_fd(s, fd), 0);
  EXPECT(shmq_open_in(&q, *s, NULL, 0), 0);
  return q;
}

static inline int small_memfd(uint32_t flags, uint32_t participants) {
  shmq_queue_options queue = {.capacity = 8, .message_bytes = 16, .flags = flags};
  shmq_options o = {.queues = &queue, .queue_count = 1, .participants = participants};
  int fd;
  EXPECT(shmq_create_memfd(&o, &fd), 0);
  return fd;
}

/* A child of a test that is killed goes with it. */
static inline pid_t child(void (*work)(void *), void *argument) {
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    work(argument);
    _exit(0);
  }
  return pid;
}

/* Its wait status. */
static inline int ended(pid_t pid) {
  int status;
  CHECK(waitpid(pid, &status, 0) == pid);
  return status;
}
#define SUCCEEDED(pid) CHECK(ended(pid) == 0, "child")

static inline int count_entries(const char *directory) {
  DIR *d = opendir(directory);
  int n = 0;
  CHECK(d, "%s", directory);
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

#endif
