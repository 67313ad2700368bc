/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection that the daemon owns. Requests of all clients go out over it one behind the other, each as whole frames,
 * and the peer answers in the same order; so the answers find their requests by counting.
 *
 * Who waits in `waiting` has sent nothing, and learns so when the connection breaks or cannot be made (NO). In `sent`
 * are requests whose bytes are in the buffer: if one of those was written, nobody knows what the peer has done (UNKNOWN).
 */
#include "resource/stream.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shmq/resource.h"

enum { FRAMES_MAX = 65536 };

/* scratch of a request that is sent */
enum { SENT_BEGIN, SENT_FRAMES, SENT_GOT, SENT_BYTES, SENT_DROPPED };

static const struct param params[] = {
    RIGHTS_PARAM,
    SHARD_PARAM,
    {"connect", PARAM_TEXT, NULL, 0, 0, NULL, "the peer: tcp:HOST:PORT or unix:PATH", PARAM_FIXED},
    {"framing", PARAM_CHOICE, "line", 0, 0, "line|length|resp",
     "what a request and an answer is: a line, 4 bytes of length and so many more, or a value of RESP",
     PARAM_FIXED},
    {"frame_bytes", PARAM_BYTES, "1M", 16, 1 << 30, NULL, "the longest frame", PARAM_FIXED},
    {"pipeline", PARAM_COUNT, "1024", 1, 1 << 20, NULL, "requests sent and not answered, at most",
     PARAM_LIVE},
    {"timeout", PARAM_DURATION, "30s", 1000000, INT64_MAX / 4, NULL,
     "a peer that owes an answer and is silent for so long is given up", PARAM_LIVE},
    {"retry_first", PARAM_DURATION, "100ms", 1000000, INT64_C(3600000000000), NULL,
     "connect again after this delay, which doubles", PARAM_LIVE},
    {"retry_most", PARAM_DURATION, "30s", 1000000, INT64_C(3600000000000), NULL,
     "the longest such delay", PARAM_LIVE},
    {"refuse", PARAM_TEXT, "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE MONITOR SYNC PSYNC QUIT RESET HELLO CLIENT SELECT AUTH", 0, 0, NULL,
     "resp: commands no client may send, for they change what the connection is to the others", PARAM_LIVE},
    {0},
};

static struct stream *stream_of(struct duplex *d) {
  return (struct stream *)((char *)d - offsetof(struct stream, duplex));
}

/* ---- down and up ---- */

static void again(struct alarm *alarm) {
  stream_connect((struct stream *)((char *)alarm - offsetof(struct stream, again)));
}

/* Nothing was sent for those who wait: they may ask somebody else. */
void stream_went_down(struct stream *s, int error) {
  const struct restart_policy policy = {.first_ns = stream_setting(s, "retry_first"),
                                        .most_ns = stream_setting(s, "retry_most"),
                                        .reset_ns = stream_setting(s, "retry_most")};
  int64_t now = shmq_now_ns();
  int64_t delay = restart_after(&s->backoff, &policy, s->since_ns, now, (uint32_t)random());
  if (error != s->error)
    say(SAY_WARNING, "[stream:%s] %s: %s", s->base.section->name,
        section_text(s->base.section, "connect"), strerror(-error));
  s->state = STREAM_DOWN;
  s->error = error;
  alarm_clear(stream_alarms(s), &s->limit);
  if (!s->base.shard->daemon->draining) alarm_set(stream_alarms(s), &s->again, now + delay);
  wait_list_fail(&s->waiting, error, "the connection is down");
}

static void send_waiting(struct stream *s);

void stream_went_up(struct stream *s, int fd) {
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (other < 0) {
    int error = -errno;
    close(fd);
    stream_went_down(s, error);
    return;
  }
  s->state = STREAM_UP;
  s->error = 0;
  s->since_ns = shmq_now_ns();
  s->connects++;
  s->queued = 0;
  s->framer.scanned = 0;
  alarm_clear(stream_alarms(s), &s->limit);
  duplex_open(&s->duplex, stream_io(s), fd, other);
  send_waiting(s);
}

