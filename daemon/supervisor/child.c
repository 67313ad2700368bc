/* SPDX-License-Identifier: Apache-2.0
 *
 * A child's life, the same for the worker and the instances of services:
 *
 *   DOWN --due--> STARTING --ready--> READY --asked--> STOPPING
 *    ^               |                  |                 |
 *    +----died-------+------died--------+      killed when its patience is over
 *    +--> FAILED: too often, or it exited with 125
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>

#include "supervisor/supervisor.h"

const char *status_text(int status, char to[64]) {
  if (WIFSIGNALED(status))
    snprintf(to, 64, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
  else
    snprintf(to, 64, "exit %d", WEXITSTATUS(status));
  return to;
}

void child_init(struct child *c, struct supervisor *sv, const char *name,
                const struct restart_policy *policy) {
  *c = (struct child){
      .supervisor = sv, .exit = {.fd = -1}, .policy = policy, .due_ns = SHMQ_FOREVER};
  snprintf(c->name, sizeof c->name, "%s", name);
  struct child **end = &sv->children;
  while (*end) end = &(*end)->next;
  *end = c;
}

/* ---- death ---- */

static void write_obituary(struct child *c, int status) {
  struct supervisor *sv = c->supervisor;
  struct obituary *o = &sv->obituaries[sv->obituary_count++ % OBITUARIES];
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  *o = (struct obituary){.pid = c->pid,
                         .status = status,
                         .uptime_ns = shmq_now_ns() - c->started_ns,
                         .when_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec,
                         .sessions = c == &sv->worker.child ? sv->client_count : 0};
  memcpy(o->name, c->name, sizeof o->name);
}

static void plan_restart(struct child *c, int status) {
  uint32_t random = 0;
  char text[64];
  if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0) random = 0;
  int64_t delay = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_RESTART
                      ? -1
                      : restart_after(&c->restart, c->policy, c->started_ns, shmq_now_ns(), random);
  c->state = delay < 0 ? CHILD_FAILED : CHILD_DOWN;
  c->due_ns = delay < 0 ? SHMQ_FOREVER : shmq_after_ns(delay + 1);
  say(delay < 0 ? SAY_ERROR : SAY_WARNING, "%s %d: %s, %s", c->name, (int)c->pid,
      status_text(status, text), delay < 0 ? "failed: not started again" : "is started again");
}

/* Asked to end, or not to come back. */
static bool stays_down(struct child *c, int status) {
  if (c->state == CHILD_STOPPING) return true;
  return c->wanted_again && !c->wanted_again(c, status);
}

static void go_down(struct child *c, int status) {
  char text[64];
  bool again = c->again && !c->supervisor->draining;
  say(SAY_INFO, "%s %d: %s", c->name, (int)c->pid, status_text(status, text));
  c->state = CHILD_DOWN;
  c->due_ns = again ? SHMQ_NOWAIT : SHMQ_FOREVER;
}

static void exited(struct source *source, uint32_t events) {
  struct child *c = SOURCE_OWNER(source, struct child, exit);
  struct supervisor *sv = c->supervisor;
  int status;
  (void)events;
  if (waitpid(c->pid, &status, WNOHANG) != c->pid) return;
  source_close(sv->epoll, source);
  if (c->state != CHILD_STOPPING) write_obituary(c, status);
  if (stays_down(c, status))
    go_down(c, status);
  else
    plan_restart(c, status);
  c->died_pid = c->pid;
  c->pid = 0;
  c->again = false;
  if (c->died) c->died(c, status);
  orphans_look(sv);
  worker_tell_news(sv);
}

void obituary_seen(struct supervisor *sv, const struct service_look *look) {
  for (unsigned i = 0; i < OBITUARIES; i++) {
    struct obituary *o = &sv->obituaries[i];
    if (o->pid != look->pid || o->looked) continue;
    o->looked = look->status == 0;
    o->held = look->held;
  }
  worker_tell_news(sv);
}

/* ---- life ---- */

int child_spawn(struct child *c, const struct spawn *s) {
  int pidfd;
  pid_t pid = spawn(s, &pidfd);
  if (pid < 0) return (int)pid;
  c->pid = pid;
  c->state = CHILD_STARTING;
  c->started_ns = shmq_now_ns();
  c->due_ns = SHMQ_FOREVER;
  c->starts++;
  return source_add(c->supervisor->epoll, &c->exit, pidfd, EPOLLIN, exited);
}

/* What cannot even be forked is tried again like what died. */
void child_start(struct child *c) {
  c->due_ns = SHMQ_FOREVER;
  int rc = c->start(c);
  if (!rc) return;
  say(SAY_ERROR, "%s: cannot be started: %s", c->name, strerror(-rc));
  c->due_ns = shmq_after_ns(c->policy->most_ns);
}

void child_ready(struct child *c) {
  if (c->state != CHILD_STARTING) return;
  c->state = CHILD_READY;
  c->due_ns = SHMQ_FOREVER;
  say(SAY_INFO, "%s %d: ready", c->name, (int)c->pid);
  if (c->became_ready) c->became_ready(c);
  worker_tell_news(c->supervisor);
}

void child_stop(struct child *c, int64_t patience_ns) {
  if (!c->pid) {
    c->due_ns = SHMQ_FOREVER;
    return;
  }
  c->state = CHILD_STOPPING;
  c->due_ns = shmq_after_ns(patience_ns);
  c->stop(c);
}

void child_due(struct child *c) {
  c->due_ns = SHMQ_FOREVER;
  if (!c->pid) {
    child_start(c);
    return;
  }
  if (c->state == CHILD_READY) {
    if (c->tick) c->tick(c);
    return;
  }
  say(SAY_WARNING, "%s %d: killed, it did not %s in time", c->name, (int)c->pid,
      c->state == CHILD_STOPPING ? "end" : "become ready");
  if (kill(-c->pid, SIGKILL)) kill(c->pid, SIGKILL); /* it may not have made its group yet */
}
