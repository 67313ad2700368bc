/* SPDX-License-Identifier: Apache-2.0
 *
 * The descriptor for event loops, in epoll, fed by another process. Run twice: with io_uring and, by
 * SHMQ_EVENT_FD_THREAD, with the helper thread.
 */
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "support/check.h"
#include "support/forbid.h"

enum { QUEUES = 3, ROUNDS = 600, LONG_MS = 60000 };
static int fds[QUEUES];

static bool polls(int epoll, int timeout_ms) {
  struct epoll_event event;
  int n;
  do n = epoll_wait(epoll, &event, 1, timeout_ms);
  while (n < 0 && errno == EINTR);
  return n == 1;
}
static int watch(shmq *q, uint64_t data) {
  int epoll = epoll_create1(EPOLL_CLOEXEC), fd = shmq_event_fd(q);
  CHECK(fd >= 0, "%s", shmq_strerror(fd));
  EXPECT(shmq_event_fd(q), fd); /* the same at each call */
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
  return epoll;
}

/* Once for each kind of event that makes a queue readable. */
static void one_by_one(void) {
  int fd = small_memfd(0, 4);
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message m;
  EXPECT(shmq_event_arm(q), -EINVAL);
  int epoll = watch(q, 0);
  EXPECT(shmq_event_arm(q), 0);
  CHECK(!polls(epoll, 20), "nothing has come");
  EXPECT(put_number(q, 1), 0);
  CHECK(polls(epoll, LONG_MS), "a put");
  EXPECT(shmq_event_arm(q), 1); /* readable: do not poll */
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  EXPECT(shmq_event_arm(q), 0);
  EXPECT(shmq_nack(q, &m), 0);
  CHECK(polls(epoll, LONG_MS), "a nack");
  EXPECT(get_number(q, SHMQ_NOWAIT), 1);
  EXPECT(get_number(q, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(shmq_event_arm(q), 0);
  EXPECT(shmq_event_arm(q), 0); /* again, while armed */
  EXPECT(shmq_shutdown(q), 0);
  CHECK(polls(epoll, LONG_MS), "a shutdown");
  EXPECT(shmq_event_arm(q), 1);
  EXPECT(get_number(q, SHMQ_NOWAIT), -EPIPE);
  close(epoll);
  shmq_close(q);
  shmq_detach(s);
  close(fd);
}

static void feed(void *unused) {
  (void)unused;
  shmq_segment *s[QUEUES];
  shmq *q[QUEUES];
  for (int i = 0; i < QUEUES; i++) q[i] = open_fd(fds[i], &s[i]);
  for (uint64_t n = 0; n < ROUNDS; n++) {
    EXPECT(shmq_put(q[n % QUEUES], &n, sizeof n, PATIENCE), 0);
    if (n % 7 == 0) usleep(200); /* so that the other side really sleeps now and then */
  }
  for (int i = 0; i < QUEUES; i++) EXPECT(shmq_shutdown(q[i]), 0);
  for (int i = 0; i < QUEUES; i++) {
    shmq_close(q[i]);
    shmq_detach(s[i]);
  }
}

/* An event loop over several segments, as the header tells to write one: nothing is missed. */
static void loop(void) {
  int epoll = epoll_create1(EPOLL_CLOEXEC), open = QUEUES;
  shmq_segment *s[QUEUES];
  shmq *q[QUEUES];
  uint64_t next[QUEUES] = {0}, polled = 0;
  for (int i = 0; i < QUEUES; i++) {
    fds[i] = small_memfd(0, 4);
    q[i] = open_fd(fds[i], &s[i]);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, shmq_event_fd(q[i]), &event) == 0);
  }
  pid_t feeder = child(feed, NULL);
  bool finished[QUEUES] = {false};
  while (open > 0) {
    bool wait = true;
    for (int i = 0; i < QUEUES; i++) {
      int64_t n;
      if (finished[i]) continue;
      while ((n = get_number(q[i], SHMQ_NOWAIT)) >= 0)
        CHECK((uint64_t)n == next[i]++ * QUEUES + (uint64_t)i, "%ld in queue %d", (long)n, i);
      finished[i] = n == -EPIPE;
      open -= finished[i];
      CHECK(finished[i] || n == -EAGAIN, "%s", shmq_strerror((int)n));
      if (!finished[i] && shmq_event_arm(q[i]) != 0) wait = false;
    }
    if (open == 0 || !wait) continue;
    CHECK(polls(epoll, LONG_MS), "a wake-up was lost");
    polled++;
  }
  SUCCEEDED(feeder);
  for (int i = 0; i < QUEUES; i++) {
    CHECK(next[i] == ROUNDS / QUEUES);
    shmq_close(q[i]);
    shmq_detach(s[i]);
    close(fds[i]);
  }
  close(epoll);
  printf("%d messages, %lu times asleep\n", ROUNDS, (unsigned long)polled);
}