/* An attempt that takes too long, or a peer that is silent for too long. */
static void too_late(struct alarm *alarm) {
  struct stream *s = (struct stream *)((char *)alarm - offsetof(struct stream, limit));
  if (s->state == STREAM_UP)
    duplex_break(&s->duplex, -ETIMEDOUT);
  else if (s->state == STREAM_CONNECTING)
    stream_cancel_connect(s);
}

/* ---- requests out ---- */

static bool is_one_of(const char *words, const char *word, size_t bytes) {
  for (const char *at = words; *at;) {
    size_t n = strcspn(at, " \t");
    if (n == bytes && strncasecmp(at, word, n) == 0) return true;
    at += n + strspn(at + n, " \t");
  }
  return false;
}

/* Each frame of ours must be one answer of the peer's, or everybody behind it gets another's; and a transaction that
 * is left open would be everybody's. */
static int check_commands(const struct stream *s, const char *data, size_t bytes) {
  const char *refused = section_text(s->base.section, "refuse");
  bool open = false;
  struct framer f = {.framing = s->framing, .most = bytes};
  for (ssize_t n; bytes && (n = framer_scan(&f, data, bytes)) > 0; data += n, bytes -= (size_t)n) {
    const char *word;
    size_t length = resp_command(data, (size_t)n, &word);
    if (!length) return -EBADMSG;
    if (is_one_of(refused, word, length)) return -EPERM;
    if (is_one_of("MULTI WATCH", word, length)) open = true;
    if (is_one_of("EXEC DISCARD", word, length)) open = false;
  }
  return open ? -EPERM : 0;
}

static uint64_t frames_of(const struct request *r) {
  return request_arg(r, 0) ? request_arg(r, 0) : 1;
}

static int check(const struct stream *s, const char *data, size_t bytes, uint64_t frames) {
  if (frames > FRAMES_MAX) return -EINVAL;
  int rc = framer_check(s->framing, (size_t)stream_setting(s, "frame_bytes"), data, bytes, frames);
  return rc || s->framing != FRAMING_RESP ? rc : check_commands(s, data, bytes);
}

/* Our own copy goes into the buffer, and is looked at there. */
static int put_checked(struct stream *s, struct request *r) {
  struct duplex *d = &s->duplex;
  size_t before = d->out_bytes;
  int rc = duplex_put(d, r->in.data, r->in.size);
  if (!rc) rc = check(s, d->out + before, d->out_bytes - before, frames_of(r));
  if (rc) d->out_bytes = before;
  return rc;
}

static void send_one(struct stream *s, struct request *r) {
  int rc = put_checked(s, r);
  if (rc) {
    request_refuse(r, rc, rc == -EPERM    ? "no client may send that command, or not without its EXEC"
                          : rc == -EBADMSG ? "that is not so many whole frames"
                                           : NULL);
    return;
  }
  r->scratch[SENT_BEGIN] = s->queued;
  s->queued += r->in.size;
  r->scratch[SENT_FRAMES] = frames_of(r);
  r->scratch[SENT_GOT] = r->scratch[SENT_BYTES] = r->scratch[SENT_DROPPED] = 0;
  r->next = NULL;
  *s->sent_end = r;
  request_rest(r, REQUEST_WAITS);
  s->sent_end = &r->next;
  if (!s->unwritten) s->unwritten = r;
  if (s->sent_count++ == 0)
    alarm_set(stream_alarms(s), &s->limit, shmq_after_ns(stream_setting(s, "timeout")));
}

static void send_waiting(struct stream *s) {
  while (s->state == STREAM_UP && s->sent_count < (unsigned)stream_setting(s, "pipeline")) {
    struct request *r = wait_list_take(&s->waiting);
    if (!r) break;
    send_one(s, r);
  }
}

