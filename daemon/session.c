/* SPDX-License-Identifier: Apache-2.0
 *
 * A session: one client, its sealed memory, its requests. Whatever the client does to that memory
 * may end this session and nothing else.
 */
#include "session.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shard.h"

const struct peer *session_peer(const struct session *s) { return &s->peer; }
uint32_t session_uid(const struct session *s) { return s->peer.uid; }
int32_t session_pid(const struct session *s) { return s->peer.pid; }

void session_uuid(const struct session *s, uint8_t uuid[16]) {
  shmq_segment_uuid(shmq_service_segment(s->service), uuid);
}

bool session_exists(struct daemon *d, const uint8_t uuid[16]) {
  const struct session *s;
  uint8_t own[16];
  pthread_mutex_lock(&d->lock);
  LIST_FOREACH(s, &d->open, in_open) {
    session_uuid(s, own);
    if (memcmp(own, uuid, sizeof own) == 0) break;
  }
  pthread_mutex_unlock(&d->lock);
  return s;
}

/* ---- lists ---- */

static void link_session(struct session *s) {
  struct shard *shard = s->shard;
  s->next = shard->sessions;
  if (s->next) s->next->prev = s;
  shard->sessions = s;
}

static void unlink_session(struct session *s) {
  *(s->prev ? &s->prev->next : &s->shard->sessions) = s->next;
  if (s->next) s->next->prev = s->prev;
}

static void list_open(struct session *s, bool open) {
  struct daemon *d = s->shard->daemon;
  pthread_mutex_lock(&d->lock);
  if (open)
    LIST_INSERT_HEAD(&d->open, s, in_open);
  else
    LIST_REMOVE(s, in_open);
  pthread_mutex_unlock(&d->lock);
}

void session_make_hot(struct session *s) {
  struct shard *shard = s->shard;
  if (s->hot || shard->daemon->keeping) return;
  s->hot = s->woken = true;
  s->hot_prev = NULL;
  s->hot_next = shard->hot;
  if (shard->hot) shard->hot->hot_prev = s;
  shard->hot = s;
}

void session_make_cold(struct session *s) {
  if (!s->hot) return;
  s->hot = false;
  s->waiting = s->in_flight > 0;
  *(s->hot_prev ? &s->hot_prev->hot_next : &s->shard->hot) = s->hot_next;
  if (s->hot_next) s->hot_next->hot_prev = s->hot_prev;
}

/* ---- the end ---- */

static void free_tables(struct session *s) {
  peer_free(&s->peer);
  elsewhere_close(s);
  handles_close(s);
  requests_close(s);
  shmq_service_close(s->service);
}

static void session_free(struct session *s) {
  session_forget_answers(s);
  unlink_session(s);
  s->shard->session_count--;
  free_tables(s);
  close(s->socket);
  free(s);
}

void session_free_if_over(struct session *s) {
  if (s->state == SESSION_ENDING && !s->in_flight && !s->polls) session_free(s);
}

static void cancelled(struct io_op *op, int result) {
  struct session *s = op->buffer;
  (void)result;
  s->polls--;
  session_free_if_over(s);
}

static void cancel_poll(struct session *s, struct io_op *cancel, struct io_op *target) {
  *cancel =
      (struct io_op){.what = IO_CANCEL, .target = target, .fd = -1, .buffer = s, .done = cancelled};
  s->polls++;
  io_submit(s->shard->io, cancel);
}

/* The resources give up what they keep for the session. Their last answer must not free it under us. */
void session_leave_resources(struct session *s) {
  s->in_flight++;
  resources_leave(s->shard, s);
  session_leave_others(s);
  s->in_flight--;
}

void session_end(struct session *s, const char *why) {
  if (s->state == SESSION_ENDING) return;
  say(SAY_INFO, "session of uid %u pid %d ends: %s", s->peer.uid, (int)s->peer.pid, why);
  (void)shmq_service_flush(s->service); /* what was answered is there when the client sees the end */
  s->state = SESSION_ENDING;
  list_open(s, false);
  session_leave_resources(s);
  session_make_cold(s);
  shutdown(s->socket, SHUT_RDWR); /* the client learns it now, whatever is still under way */
  if (s->socket_polled) cancel_poll(s, &s->cancel_op[0], &s->socket_op);
  if (s->bell_polled) cancel_poll(s, &s->cancel_op[1], &s->bell_op);
  session_free_if_over(s);
}

/* ---- the beginning ---- */

/* The client has nothing to say here: anything is its end. */
static void socket_news(struct io_op *op, int result) {
  struct session *s = op->buffer;
  (void)result;
  s->polls--;
  s->socket_polled = false;
  if (s->state == SESSION_ENDING)
    session_free_if_over(s);
  else
    session_end(s, "the client has gone");
}

static void poll_socket(struct session *s) {
  s->socket_op = (struct io_op){.what = IO_POLL,
                                .fd = s->socket,
                                .flags = POLLIN | POLLRDHUP,
                                .buffer = s,
                                .done = socket_news};
  s->socket_polled = true;
  s->polls++;
  io_submit(s->shard->io, &s->socket_op);
}

/* A predecessor's leases go back to the queue, its half-made step is completed, before anything is taken. */
static int open_service(struct session *s, int memory) {
  int rc = shmq_service_open_fd(&s->service, memory, SHMQ_NEVER_WAIT | SHMQ_GROUP_ANSWERS);
  if (!rc) shmq_service_set_epoch(s->service, s->shard->daemon->epoch);
  if (!rc) rc = shmq_recover(shmq_service_segment(s->service));
  return rc < 0 ? rc : 0;
}

static int open_session(struct session *s, int memory) {
  int rc = peer_read(&s->peer, s->socket);
  if (!rc) rc = open_service(s, memory);
  if (!rc) rc = requests_open(s);
  if (!rc) rc = handles_open(s);
  if (!rc) rc = elsewhere_open(s);
  return rc;
}

static void begin(struct session *s) {
  link_session(s);
  session_make_hot(s);
  poll_socket(s);
}

static void arrived(struct post *post) {
  begin((struct session *)((char *)post - offsetof(struct session, post)));
}

int session_new(struct shard *shard, int socket, int memory, uint32_t credits) {
  struct session *s = calloc(1, sizeof *s);
  if (s) *s = (struct session){.shard = shard, .socket = socket, .credits = credits};
  int rc = s ? open_session(s, memory) : -ENOMEM;
  close(memory);
  if (rc) {
    if (s) free_tables(s);
    free(s);
    return rc;
  }
  shard->session_count++;
  list_open(s, true);
  s->post.deliver = arrived;
  if (shard->index)
    shard_post(shard, &s->post);
  else
    begin(s);
  return 0;
}
