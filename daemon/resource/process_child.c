/* SPDX-License-Identifier: Apache-2.0
 *
 * One child: pipes to its standard input and from its standard output, its exit by pidfd, its restart. Its standard
 * error is the daemon's.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "resource/process.h"

enum { IN, OUT, EXIT_NOT_STARTED = 126 };

static struct alarms *alarms_of(const struct process_child *c) {
  return &c->owner->base.shard->alarms;
}
static int64_t setting(const struct process_child *c, const char *key) {
  return section_number(c->owner->base.section, key);
}

int process_child_signal(const struct process_child *c, int signal_number) {
  if (c->exited) return -ESRCH;
  return syscall(SYS_pidfd_send_signal, c->pidfd, signal_number, NULL, 0) ? -errno : 0;
}

/* ---- the end ---- */

static void free_if_over(struct process_child *c) {
  if (c->piped || !c->exited) return;
  const struct restart_policy policy = {.first_ns = setting(c, "retry_first"),
                                        .most_ns = setting(c, "retry_most"),
                                        .reset_ns = setting(c, "retry_most")};
  int64_t now = shmq_now_ns();
  int64_t delay = restart_after(&c->backoff, &policy, c->since_ns, now, (uint32_t)random());
  c->state = CHILD_IS_DOWN;
  c->failures++;
  alarm_clear(alarms_of(c), &c->limit);
  if (!c->owner->base.shard->daemon->draining) alarm_set(alarms_of(c), &c->again, now + delay);
  process_child_down(c);
}

static void end_with(struct process_child *c, int error) {
  if (c->state == CHILD_IS_UP) c->error = error;
  c->state = CHILD_IS_ENDING;
}

void process_child_kill(struct process_child *c, int error) {
  if (c->state != CHILD_IS_UP) return;
  end_with(c, error);
  process_child_signal(c, SIGKILL);
  duplex_break(&c->duplex, error);
}

static struct process_child *child_of(struct duplex *d) {
  return (struct process_child *)((char *)d - offsetof(struct process_child, duplex));
}

/* Without its pipes it is of no use. */
static void closed(struct duplex *d, int error) {
  struct process_child *c = child_of(d);
  c->piped = false;
  end_with(c, error == -ETIMEDOUT ? error : -ECONNRESET);
  process_child_signal(c, SIGKILL);
  free_if_over(c);
}

/* Whatever it has started goes with it. What it has said last is still read. */
static void exited(struct io_op *op, int result) {
  struct process_child *c = op->buffer;
  siginfo_t info = {0};
  (void)result;
  kill(-c->pid, SIGKILL); /* while its number is still its own */
  if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) == 0) c->status = info.si_status;
  close(c->pidfd);
  c->exited = true;
  say(SAY_INFO, "[process:%s] pid %d %s %d", c->owner->base.section->name, (int)c->pid,
      info.si_code == CLD_EXITED ? "exited with status" : "was ended by signal", c->status);
  end_with(c, -ECONNRESET);
  if (c->piped)
    duplex_finish(&c->duplex, -ECONNRESET);
  else
    free_if_over(c);
}

/* ---- the beginning ---- */

/* The child's ends of its pipes, and one that tells why it could not become the program; exec closes that. */
struct ends {
  int in, out, told;
};

/* In the new process: only what may be called between fork and exec. */
static int become(const struct process *p, const struct ends *ends, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) return ESRCH;
  for (int s = 1; s < NSIG; s++) signal(s, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (dup2(ends->in, STDIN_FILENO) < 0 || dup2(ends->out, STDOUT_FILENO) < 0) return errno;
  close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
  int rc = limits_set(&p->limits);
  if (rc) return -rc;
  execvp(p->words.we_wordv[0], p->words.we_wordv);
  return errno;
}

static int fork_child(struct process_child *c, const struct ends *ends, int tell) {
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) return -errno;
  if (pid == 0) {
    int error = become(c->owner, ends, parent);
    _exit(write(tell, &error, sizeof error) < 0 ? EXIT_NOT_STARTED : EXIT_NOT_STARTED + 1);
  }
  setpgid(pid, pid);
  close(tell);
  int error = 0;
  if (read(ends->told, &error, sizeof error) != sizeof error) error = 0;
  c->pid = pid;
  c->pidfd = error ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
  if (c->pidfd >= 0) return 0;
  if (!error) error = errno;
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  return -error;
}

