/* SPDX-License-Identifier: Apache-2.0
 *
 * What processes do to one another: fork, exec, threads that end, pid namespaces, pids used again, roles
 * of the killed, a full /dev/shm. One case by its name, or all.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "support/check.h"

static int fd;

/* ---- fork ---- */

static void child_takes_part(void *argument) {
  shmq *q = argument;
  shmq_segment *s = shmq_segment_of(q);
  int parents = shmq_participant(s, NULL);
  EXPECT(parents, -ENOTCONN); /* not joined yet, though its parent is */
  EXPECT(put_number(q, 2), 0);
  CHECK(shmq_participant(s, NULL) > 1, "a participant of its own");
  shmq_close(q);
  shmq_detach(s);
}

/* A child joins anew, what its parent holds is the parent's, and its leaving takes nothing along. */
struct inherited {
  shmq *q;
  shmq_message *lease, *reservation;
};
static void child_tries_everything(void *argument) {
  struct inherited *i = argument;
  EXPECT(shmq_ack(i->q, i->lease), -ESTALE);
  EXPECT(shmq_nack(i->q, i->lease), -ESTALE);
  EXPECT(shmq_commit(i->q, i->reservation), -ESTALE);
  EXPECT(put_number(i->q, 3), 0); /* now it has joined, and the messages are no more its own */
  EXPECT(shmq_ack(i->q, i->lease), -ESTALE);
  EXPECT(shmq_abort(i->q, i->reservation), -ESTALE);
  EXPECT(shmq_recover(shmq_segment_of(i->q)), 0); /* the parent lives */
  shmq_segment *s = shmq_segment_of(i->q);
  shmq_close(i->q);
  shmq_detach(s);
}
static void case_fork(void) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message lease, reservation;
  EXPECT(put_number(q, 1), 0);
  SUCCEEDED(child(child_takes_part, q));
  EXPECT(shmq_lease(q, &lease, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reserve(q, 8, &reservation, SHMQ_NOWAIT), 0);
  struct inherited i = {q, &lease, &reservation};
  SUCCEEDED(child(child_tries_everything, &i));
  memset(reservation.data, 0, 8);
  EXPECT(shmq_commit(q, &reservation), 0);
  EXPECT(shmq_ack(q, &lease), 0);
  EXPECT(get_number(q, SHMQ_NOWAIT), 2);
  EXPECT(get_number(q, SHMQ_NOWAIT), 0);
  EXPECT(get_number(q, SHMQ_NOWAIT), 3);
  shmq_close(q);
  shmq_detach(s);
}

/* The parent dies first: its child, alive with an inherited attachment, keeps none of its locks. */
static void grandchild_lingers(void *argument) {
  int *pipe_to_us = argument;
  char c;
  close(pipe_to_us[1]);
  (void)!read(pipe_to_us[0], &c, 1); /* until the test is over */
}
static void parent_dies_first(void *argument) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message m;
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  if (fork() == 0) { /* not child(): it outlives its parent */
    grandchild_lingers(argument);
    _exit(0);
  }
  kill(getpid(), SIGKILL);
}
static void case_parent_dies_first(void) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  int ends[2];
  CHECK(pipe(ends) == 0);
  EXPECT(put_number(q, 5), 0);
  pid_t pid = child(parent_dies_first, ends);
  CHECK(WIFSIGNALED(ended(pid)));
  EXPECT(get_number(q, PATIENCE), 5);
  close(ends[1]);
  close(ends[0]);
  shmq_close(q);
  shmq_detach(s);
}

/* The child is killed first, in the middle of its own work: the parent, of the same attachment, is unharmed. */
static void child_dies_holding(void *argument) {
  shmq *q = argument;
  shmq_message m;
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
  kill(getpid(), SIGKILL);
}
static void case_child_dies_first(void) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message mine;
  EXPECT(put_number(q, 1), 0);
  EXPECT(put_number(q, 2), 0);
  EXPECT(shmq_lease(q, &mine, SHMQ_NOWAIT), 0);
  pid_t pid = child(child_dies_holding, q);
  CHECK(WIFSIGNALED(ended(pid)));
  EXPECT(put_number(q, 3), 0);
  EXPECT(get_number(q, PATIENCE), 2);
  EXPECT(get_number(q, PATIENCE), 3);
  EXPECT(shmq_ack(q, &mine), 0);
  EXPECT(shmq_join(q, PATIENCE), 0);
  shmq_close(q);
  shmq_detach(s);
}