/* From here on it cannot be taken back, by a worker that comes after us neither. */
static void writing(struct duplex *d, uint64_t below) {
  struct stream *s = stream_of(d);
  for (; s->unwritten && s->unwritten->scratch[SENT_BEGIN] < below; s->unwritten = s->unwritten->next)
    request_begin(s->unwritten);
}

static void serve_ask(struct request *r) {
  struct stream *s = (struct stream *)r->resource;
  if (s->state == STREAM_DOWN && s->error) {
    request_refuse(r, s->error, "the connection is down");
    return;
  }
  wait_list_add(&s->waiting, r);
  send_waiting(s);
}

/* What was sent in this turn goes out with few calls. */
static void stream_turn(struct resource *resource) {
  struct stream *s = (struct stream *)resource;
  if (s->state == STREAM_DOWN && !s->again.set && !resource->shard->daemon->draining) stream_connect(s);
  if (s->state == STREAM_UP && s->duplex.out_bytes) duplex_flush(&s->duplex);
}

/* ---- answers in ---- */

static struct request *take_sent(struct stream *s) {
  struct request *r = s->sent;
  s->sent = r->next;
  if (!s->sent) s->sent_end = &s->sent;
  if (s->unwritten == r) s->unwritten = r->next;
  s->sent_count--;
  return r;
}

static void answer(struct request *r, const char *data, size_t bytes) {
  if (r->scratch[SENT_DROPPED]) {
    request_fail(r, -EMSGSIZE, SHMQ_EXECUTED_YES, "the answer is longer than any block");
    return;
  }
  request_rest(r, REQUEST_BUSY);
  if (bytes > r->in.room) {
    request_value(r, r->scratch[SENT_FRAMES], 0, data, bytes);
    return;
  }
  memcpy(r->in.data, data, bytes);
  request_in_place(r, r->scratch[SENT_FRAMES], 0, bytes);
}

/* The frames of one answer, from `at` on. Returns its bytes, 0 if it is not all there, or a negative errno. */
static ssize_t scan_answer(struct stream *s, struct request *r, const char *data, size_t bytes) {
  while (r->scratch[SENT_GOT] < r->scratch[SENT_FRAMES]) {
    size_t at = (size_t)r->scratch[SENT_BYTES];
    ssize_t n = at < bytes ? framer_scan(&s->framer, data + at, bytes - at) : 0;
    if (n <= 0) return n;
    r->scratch[SENT_BYTES] += (size_t)n;
    r->scratch[SENT_GOT]++;
  }
  return (ssize_t)r->scratch[SENT_BYTES];
}

/* Its end is looked for, but what nobody can be told is not kept. The first in the buffer is the answer to `r`. */
static void drop_excess(struct duplex *d, struct request *r) {
  size_t bytes = (size_t)r->scratch[SENT_BYTES];
  if (bytes <= resource_answer_most(r)) return;
  duplex_consume(d, bytes);
  r->scratch[SENT_DROPPED] += bytes;
  r->scratch[SENT_BYTES] = 0;
}

static void received(struct duplex *d) {
  struct stream *s = stream_of(d);
  size_t used = 0;
  ssize_t n = 1;
  while (s->sent && used < d->in_bytes && n > 0) {
    n = scan_answer(s, s->sent, d->in + used, d->in_bytes - used);
    if (n <= 0) break;
    answer(take_sent(s), d->in + used, (size_t)n);
    used += (size_t)n;
    s->answered++;
  }
  if (n < 0 || (!s->sent && used < d->in_bytes)) {
    say(SAY_WARNING, "[stream:%s] the peer sends what nobody asked for", s->base.section->name);
    duplex_break(d, -EBADMSG);
    return;
  }
  duplex_consume(d, used);
  if (s->sent) drop_excess(d, s->sent);
  if (s->sent)
    alarm_set(stream_alarms(s), &s->limit, shmq_after_ns(stream_setting(s, "timeout")));
  else
    alarm_clear(stream_alarms(s), &s->limit);
  send_waiting(s);
}