/* Closing while a wait is under way, and nothing left behind. */
static void closing(void) {
  int fd = small_memfd(0, 4), before = count_entries("/proc/self/fd");
  for (int i = 0; i < 20; i++) {
    shmq_segment *s;
    shmq *q = open_fd(fd, &s);
    CHECK(shmq_event_fd(q) >= 0);
    if (i % 2) EXPECT(shmq_event_arm(q), 0);
    shmq_close(q);
    shmq_detach(s);
  }
  EXPECT(count_entries("/proc/self/fd"), before);
  /* ".", ".." and this thread; who has been joined is still listed for a moment */
  for (int64_t until = PATIENCE; count_entries("/proc/self/task") != 3; usleep(1000))
    CHECK(shmq_now_ns() < until, "a thread is left");
  close(fd);
}

/* A child closes what it inherited, armed or not, and does not disturb its parent. */
struct inherited {
  shmq *q;
  bool again;
};
static void close_inherited(void *argument) {
  const struct inherited *i = argument;
  shmq *q = i->q;
  shmq_segment *s = shmq_segment_of(q);
  alarm(30); /* a close that waits for a thread which the child does not have */
  EXPECT(shmq_event_arm(q), -ESTALE);
  if (i->again) { /* and asks for one of its own */
    int epoll = watch(q, 0);
    EXPECT(shmq_event_arm(q), 0);
    EXPECT(put_number(q, 1), 0);
    CHECK(polls(epoll, LONG_MS), "a descriptor of its own");
    EXPECT(get_number(q, SHMQ_NOWAIT), 1);
    close(epoll);
  }
  shmq_close(q);
  shmq_detach(s);
}
static void forked(void) {
  for (int round = 0; round < 40; round++) {
    int fd = small_memfd(0, 4);
    shmq_segment *s;
    shmq *q = open_fd(fd, &s);
    int epoll = watch(q, 0);
    bool armed = round % 2;
    /* One put wakes one sleeper: the child's, if its parent has not armed. */
    struct inherited i = {.q = q, .again = round % 4 == 2};
    if (armed) EXPECT(shmq_event_arm(q), 0);
    SUCCEEDED(child(close_inherited, &i));
    /* The child's own put and get may have made it readable: arm until it is not. */
    while (shmq_event_arm(q) != 0) EXPECT(get_number(q, SHMQ_NOWAIT), -EAGAIN);
    EXPECT(put_number(q, 1), 0);
    CHECK(polls(epoll, LONG_MS), "the parent's descriptor works on");
    close(epoll);
    shmq_close(q);
    shmq_detach(s);
    close(fd);
  }
}

/* Who cannot make others order their publications may not rely on being woken: it looks at intervals. */
static void unordered(void *argument) {
  shmq_segment *s;
  uint32_t *word, value;
  CHECK(forbid(SYS_membarrier));
  shmq *q = open_fd(*(int *)argument, &s);
  int epoll = watch(q, 0);
  for (int i = 0; i < 3; i++) {
    EXPECT(shmq_event_arm(q), 0);
    CHECK(polls(epoll, LONG_MS), "it looks though nothing was put");
  }
  EXPECT(shmq_event_word(q, &word, &value), -EOPNOTSUPP);
  close(epoll);
  shmq_close(q);
  shmq_detach(s);
}

static void feed_one(void *argument) {
  shmq_segment *s;
  shmq *q = open_fd(*(int *)argument, &s);
  for (uint64_t n = 0; n < ROUNDS; n++) {
    EXPECT(shmq_put(q, &n, sizeof n, PATIENCE), 0);
    if (n % 7 == 0) usleep(200);
  }
  EXPECT(shmq_shutdown(q), 0);
  shmq_close(q);
  shmq_detach(s);
}

/* For those who wait on the word itself, with no bounded look of theirs. */
static void by_word(void) {
  int fd = small_memfd(0, 4);
  shmq_segment *s;
  uint32_t *word, value;
  shmq *q = open_fd(fd, &s);
  pid_t feeder = child(feed_one, &fd);
  int64_t n, next = 0;
  while ((n = get_number(q, SHMQ_NOWAIT)) != -EPIPE) {
    if (n >= 0)
      EXPECT(n, next++);
    else if (shmq_event_word(q, &word, &value) == 0)
      (void)syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
  }
  EXPECT(next, ROUNDS);
  SUCCEEDED(feeder);
  shmq_close(q);
  shmq_detach(s);
  close(fd);
}

int main(void) {
  one_by_one();
  loop();
  closing();
  forked();
  by_word();
  int fd = small_memfd(0, 4);
  SUCCEEDED(child(unordered, &fd));
  return 0;
}