/* ---- exec: the locks do not survive it, though the pid does ---- */

static void execs(void *argument) {
  int *ends = argument;
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message m;
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  dup2(ends[0], 0);
  close(ends[1]);
  execl("/bin/cat", "cat", (char *)NULL);
  _exit(9);
}
static void case_exec(void) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  int ends[2];
  CHECK(pipe2(ends, O_CLOEXEC) == 0);
  EXPECT(put_number(q, 8), 0);
  EXPECT(shmq_join_segment(s, NULL, NULL), 0);
  pid_t pid = child(execs, ends);
  while (shmq_depth(q) > 0) usleep(500); /* until it has it */
  EXPECT(get_number(q, PATIENCE), 8);
  CHECK(kill(pid, 0) == 0, "it is still there");
  close(ends[1]);
  SUCCEEDED(pid);
  close(ends[0]);
  shmq_close(q);
  shmq_detach(s);
}

/* ---- threads: an attachment may outlive the thread that made it ---- */

static void *leases_and_ends(void *argument) {
  shmq *q = argument;
  static shmq_message m;
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  return &m;
}
static void case_thread(void) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s), *other;
  shmq_segment *t;
  void *m;
  pthread_t thread;
  other = open_fd(fd, &t);
  EXPECT(put_number(other, 4), 0);
  CHECK(pthread_create(&thread, NULL, leases_and_ends, q) == 0);
  CHECK(pthread_join(thread, &m) == 0);
  EXPECT(shmq_recover(t), 0);
  EXPECT(get_number(other, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(shmq_ack(q, m), 0);
  shmq_close(q);
  shmq_detach(s);
  shmq_close(other);
  shmq_detach(t);
}

/* ---- two attachments in one process are two participants ---- */

static void case_two_attachments(void) {
  shmq_segment *s, *t;
  shmq *a = open_fd(fd, &s), *b = open_fd(fd, &t);
  shmq_message m;
  EXPECT(put_number(a, 1), 0);
  EXPECT(shmq_lease(b, &m, SHMQ_NOWAIT), 0);
  CHECK(shmq_participant(s, NULL) != shmq_participant(t, NULL));
  EXPECT(get_number(a, SHMQ_NOWAIT), -EAGAIN);
  shmq_close(b); /* closing descriptors of one must not drop the other's locks */
  shmq_detach(t);
  EXPECT(get_number(a, SHMQ_NOWAIT), 1);
  uint32_t generation;
  int me = shmq_participant(s, &generation);
  shmq *c = open_fd(fd, &t);
  EXPECT(shmq_participant_alive(t, me, generation), 1);
  EXPECT(shmq_recover(t), 0);
  shmq_close(c);
  shmq_detach(t);
  shmq_close(a);
  shmq_detach(s);
}

/* ---- a reader with handlers ---- */

static void nothing(int signal) { (void)signal; }
static void sleeps_and_is_interrupted(void *argument) {
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  struct sigaction action = {.sa_handler = nothing, .sa_flags = *(int *)argument};
  sigaction(SIGUSR1, &action, NULL);
  EXPECT(get_number(q, SHMQ_FOREVER), -EINTR);
  EXPECT(get_number(q, SHMQ_NOWAIT), -EAGAIN);
  EXPECT(put_number(q, 1), 0); /* and all works on */
  shmq_close(q);
  shmq_detach(s);
}
static void case_signal(void) {
  for (int flags = 0; flags <= SA_RESTART; flags += SA_RESTART) {
    shmq_segment *s;
    shmq *q = open_fd(fd, &s);
    pid_t pid = child(sleeps_and_is_interrupted, &flags);
    int status = 0;
    /* The handler may not be there yet, or the child between two sleeps: until it has noticed. */
    usleep(50000);
    while (waitpid(pid, &status, WNOHANG) == 0) {
      kill(pid, SIGUSR1);
      usleep(5000);
    }
    CHECK(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1), "%d", status);
    if (status == 0) EXPECT(get_number(q, PATIENCE), 1);
    shmq_close(q);
    shmq_detach(s);
  }
}