static void close_all(int *fds, int count) {
  for (int i = 0; i < count; i++)
    if (fds[i] >= 0) close(fds[i]);
}

/* On a helper thread, for exec may have to read the program. Our ends do not wait; the child's are as it expects
 * them. */
static int start(struct io_op *op) {
  struct process_child *c = op->buffer;
  int fds[6] = {-1, -1, -1, -1, -1, -1}, *in = fds, *out = fds + 2, *told = fds + 4;
  int rc = pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(told, O_CLOEXEC) ||
                   fcntl(in[OUT], F_SETFL, O_NONBLOCK) || fcntl(out[IN], F_SETFL, O_NONBLOCK)
               ? -errno
               : 0;
  if (!rc) {
    const struct ends ends = {.in = in[IN], .out = out[OUT], .told = told[IN]};
    rc = fork_child(c, &ends, told[OUT]);
    told[OUT] = -1;
  }
  if (!rc) {
    c->pipes[IN] = out[IN];
    c->pipes[OUT] = in[OUT];
    out[IN] = in[OUT] = -1;
  }
  close_all(fds, 6);
  return rc;
}

static void started(struct io_op *op, int result) {
  struct process_child *c = op->buffer;
  c->exited = result != 0;
  c->piped = !c->exited;
  if (result) {
    say(SAY_WARNING, "[process:%s] %s: %s", c->owner->base.section->name,
        c->owner->words.we_wordv[0], strerror(-result));
    free_if_over(c);
    return;
  }
  c->state = CHILD_IS_UP;
  c->op = (struct io_op){
      .what = IO_POLL, .fd = c->pidfd, .flags = POLLIN, .buffer = c, .done = exited};
  io_submit(c->owner->base.shard->io, &c->op);
  duplex_open(&c->duplex, c->owner->base.shard->io, c->pipes[IN], c->pipes[OUT]);
  process_child_up(c);
}

void process_child_start(struct process_child *c) {
  c->since_ns = shmq_now_ns();
  c->framer.scanned = 0;
  c->state = CHILD_IS_STARTING;
  c->op = (struct io_op){.what = IO_CALL, .fd = -1, .buffer = c, .call = start, .done = started};
  io_submit(c->owner->base.shard->io, &c->op);
}

static void again(struct alarm *alarm) {
  process_child_start((struct process_child *)((char *)alarm - offsetof(struct process_child, again)));
}

static void too_late(struct alarm *alarm) {
  process_child_kill((struct process_child *)((char *)alarm - offsetof(struct process_child, limit)),
             -ETIMEDOUT);
}

static void received(struct duplex *d) { process_received(child_of(d)); }

/* Before the first byte goes: what was begun is not given to a child of the next worker. */
static void writing(struct duplex *d, uint64_t below) {
  struct process_child *c = child_of(d);
  if (below && c->lease) request_begin(c->lease);
}

void process_child_open(struct process_child *c, struct process *owner) {
  *c = (struct process_child){.owner = owner, .pidfd = -1, .exited = true};
  c->again.ring = again;
  c->limit.ring = too_late;
  c->framer = (struct framer){.framing = owner->framing == PROCESS_MARKER
                                             ? FRAMING_LINE
                                             : (enum framing)owner->framing,
                              .most = (size_t)setting(c, "frame_bytes")};
  c->duplex = (struct duplex){
      .in_fd = -1, .out_fd = -1, .received = received, .writing = writing, .closed = closed};
}

/* Nothing runs any more. */
void process_child_close(struct process_child *c) {
  alarm_clear(alarms_of(c), &c->again);
  alarm_clear(alarms_of(c), &c->limit);
  duplex_free(&c->duplex);
  if (c->exited) return;
  kill(-c->pid, SIGKILL);
  waitpid(c->pid, NULL, 0);
  close(c->pidfd);
}
