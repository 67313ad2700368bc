/* SPDX-License-Identifier: Apache-2.0
 *
 * The worker: it owns the resources and serves the sessions that the supervisor hands to it. Killed at any
 * instruction, it leaves requests that were taken and not answered in their sessions' queues, for the next one.
 */
#include "worker.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "census.h"
#include "channel.h"
#include "cut.h"
#include "harden.h"
#include "settings.h"
#include "shard.h"

static void poll_channel(struct daemon *d);

static void tell(const struct channel_message *m) {
  if (channel_send(WORKER_CHANNEL, m, NULL, 0)) say(SAY_WARNING, "the supervisor does not listen");
}

/* ---- what the supervisor says ---- */

/* For life. */
static struct shard *least_busy(const struct daemon *d) {
  struct shard *best = d->shards;
  for (struct shard *s = d->shards; s < d->shards + d->shard_count; s++)
    if (s->session_count < best->session_count) best = s;
  return best;
}

/* Descriptors that did not come were dropped by the kernel, because we have as many as we may. */
static void take_session(struct daemon *d, const struct channel_message *m, const int *fds) {
  int rc = fds[0] < 0 || fds[1] < 0
               ? -EMFILE
               : session_new(least_busy(d), fds[0], fds[1], (uint32_t)m->number);
  if (!rc) return;
  say(SAY_WARNING, "a session cannot be served: %s", shmq_strerror(rc));
  if (fds[0] >= 0) close(fds[0]);
  tell(&(struct channel_message){.what = CHANNEL_REFUSED, .status = rc, .session = m->session});
}

static int read_passed_configuration(struct config *fresh, int fd) {
  struct config_error error = {""};
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  config_init(fresh, section_kinds);
  FILE *file = fopen(path, "re"); /* from its beginning */
  int rc = file ? config_take_passed(fresh, file, &error) : -errno;
  if (file) fclose(file);
  if (!rc) rc = config_complete(fresh, &error);
  if (rc) say(SAY_ERROR, "%s", error.text);
  return rc;
}

static void reload(struct daemon *d, int fd) {
  struct config fresh;
  int rc = read_passed_configuration(&fresh, fd);
  shards_stop(d);
  if (!rc) rc = daemon_reload(d, &fresh);
  shards_go(d);
  config_free(&fresh);
  tell(&(struct channel_message){.what = CHANNEL_RELOADED, .status = rc});
}

static void keep_news(struct daemon *d, const struct channel_message *m) {
  pthread_mutex_lock(&d->lock);
  char *text = realloc(d->news, m->text_bytes + 1);
  if (text) {
    memcpy(text, m->text, m->text_bytes);
    text[m->text_bytes] = 0;
    d->news = text;
  }
  pthread_mutex_unlock(&d->lock);
  if (!m->number) return;
  resources_know_sessions(d->shards);
  shards_ask_others(d, ERRAND_KNOW);
}

static void handle(struct daemon *d, const struct channel_message *m, const int *fds) {
  switch (m->what) {
  case CHANNEL_SESSION: take_session(d, m, fds); return;
  case CHANNEL_DRAIN: daemon_drain(d, m->number, m->status); return;
  case CHANNEL_RELOAD: reload(d, fds[0]); break;
  case CHANNEL_NEWS: keep_news(d, m); break;
  case CHANNEL_LOOK: census_look(d, (pid_t)m->number, m->text, m->text_bytes); break;
  }
  if (fds[0] >= 0) close(fds[0]);
}

/* Without a supervisor nobody keeps the sessions: what is under way is finished, for their clients may still see it. */
static void supervisor_gone(struct daemon *d) {
  if (d->draining) return;
  say(SAY_WARNING, "the supervisor has died: ending");
  daemon_drain(d, shmq_after_ns(section_number(d->settings, "drain")), true);
}

static void channel_news(struct io_op *op, int result) {
  static struct channel_message m;
  struct daemon *d = op->buffer;
  int fds[CHANNEL_DESCRIPTORS], rc;
  (void)result;
  while ((rc = channel_receive(WORKER_CHANNEL, &m, fds)) > 0) handle(d, &m, fds);
  if (rc == -EAGAIN || rc == -EINTR)
    poll_channel(d);
  else
    supervisor_gone(d);
}

static void poll_channel(struct daemon *d) {
  d->channel_op = (struct io_op){
      .what = IO_POLL, .fd = WORKER_CHANNEL, .flags = POLLIN, .buffer = d, .done = channel_news};
  io_submit(d->shards->io, &d->channel_op);
}

/* ---- start and end ---- */

/* The supervisor says what is to be done; a signal to the whole group of processes is not for us. */
static void ignore_signals(void) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is -EFBIG to who asked, not our end */
  signal(SIGTERM, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
}

static int start(struct daemon *d) {
  int rc = shards_open(d);
  if (rc) return rc;
  daemon_read_spin(d);
  rc = resources_open(d);
  return rc ? rc : guard_open(d);
}

int worker_run(const struct config *config, const char *directory, uint32_t epoch) {
  static struct daemon d;
  d.config = *config;
  d.directory = directory;
  d.epoch = epoch;
  d.settings = config_section(&d.config, "daemon");
  unsetenv("NOTIFY_SOCKET");
  prctl(PR_SET_NAME, "shmqd-worker");
  ignore_signals();
  cut_survive();
  int rc = harden();
  if (rc) say(SAY_ERROR, "privileges cannot be given up: %s", strerror(-rc));
  if (!rc) rc = start(&d);
  if (!rc) {
    say(SAY_INFO, "worker: %u resources, %u shards, I/O by %s", d.resource_count, d.shard_count,
        io_name(d.shards->io));
    shards_go(&d);
    tell(&(struct channel_message){.what = CHANNEL_READY});
    poll_channel(&d);
    rc = shard_run(d.shards);
    shards_end(&d);
  }
  guard_close(&d);
  resources_close(&d);
  config_free(&d.config);
  free(d.news);
  return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
