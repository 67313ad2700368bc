/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/supervisor.h"

#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "notify.h"
#include "rlimits.h"
#include "settings.h"
#include "supervisor/service.h"
#include "supervisor/store.h"

static const int64_t grace_ns = 2000000000; /* for a child to see that its time is over */

/* ---- the end ---- */

static bool children_gone(const struct supervisor *sv) {
  for (const struct child *c = sv->children; c; c = c->next)
    if (c->pid) return false;
  return true;
}

/* What a worker has started may stand several generations deep, and each is uncovered by the death of the one above. */
static bool is_over(const struct supervisor *sv) {
  return sv->draining && children_gone(sv) && !sv->condemned_count;
}

static void begin_drain(struct supervisor *sv, int64_t patience_ns) {
  sv->draining = true;
  sv->drain_until_ns = shmq_after_ns(patience_ns);
  control_close(sv);
  child_stop(&sv->worker.child, patience_ns + grace_ns);
  services_go_on(sv);
}

void supervisor_fail(struct supervisor *sv, int error) {
  if (sv->draining) return;
  sv->failed = error;
  clients_close(sv);   /* nobody will serve them: they are told now */
  begin_drain(sv, 0);
}

/* ---- signals ---- */

static void signalled(struct source *source, uint32_t events) {
  struct supervisor *sv = SOURCE_OWNER(source, struct supervisor, signals);
  struct signalfd_siginfo info;
  (void)events;
  if (read(source->fd, &info, sizeof info) != sizeof info) return;
  if (info.ssi_signo == SIGCHLD) {
    orphans_look(sv);
    return;
  }
  if (info.ssi_signo == SIGHUP) {
    if (!sv->draining) worker_reload(sv);
    return;
  }
  say(SAY_INFO, "%s: draining", strsignal((int)info.ssi_signo));
  notify_systemd("STOPPING=1");
  /* Asked twice: at once. */
  begin_drain(sv, sv->draining ? 0 : section_number(sv->settings, "drain"));
}

/* Signals come through a descriptor; each session needs half a dozen descriptors in the worker. */
static int prepare_process(struct supervisor *sv) {
  limits_raise_own();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGCHLD, SIG_DFL); /* whoever started us may have ignored it: nobody could be waited for */
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, NULL);
  int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  return fd < 0 ? -errno : source_add(sv->epoll, &sv->signals, fd, EPOLLIN, signalled);
}

/* ---- the beginning ---- */

static void tell_ready(struct supervisor *sv) {
  int fd = sv->arguments->ready_fd;
  notify_systemd("READY=1");
  if (fd < 0) return;
  if (write(fd, "\n", 1) < 0) say(SAY_WARNING, "--ready-fd: %s", strerror(errno));
  close(fd);
}

/* The first worker is there: its resources are open, clients may come. */
void supervisor_ready(struct supervisor *sv) {
  if (sv->told_ready || sv->draining) return;
  int rc = control_open(sv);
  if (rc) {
    say(SAY_ERROR, "%s: %s", sv->directory, strerror(-rc));
    supervisor_fail(sv, rc);
    return;
  }
  sv->told_ready = true;
  services_go_on(sv);
  say(SAY_INFO, "ready in %s", sv->directory);
  tell_ready(sv);
}

static int start(struct supervisor *sv) {
  sv->lock_fd = sv->reserve_fd = sv->listener.fd = sv->signals.fd = sv->notify.fd = -1;
  sv->storing = section_number(sv->settings, "store");
  sv->epoll = epoll_create1(EPOLL_CLOEXEC);
  int rc = sv->epoll < 0 ? -errno : store_take(sv);
  if (!rc) rc = prepare_process(sv);
  if (!rc) rc = orphans_open();
  if (!rc) rc = control_lock(sv);
  if (rc) {
    say(SAY_ERROR, "%s: %s", sv->directory,
        rc == -EADDRINUSE ? "another daemon lives here" : strerror(-rc));
    return rc;
  }
  sv->policy = restart_policy_of(sv->settings);
  worker_init(sv);
  rc = services_open(sv);
  if (!rc && sv->services) rc = control_open_notify(sv);
  if (!rc) child_start(&sv->worker.child);
  return rc;
}

/* ---- the loop ---- */

static void do_what_is_due(struct supervisor *sv) {
  int64_t now = shmq_now_ns();
  for (struct child *c = sv->children; c; c = c->next)
    if (c->due_ns <= now) child_due(c);
}

static int64_t next_due(const struct supervisor *sv) {
  int64_t due = SHMQ_FOREVER;
  for (const struct child *c = sv->children; c; c = c->next)
    if (c->due_ns < due) due = c->due_ns;
  return due;
}

int supervisor_run(struct supervisor *sv) {
  int rc = start(sv);
  while (!rc && !is_over(sv)) {
    rc = source_run(sv->epoll, next_due(sv));
    do_what_is_due(sv);
  }
  control_close(sv);
  if (sv->storing)
    clients_leave(sv);
  else
    clients_close(sv);
  services_close(sv);
  source_close(sv->epoll, &sv->notify);
  source_close(sv->epoll, &sv->signals);
  if (sv->lock_fd >= 0) close(sv->lock_fd);
  if (sv->epoll >= 0) close(sv->epoll);
  return rc ? rc : sv->failed;
}
