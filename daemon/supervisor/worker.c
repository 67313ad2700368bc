/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker as a child. It is a fork and not an exec: it has the configuration that was checked here. A new one
 * gets every session that is kept; until then requests wait in their sessions' queues.
 */
#include "worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "notify.h"
#include "settings.h"
#include "supervisor/service.h"
#include "supervisor/supervisor.h"

static struct supervisor *supervisor_of(struct child *c) { return c->supervisor; }

/* ---- handing over ---- */

/* The events that the channel is watched for: room only when it was missed. */
static void set_blocked(struct supervisor *sv, bool blocked) {
  struct worker *w = &sv->worker;
  if (w->blocked == blocked) return;
  w->blocked = blocked;
  source_change(sv->epoll, &w->channel, EPOLLIN | (blocked ? (uint32_t)EPOLLOUT : 0));
}

/* A worker that cannot be told something does not keep up, or dies: it is told when it can be. */
static int tell(struct supervisor *sv, const struct channel_message *m, const int *fds, int count) {
  if (sv->worker.channel.fd < 0) return -ENOTCONN;
  int rc = channel_send(sv->worker.channel.fd, m, fds, count);
  if (rc == -EAGAIN) set_blocked(sv, true);
  return rc;
}

void worker_pass_clients(struct supervisor *sv) {
  for (struct client *c = sv->clients; c; c = c->next) {
    if (c->passed || c->memory < 0) continue;
    const struct channel_message m = {.what = CHANNEL_SESSION, .session = c->number, .number = c->credits};
    const int fds[] = {c->socket.fd, c->memory};
    if (tell(sv, &m, fds, 2)) return;
    c->passed = true;
  }
}

/* What it was not told while the channel was full. */
static void catch_up(struct supervisor *sv) {
  set_blocked(sv, false);
  worker_pass_clients(sv);
  worker_tell_news(sv);
  if (sv->draining) worker_drain(sv, sv->drain_until_ns, sv->storing);
}

/* ---- what it says ---- */

static void became_ready(struct supervisor *sv) {
  child_ready(&sv->worker.child);
  sv->worker.proven = true;
  supervisor_ready(sv);
}

/* The service manager has passed the signal on and knows nothing more: its status is where a refusal is seen. It does
 * not take more than a page at once. */
static void tell_reload(const char *refusal) {
  char state[1024];
  if (*refusal) say(SAY_ERROR, "not reloaded: %s", refusal);
  snprintf(state, sizeof state, "READY=1\nSTATUS=%s%s", *refusal ? "Not reloaded: " : "", refusal);
  notify_systemd(state);
}

static void reload_done(struct supervisor *sv, int status) {
  struct worker *w = &sv->worker;
  if (!w->fresh) return;
  if (!status) say(SAY_NOTICE, "reloaded: %u changes", config_become(&sv->config, w->fresh));
  config_free(w->fresh);
  free(w->fresh);
  w->fresh = NULL;
  worker_tell_news(sv); /* what is new does not know yet that all sessions are there */
  tell_reload(status ? "what is new could not be opened" : "");
  if (!w->reload_again) return;
  w->reload_again = false;
  worker_reload(sv);
}

static void channel_news(struct source *source, uint32_t events) {
  struct supervisor *sv = SOURCE_OWNER(source, struct supervisor, worker.channel);
  static struct channel_message m;
  int fds[CHANNEL_DESCRIPTORS];
  if (events & EPOLLOUT) catch_up(sv);
  int rc = channel_receive(source->fd, &m, fds);
  if (rc == -EAGAIN) return;
  if (rc <= 0) {
    source_close(sv->epoll, source); /* its death is told by the pidfd */
    return;
  }
  if (m.what == CHANNEL_READY) became_ready(sv);
  if (m.what == CHANNEL_RELOADED) reload_done(sv, m.status);
  if (m.what == CHANNEL_REFUSED) client_refused(sv, m.session);
  if (m.what == CHANNEL_SEEN) services_seen(sv, &m);
}

/* ---- life ---- */

static int run(void *ctx) {
  const struct supervisor *sv = ctx;
  return worker_run(&sv->config, sv->directory, sv->epoch);
}