static void closed(struct duplex *d, int error) {
  struct stream *s = stream_of(d);
  s->state = STREAM_CLOSING;
  while (s->sent) {
    struct request *r = take_sent(s);
    if (r->scratch[SENT_BEGIN] < d->written)
      request_fail(r, error, SHMQ_EXECUTED_UNKNOWN, "the connection broke before the answer");
    else
      request_fail(r, error, SHMQ_EXECUTED_NO, "the connection broke before it was sent");
  }
  stream_went_down(s, error);
}

/* ---- the table ---- */

static void serve_status(struct request *r) {
  static const char *const states[] = {"down", "resolving", "connecting", "up", "closing"};
  const struct stream *s = (const struct stream *)r->resource;
  char text[256];
  int n = snprintf(text, sizeof text,
                   "state=%s\nconnects=%llu\nanswered=%llu\nsent=%u\nwaiting=%u\nerror=%s\n",
                   states[s->state], (unsigned long long)s->connects,
                   (unsigned long long)s->answered, s->sent_count, s->waiting.count,
                   s->error ? strerror(-s->error) : "");
  request_value(r, 0, 0, text, (size_t)n);
}

static const struct operation operations[] = {{SHMQ_STREAM_ASK, RIGHT_WRITE, serve_ask},
                                              {SHMQ_STREAM_STATUS, RIGHT_READ, serve_status},
                                              {0}};

static void stream_begun(struct request *r) {
  request_restarted(r, -ERESTART, SHMQ_EXECUTED_UNKNOWN, "the daemon's worker died with the connection");
}

static void stream_leave(struct resource *resource, struct session *session) {
  wait_list_leave(&((struct stream *)resource)->waiting, session);
}

static bool stream_idle(const struct resource *resource) {
  const struct stream *s = (const struct stream *)resource;
  return s->sent_count == 0 && s->state != STREAM_RESOLVING;
}

static void stream_close(struct resource *resource) {
  struct stream *s = (struct stream *)resource;
  alarm_clear(stream_alarms(s), &s->again);
  alarm_clear(stream_alarms(s), &s->limit);
  wait_list_close(&s->waiting);
  duplex_free(&s->duplex);
  if (s->state == STREAM_CONNECTING) close(s->fd);
}

static const char *stream_check(const struct section *section, const char **key) {
  const char *to = section_text(section, "connect");
  bool good = (strncmp(to, "unix:", 5) == 0 && to[5]) ||
              (strncmp(to, "tcp:", 4) == 0 && strrchr(to, ':') > to + 4);
  *key = "connect";
  return good ? NULL : "is neither tcp:HOST:PORT nor unix:PATH";
}

/* The first attempt is made by the first turn, when the daemon is sure to start. */
static int stream_open(struct resource *resource) {
  struct stream *s = (struct stream *)resource;
  s->framing = (enum framing)stream_setting(s, "framing");
  s->framer = (struct framer){.framing = s->framing, .most = (size_t)stream_setting(s, "frame_bytes")};
  s->duplex = (struct duplex){
      .in_fd = -1, .out_fd = -1, .received = received, .writing = writing, .closed = closed};
  s->again.ring = again;
  s->limit.ring = too_late;
  s->sent_end = &s->sent;
  wait_list_open(&s->waiting, resource->shard);
  return 0;
}

const struct resource_kind stream_kind = {
    .section = {"stream", true, params, "A connection to a server, for all clients", true, stream_check},
    .bytes = sizeof(struct stream),
    .open = stream_open,
    .operations = operations,
    .begun = stream_begun,
    .turn = stream_turn,
    .leave = stream_leave,
    .idle = stream_idle,
    .close = stream_close};
