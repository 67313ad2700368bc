/* SPDX-License-Identifier: Apache-2.0
 *
 * Every call that the library makes of the system, made to fail once: for each operation its first, second,
 * third ... call, with each of several errors. The operation then reports a clean error or copes,
 * leaves no descriptor, mapping, name or lock behind, and works when it is tried again.
 *
 * The functions below stand before libc's for libshmq.so, count, and fail one of the calls.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "support/check.h"

/* ---- injection ---- */

static int countdown; /* 0: nothing is injected */
static int injected;  /* the error */
static bool fired;
static const char *where;

static bool fails(const char *name) {
  if (countdown == 0 || --countdown > 0) return false;
  fired = true;
  where = name;
  errno = injected;
  return true;
}

#pragma GCC visibility push(default) /* libshmq.so must find these */
#define NEXT(name) ((__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name))
#define FAULTY(type, name, parameters, arguments, failure) \
  type name parameters {                                   \
    if (fails(#name)) return failure;                      \
    return NEXT(name) arguments;                           \
  }

FAULTY(int, shm_open, (const char *n, int f, mode_t m), (n, f, m), -1)
FAULTY(int, shm_unlink, (const char *n), (n), -1)
FAULTY(int, memfd_create, (const char *n, unsigned f), (n, f), -1)
FAULTY(int, ftruncate, (int fd, off_t n), (fd, n), -1)
FAULTY(int, posix_fallocate, (int fd, off_t o, off_t n), (fd, o, n), injected)
FAULTY(int, fchmod, (int fd, mode_t m), (fd, m), -1)
FAULTY(void *, mmap, (void *a, size_t n, int p, int f, int fd, off_t o), (a, n, p, f, fd, o), MAP_FAILED)
FAULTY(ssize_t, pread, (int fd, void *b, size_t n, off_t o), (fd, b, n, o), -1)
FAULTY(ssize_t, getrandom, (void *b, size_t n, unsigned f), (b, n, f), -1)
FAULTY(int, eventfd, (unsigned n, int f), (n, f), -1)
FAULTY(void *, calloc, (size_t n, size_t s), (n, s), NULL)

int open(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
  va_end(args);
  return fails("open") ? -1 : NEXT(open)(path, flags, mode);
}
int fcntl(int fd, int command, ...) {
  va_list args;
  va_start(args, command);
  void *argument = va_arg(args, void *);
  va_end(args);
  return fails("fcntl") ? -1 : NEXT(fcntl)(fd, command, argument);
}
long syscall(long number, ...) {
  va_list args;
  long a[6];
  va_start(args, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
  va_end(args);
  return fails("syscall") ? -1 : NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#pragma GCC visibility pop

/* ---- what must not leak ---- */

static char name[64];
static int fd; /* a memfd segment for everything but create */

static int mappings(void) {
  char line[512];
  int n = 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  while (fgets(line, sizeof line, maps)) n += strstr(line, "shmq") && !strstr(line, ".so");
  fclose(maps);
  return n;
}
static bool name_exists(void) {
  char path[96];
  snprintf(path, sizeof path, "/dev/shm/shmq.%s", name);
  return access(path, F_OK) == 0;
}
/* Participants that are there or were not cleaned up. */
static uint32_t participants(void) {
  shmq_view *view;
  shmq_segment_info info;
  EXPECT(shmq_view_open_fd(&view, fd), 0);
  EXPECT(shmq_view_segment(view, &info), 0);
  shmq_view_close(view);
  return info.participants;
}

/* ---- operations: each does a whole thing and undoes it; 0 or the error of the thing ---- */

static const shmq_queue_options timed = {.capacity = 4, .message_bytes = 16, .flags = SHMQ_TIMED};
static const shmq_options small = {.queues = &timed, .queue_count = 1, .participants = 4, .blocks = 2,
                                   .block_bytes = 256};

/* Undoing is not part of what is tested: nothing fails there. */
static void disarm(void) { countdown = 0; }

static int op_create(void) {
  int rc = shmq_create(name, &small);
  disarm();
  /* A lock that is refused with EAGAIN is another creator's, and so is the name then. */
  if (rc == -EEXIST && injected == EAGAIN) {
    EXPECT(shmq_unlink(name), 0);
    return rc;
  }
  CHECK((rc == 0) == name_exists(), "create gave %s when %s failed with %s", shmq_strerror(rc),
        fired ? where : "nothing", strerror(injected));
  if (rc == 0) EXPECT(shmq_unlink(name), 0);
  return rc;
}

static int op_create_memfd(void) {
  int made = -1, rc = shmq_create_memfd(&small, &made);
  disarm();
  if (rc == 0) close(made);
  return rc;
}

static int op_unlink(void) {
  int keep = countdown;
  countdown = 0;
  EXPECT(shmq_create(name, &small), 0);
  countdown = keep;
  int rc = shmq_unlink(name);
  disarm();
  CHECK((rc < 0) == name_exists());
  if (rc < 0) EXPECT(shmq_unlink(name), 0);
  return rc;
}

static int op_attach(void) {
  shmq_segment *s;
  int rc = shmq_attach_fd(&s, fd);
  disarm();
  if (rc == 0) shmq_detach(s);
  return rc;
}

static int op_open_by_name(void) {
  shmq *q;
  int keep = countdown;
  countdown = 0;
  EXPECT(shmq_create(name, &small), 0);
  countdown = keep;
  int rc = shmq_open(&q, name, 0);
  disarm();
  if (rc == 0) shmq_close(q);
  EXPECT(shmq_unlink(name), 0);
  return rc;
}

static int with_queue(int (*work)(shmq *)) {
  int keep = countdown;
  shmq_segment *s;
  countdown = 0;
  shmq *q = open_fd(fd, &s);
  countdown = keep;
  int rc = work(q);
  disarm();
  shmq_close(q);
  shmq_detach(s);
  return rc;
}

static int join_only(shmq *q) { return shmq_join_segment(shmq_segment_of(q), "role", "label"); }
static int op_join(void) { return with_queue(join_only); }

static int put_and_get(shmq *q) {
  int rc = put_number(q, 1);
  if (rc < 0) return rc;
  int64_t n = get_number(q, SHMQ_NOWAIT);
  if (n < 0) {
    disarm(); /* the message stays, and is there for the asking */
    EXPECT(get_number(q, SHMQ_NOWAIT), 1);
    return (int)n;
  }
  return 0;
}
static int op_put_get(void) { return with_queue(put_and_get); }

/* Sleeps twice: in a get that times out, and in a wait. */
static int wait_in_vain(shmq *q) {
  shmq_wait_item item = {.queue = q, .want = SHMQ_READABLE};
  int64_t n = get_number(q, shmq_after_ns(3 * MILLISECOND));
  if (n != -ETIMEDOUT) return (int)n;
  int rc = shmq_wait(&item, 1, shmq_after_ns(3 * MILLISECOND));
  return rc == -ETIMEDOUT ? 0 : rc;
}
static int op_wait(void) { return with_queue(wait_in_vain); }

static int make_event_fd(shmq *q) {
  int event = shmq_event_fd(q);
  if (event < 0) return event;
  int rc = shmq_event_arm(q);
  return rc < 0 ? rc : 0;
}
static int op_event_fd(void) { return with_queue(make_event_fd); }

static void die_with_a_lease(void *unused) {
  (void)unused;
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message m;
  EXPECT(put_number(q, 7), 0);
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  _exit(0);
}
static int recover_one(shmq *q) {
  int rc = shmq_recover(shmq_segment_of(q));
  disarm();
  if (rc != 1) EXPECT(shmq_recover(shmq_segment_of(q)), 1);
  EXPECT(get_number(q, SHMQ_NOWAIT), 7);
  return rc < 0 ? rc : 0;
}
static int op_recover(void) {
  int keep = countdown;
  countdown = 0;
  SUCCEEDED(child(die_with_a_lease, NULL));
  countdown = keep;
  return with_queue(recover_one);
}

static int op_view(void) {
  shmq_view *view;
  shmq_audit audit;
  int rc = shmq_view_open_fd(&view, fd);
  if (rc == 0) (void)shmq_view_audit(view, &audit);
  disarm();
  if (rc == 0) shmq_view_close(view);
  return rc;
}

/* The descriptor for the child's own locks cannot be had: its calls say so, and the parent is unharmed. */
static int fork_and_use(shmq *q) {
  int keep = countdown;
  countdown = 0;
  EXPECT(put_number(q, 5), 0);
  fflush(NULL);
  countdown = keep;
  pid_t pid = fork();
  if (pid == 0) {
    disarm();
    int64_t n = get_number(q, SHMQ_NOWAIT);
    CHECK(n == 5 || (fired && n == -ESTALE), "%ld", (long)n);
    shmq_segment *s = shmq_segment_of(q);
    shmq_close(q);
    shmq_detach(s);
    _exit(n != 5 ? 3 : fired ? 4 : 0);
  }
  disarm();
  int status = ended(pid), code = WEXITSTATUS(status);
  CHECK(WIFEXITED(status) && (code == 0 || code == 3 || code == 4), "the child ended with %d", status);
  fired = code != 0;
  where = "one in the child";
  EXPECT(get_number(q, SHMQ_NOWAIT), code == 3 ? 5 : -EAGAIN);
  return 0;
}
static int op_fork(void) { return with_queue(fork_and_use); }

static const struct {
  const char *name;
  int (*run)(void);
} operations[] = {{"create", op_create}, {"create_memfd", op_create_memfd}, {"unlink", op_unlink},
                  {"attach", op_attach}, {"open", op_open_by_name}, {"join", op_join},
                  {"put and get", op_put_get}, {"wait", op_wait}, {"event_fd", op_event_fd},
                  {"recover", op_recover}, {"view", op_view}, {"fork", op_fork}};

/* One run with the nth call failing. False: there were fewer calls. */
static bool one(size_t operation, int nth, int error) {
  int fds = count_entries("/proc/self/fd"), maps = mappings();
  fired = false;
  injected = error;
  countdown = nth;
  int rc = operations[operation].run();
  disarm();
  if (!fired) {
    EXPECT(rc, 0);
    return false;
  }
#define SAY "%s with call %d (%s) failing with %s: %s", operations[operation].name, nth, where, \
            strerrorname_np(error), shmq_strerror(rc)
  CHECK(rc <= 0 && strcmp(shmq_strerror(rc), "unknown error") != 0, SAY);
  CHECK(count_entries("/proc/self/fd") == fds, SAY);
  CHECK(mappings() == maps, SAY);
  CHECK(!name_exists(), SAY);
  CHECK(participants() == 0, SAY);
  rc = operations[operation].run();
  CHECK(rc == 0, "the retry of " SAY);
  return true;
}

int main(void) {
  const int errors[] = {ENOSPC, EMFILE, ENOMEM, EINTR, EAGAIN, ENOSYS, EPERM};
  int injections = 0;
  snprintf(name, sizeof name, "t-faults-%d", getpid());
  EXPECT(shmq_create_memfd(&small, &fd), 0);
  for (size_t o = 0; o < sizeof operations / sizeof *operations; o++) {
    EXPECT(operations[o].run(), 0); /* once without, so that what is made once is there */
    int calls = 0;
    while (one(o, calls + 1, errors[0])) calls++;
    for (int nth = 1; nth <= calls; nth++)
      for (size_t e = 1; e < sizeof errors / sizeof *errors; e++) (void)one(o, nth, errors[e]);
    printf("%s: %d calls\n", operations[o].name, calls);
    injections += calls * (int)(sizeof errors / sizeof *errors);
    CHECK(calls > 0 || o == 6, "%s makes no call that could fail", operations[o].name);
  }
  printf("%d failures injected\n", injections);
  close(fd);
  return 0;
}