static int start(struct child *c) {
  struct supervisor *sv = supervisor_of(c);
  struct worker *w = &sv->worker;
  int pair[2], rc = control_next_epoch(sv);
  if (rc) return rc;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) return -errno;
  clients_forget_worker(sv);
  w->blocked = false;
  const struct spawn s = {.run = run,
                          .ctx = sv,
                          .output = -1,
                          .keep = {pair[1], sv->lock_fd},
                          .keep_count = 2, /* and no places: it pins its threads itself */
                          .session = true};
  rc = child_spawn(c, &s);
  close(pair[1]);
  if (!rc)
    rc = source_add(sv->epoll, &w->channel, pair[0], EPOLLIN, channel_news);
  else
    close(pair[0]);
  if (rc) return rc;
  worker_pass_clients(sv);
  worker_tell_news(sv);
  return 0;
}

static void stop(struct child *c) {
  struct supervisor *sv = supervisor_of(c);
  worker_drain(sv, sv->drain_until_ns, sv->storing);
}

/* The first one has ended before it was ready: it cannot serve this configuration, nor can another. If it was killed,
 * that says nothing of the next. */
static bool is_hopeless(const struct supervisor *sv, int status) {
  return !sv->worker.proven && WIFEXITED(status);
}

static void died(struct child *c, int status) {
  struct supervisor *sv = supervisor_of(c);
  source_close(sv->epoll, &sv->worker.channel);
  orphans_condemn(sv, c->died_pid);
  reload_done(sv, -EOWNERDEAD);
  if (c->state == CHILD_FAILED || is_hopeless(sv, status)) supervisor_fail(sv, -EIO);
}

void worker_init(struct supervisor *sv) {
  struct child *c = &sv->worker.child;
  child_init(c, sv, "worker", &sv->policy);
  sv->worker.channel.fd = -1;
  c->start = start;
  c->stop = stop;
  c->died = died;
}

void worker_drain(struct supervisor *sv, int64_t until_ns, bool keep) {
  const struct channel_message m = {.what = CHANNEL_DRAIN, .number = until_ns, .status = keep};
  (void)tell(sv, &m, NULL, 0);
}

/* ---- reload: checked here, tried there, and then done here ---- */

static int pass_configuration(struct supervisor *sv, const struct config *fresh) {
  int fd = memfd_create("shmqd.conf", MFD_CLOEXEC);
  FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
  if (!file) {
    if (fd >= 0) close(fd);
    return -errno;
  }
  config_pass(fresh, file);
  const struct channel_message m = {.what = CHANNEL_RELOAD};
  int rc = fflush(file) ? -errno : tell(sv, &m, &fd, 1);
  fclose(file);
  return rc;
}

static int try_reload(struct supervisor *sv, struct config *fresh, struct config_error *error) {
  int rc = config_may_become(&sv->config, fresh, error);
  if (!rc && (rc = pass_configuration(sv, fresh)))
    snprintf(error->text, sizeof error->text, "the worker cannot be asked: %s", strerror(-rc));
  return rc;
}

void worker_reload(struct supervisor *sv) {
  struct config_error error;
  if (sv->worker.fresh) {
    sv->worker.reload_again = true;
    return;
  }
  notify_systemd("RELOADING=1");
  struct config *fresh = malloc(sizeof *fresh);
  int rc = fresh ? settings_read(fresh, sv->arguments, &error) : -ENOMEM;
  if (!fresh) snprintf(error.text, sizeof error.text, "%s", strerror(-rc));
  if (!rc && (rc = try_reload(sv, fresh, &error))) config_free(fresh);
  if (!rc) {
    sv->worker.fresh = fresh;
    return;
  }
  free(fresh);
  tell_reload(error.text);
}

/* ---- news ---- */

void worker_look(struct supervisor *sv, const char *segment, pid_t pid) {
  struct channel_message m = {.what = CHANNEL_LOOK, .number = pid};
  m.text_bytes = (uint32_t)snprintf(m.text, sizeof m.text, "%s", segment);
  (void)tell(sv, &m, NULL, 0);
}

/* It has every session there is, those of a worker before it too. */
static bool all_passed(const struct supervisor *sv) {
  const struct client *c = sv->clients;
  while (c && (c->passed || c->memory < 0)) c = c->next;
  return !c;
}

void worker_tell_news(struct supervisor *sv) {
  static struct channel_message m;
  if (sv->worker.channel.fd < 0) return;
  m.what = CHANNEL_NEWS;
  m.number = all_passed(sv);
  m.text_bytes = (uint32_t)news_write(sv, m.text, sizeof m.text);
  (void)tell(sv, &m, NULL, 0);
}