/* ---- roles of the killed ---- */

static void holds_both_roles(void *argument) {
  int *ready = argument;
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message m;
  EXPECT(put_number(q, 1), 0);
  EXPECT(put_number(q, 2), 0);
  EXPECT(get_number(q, SHMQ_NOWAIT), 1);
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reserve(q, 8, &m, SHMQ_NOWAIT), 0);
  CHECK(write(*ready, "x", 1) == 1);
  for (;;) pause();
}
static void case_roles(void) {
  close(fd);
  fd = small_memfd(SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER, 4);
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  for (int i = 0; i < 10; i++) {
    int ends[2];
    char c;
    CHECK(pipe(ends) == 0);
    pid_t pid = child(holds_both_roles, &ends[1]);
    CHECK(read(ends[0], &c, 1) == 1);
    EXPECT(put_number(q, 9), -EBUSY);
    EXPECT(get_number(q, SHMQ_NOWAIT), -EBUSY);
    kill(pid, SIGSTOP);
    EXPECT(put_number(q, 9), -EBUSY); /* stopped is not dead */
    kill(pid, SIGKILL);
    (void)ended(pid);
    EXPECT(put_number(q, 3), 0);
    EXPECT(get_number(q, SHMQ_NOWAIT), 2);
    EXPECT(get_number(q, SHMQ_NOWAIT), 3);
    EXPECT(get_number(q, SHMQ_NOWAIT), -EAGAIN);
    shmq_close(q); /* gives the roles up for the next one */
    EXPECT(shmq_open_in(&q, s, NULL, 0), 0);
    close(ends[0]);
    close(ends[1]);
  }
  shmq_close(q);
  shmq_detach(s);
}

/* ---- pid namespaces ---- */

static bool unshared(int flags) {
  if (unshare(flags) == 0) return true;
  CHECK(errno == EPERM || errno == ENOSYS || errno == EINVAL, "unshare: %s", strerror(errno));
  return false;
}

/* As the first process of a namespace of its own it has a pid that is somebody else's outside. */
static void first_of_its_namespace(void *argument) {
  shmq_segment *s, *t;
  shmq *q = open_fd(fd, &s), *back = open_fd(*(int *)argument, &t);
  shmq_message m;
  CHECK(getpid() == 1);
  EXPECT(put_number(q, 10), 0);
  EXPECT(get_number(back, PATIENCE), 20); /* somebody of the other namespace woke it */
  EXPECT(shmq_recover(s), 0);          /* and is alive, whatever its pid says here */
  EXPECT(put_number(q, 30), 0);
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  _exit(0); /* with a lease */
}
static void case_namespaces(void) {
  if (!unshared(CLONE_NEWPID)) exit(SKIPPED);
  int back_fd = small_memfd(0, 4);
  shmq_segment *s, *t;
  shmq *q = open_fd(fd, &s), *back = open_fd(back_fd, &t);
  pid_t pid = child(first_of_its_namespace, &back_fd);
  EXPECT(get_number(q, PATIENCE), 10);
  EXPECT(shmq_recover(s), 0);
  EXPECT(put_number(back, 20), 0);
  SUCCEEDED(pid);
  EXPECT(get_number(q, PATIENCE), 30);
  shmq_close(q);
  shmq_detach(s);
  shmq_close(back);
  shmq_detach(t);
  close(back_fd);
}

/* A pid used again: a new process with the pid of the dead one keeps nothing of it alive. */
static bool next_pid_is(pid_t pid) {
  int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
  if (last < 0) return false;
  bool done = dprintf(last, "%d", pid - 1) > 0;
  close(last);
  return done;
}
static void leases_and_dies(void *argument) {
  (void)argument;
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  shmq_message m;
  EXPECT(shmq_lease(q, &m, SHMQ_NOWAIT), 0);
  kill(getpid(), SIGKILL);
}
static void lingers(void *argument) {
  (void)argument;
  for (;;) pause();
}
static void reuses_a_pid(void *argument) {
  (void)argument;
  shmq_segment *s;
  shmq *q = open_fd(fd, &s);
  EXPECT(put_number(q, 6), 0);
  pid_t dead = child(leases_and_dies, NULL);
  CHECK(WIFSIGNALED(ended(dead)));
  if (!next_pid_is(dead)) _exit(SKIPPED);
  pid_t again = child(lingers, NULL);
  CHECK(again == dead, "%d is not %d", again, dead);
  EXPECT(get_number(q, PATIENCE), 6);
  kill(again, SIGKILL);
  (void)ended(again);
  shmq_close(q);
  shmq_detach(s);
}
static void case_pid_reuse(void) {
  /* In a namespace of its own nobody else takes the pid in between. */
  if (!unshared(CLONE_NEWPID | CLONE_NEWNS)) exit(SKIPPED);
  int status = ended(child(reuses_a_pid, NULL));
  if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) exit(SKIPPED);
  CHECK(status == 0);
}

/* ---- a full /dev/shm ---- */

static void case_full_dev_shm(void) {
  char name[64];
  uint64_t needed = 0, available = 0;
  if (!unshared(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
      mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=1m") != 0)
    exit(SKIPPED);
  snprintf(name, sizeof name, "t-full-%d", getpid());
  shmq_queue_options big = {.capacity = 4096, .message_bytes = 1000}, tiny = {.capacity = 16};
  shmq_options o = {.queues = &big, .queue_count = 1};
  EXPECT(shmq_create(name, &o), -ENOSPC);
  EXPECT(shmq_nospace_detail(&needed, &available), SHMQ_NOSPACE_MEMORY);
  CHECK((int64_t)needed == shmq_segment_bytes(&o));
  CHECK(available == 1 << 20, "%lu", (unsigned long)available);
  EXPECT(count_entries("/dev/shm"), 2); /* "." and ".." */
  o.queues = &tiny;
  EXPECT(shmq_create(name, &o), 0);
  /* What was created is there to the last byte: filling the rest with a file takes nothing away. */
  int hog = open("/dev/shm/hog", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  char page[4096] = {1};
  while (write(hog, page, sizeof page) > 0) continue;
  CHECK(errno == ENOSPC);
  shmq *q;
  EXPECT(shmq_open(&q, name, 0), 0);
  size_t bytes;
  unsigned char *memory = shmq_segment_memory(shmq_segment_of(q), &bytes);
  unsigned sum = 0;
  for (size_t i = 0; i < bytes; i += 512) sum += memory[i];
  CHECK(sum < UINT32_MAX);
  for (uint64_t i = 0; i < 100; i++) {
    EXPECT(put_number(q, i), 0);
    EXPECT(get_number(q, SHMQ_NOWAIT), i);
  }
  shmq_close(q);
  EXPECT(shmq_unlink(name), 0);
  close(hog);
}

static const struct {
  const char *name;
  void (*run)(void);
} cases[] = {{"fork", case_fork}, {"parent-dies-first", case_parent_dies_first},
             {"child-dies-first", case_child_dies_first}, {"exec", case_exec},
             {"thread", case_thread}, {"two-attachments", case_two_attachments},
             {"signal", case_signal}, {"roles", case_roles}, {"namespaces", case_namespaces},
             {"pid-reuse", case_pid_reuse}, {"full-dev-shm", case_full_dev_shm}};

static void run_case(void *argument) {
  size_t i = *(size_t *)argument;
  fd = small_memfd(0, 6);
  cases[i].run();
  close(fd);
}

/* Each in a process of its own: some leave this one in another namespace. */
int main(int argc, char **argv) {
  int skipped = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (argc > 1 && strcmp(argv[1], cases[i].name) != 0) continue;
    int status = ended(child(run_case, &i));
    bool skip = WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED;
    CHECK(status == 0 || skip, "%s ended with %d", cases[i].name, status);
    if (skip) printf("%s: skipped, it needs privileges\n", cases[i].name);
    skipped += skip;
  }
  return argc > 1 && skipped ? SKIPPED : 0;
}
