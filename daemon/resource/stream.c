/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection that the daemon owns. Requests of all clients go out over it one behind the other, each as whole frames,
 * and the peer answers in the same order; so the answers find their requests by counting.
 *
 *   DOWN -> RESOLVING -> CONNECTING -> UP -> CLOSING -> DOWN
 *
 * Who waits in `waiting` has sent nothing, and learns so when the connection breaks or cannot be made (NO). In `sent`
 * are requests whose bytes are in the buffer: if one of those was written, nobody knows what the peer has done (UNKNOWN).
 */
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "resource/duplex.h"
#include "resource/framing.h"
#include "shmq/resource.h"
#include "supervisor/restart.h"
#include "wait_list.h"

enum stream_state { STREAM_DOWN, STREAM_RESOLVING, STREAM_CONNECTING, STREAM_UP, STREAM_CLOSING };
enum { FRAMES_MAX = 65536 };

struct address {
  struct sockaddr_storage name;
  socklen_t bytes;
};

struct stream {
  struct resource base;
  enum stream_state state;
  enum framing framing;
  int fd; /* while it connects */
  struct address address;
  struct io_op op, cancel;
  unsigned pending;
  unsigned attempts;
  int error; /* why it is down */
  int64_t since_ns;
  struct restart backoff;
  struct alarm again;  /* the next attempt */
  struct alarm limit;  /* of an attempt, and of the peer's silence */
  struct duplex duplex;
  struct framer framer;
  struct wait_list waiting;
  struct request *sent, **sent_end, *unwritten; /* unwritten: the first in `sent` not begun */
  unsigned sent_count;
  uint64_t queued;             /* bytes ever put into the buffer of this connection */
  uint64_t answered, connects; /* for the status */
};

/* scratch of a request that is sent */
enum { SENT_BEGIN, SENT_END, SENT_FRAMES, SENT_GOT, SENT_BYTES };

static const struct param params[] = {
    RIGHTS_PARAM,
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
    {"refuse", PARAM_TEXT, "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE MONITOR QUIT RESET HELLO CLIENT SELECT AUTH",
     0, 0, NULL,
     "resp: commands no client may send, for they change what the connection is to the others", PARAM_LIVE},
    {0},
};

static int64_t setting(const struct stream *s, const char *key) {
  return section_number(s->base.section, key);
}
static struct alarms *alarms_of(const struct stream *s) { return &s->base.shard->alarms; }
static struct io *io_of(const struct stream *s) { return s->base.shard->io; }
static struct stream *stream_of(struct duplex *d) {
  return (struct stream *)((char *)d - offsetof(struct stream, duplex));
}

/* ---- down and up ---- */

static void connect_now(struct stream *s);

static void again(struct alarm *alarm) {
  connect_now((struct stream *)((char *)alarm - offsetof(struct stream, again)));
}

/* Nothing was sent for those who wait: they may ask somebody else. */
static void went_down(struct stream *s, int error) {
  const struct restart_policy policy = {.first_ns = setting(s, "retry_first"),
                                        .most_ns = setting(s, "retry_most"),
                                        .reset_ns = setting(s, "retry_most")};
  int64_t now = shmq_now_ns();
  int64_t delay = restart_after(&s->backoff, &policy, s->since_ns, now, (uint32_t)random());
  if (error != s->error)
    say(SAY_WARNING, "[stream:%s] %s: %s", s->base.section->name,
        section_text(s->base.section, "connect"), strerror(-error));
  s->state = STREAM_DOWN;
  s->error = error;
  alarm_clear(alarms_of(s), &s->limit);
  if (!s->base.shard->daemon->draining) alarm_set(alarms_of(s), &s->again, now + delay);
  wait_list_fail(&s->waiting, error, "the connection is down");
}

static void send_waiting(struct stream *s);

static void went_up(struct stream *s, int fd) {
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (other < 0) {
    int error = -errno;
    close(fd);
    went_down(s, error);
    return;
  }
  s->state = STREAM_UP;
  s->error = 0;
  s->since_ns = shmq_now_ns();
  s->connects++;
  s->queued = 0;
  s->framer.scanned = 0;
  alarm_clear(alarms_of(s), &s->limit);
  duplex_open(&s->duplex, io_of(s), fd, other);
  send_waiting(s);
}

/* ---- connecting ---- */

static void cancelled(struct io_op *op, int result) {
  (void)result;
  ((struct stream *)op->buffer)->pending--;
}

/* An attempt that takes too long, or a peer that is silent for too long. */
static void too_late(struct alarm *alarm) {
  struct stream *s = (struct stream *)((char *)alarm - offsetof(struct stream, limit));
  if (s->state == STREAM_UP) {
    duplex_break(&s->duplex, -ETIMEDOUT);
  } else if (s->state == STREAM_CONNECTING) {
    s->cancel = (struct io_op){
        .what = IO_CANCEL, .fd = -1, .target = &s->op, .buffer = s, .done = cancelled};
    s->pending++;
    io_submit(io_of(s), &s->cancel);
  }
}

static void connected(struct io_op *op, int result) {
  struct stream *s = op->buffer;
  int error = 0;
  socklen_t size = sizeof error;
  s->pending--;
  if (result == -ECANCELED)
    error = ETIMEDOUT;
  else if (result < 0)
    error = -result;
  else if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &size))
    error = errno;
  if (!error) {
    went_up(s, s->fd);
    return;
  }
  close(s->fd);
  went_down(s, -error);
}

static void start_connect(struct stream *s) {
  s->fd = socket(s->address.name.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int rc = s->fd < 0 ? -errno : 0;
  if (!rc && connect(s->fd, (struct sockaddr *)&s->address.name, s->address.bytes)) rc = -errno;
  if (!rc) {
    went_up(s, s->fd);
  } else if (rc == -EINPROGRESS) {
    s->state = STREAM_CONNECTING;
    s->op = (struct io_op){
        .what = IO_POLL, .fd = s->fd, .flags = POLLOUT, .buffer = s, .done = connected};
    s->pending++;
    io_submit(io_of(s), &s->op);
    alarm_set(alarms_of(s), &s->limit, shmq_after_ns(setting(s, "timeout")));
  } else {
    if (s->fd >= 0) close(s->fd);
    went_down(s, rc);
  }
}

static int address_of_path(struct address *a, const char *path) {
  struct sockaddr_un *un = (struct sockaddr_un *)&a->name;
  if (strlen(path) >= sizeof un->sun_path) return -ENAMETOOLONG;
  *un = (struct sockaddr_un){.sun_family = AF_UNIX};
  memcpy(un->sun_path, path, strlen(path));
  a->bytes = sizeof *un;
  return 0;
}

/* HOST:PORT. A host with several addresses has each tried in its turn. */
static int address_of_host(struct address *a, const char *text, unsigned turn) {
  char host[256];
  const char *port = strrchr(text, ':');
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL, *one;
  unsigned n = 0;
  snprintf(host, sizeof host, "%.*s", (int)(port - text), text);
  if (getaddrinfo(host, port + 1, &hints, &list)) return -EHOSTUNREACH;
  for (one = list; one; one = one->ai_next) n++;
  for (one = list, n = turn % n; n; n--) one = one->ai_next;
  memcpy(&a->name, one->ai_addr, one->ai_addrlen);
  a->bytes = one->ai_addrlen;
  freeaddrinfo(list);
  return 0;
}

/* On a helper thread: names take their time. */
static int resolve(struct io_op *op) {
  struct stream *s = op->buffer;
  const char *text = section_text(s->base.section, "connect");
  if (strncmp(text, "unix:", 5) == 0) return address_of_path(&s->address, text + 5);
  return address_of_host(&s->address, text + 4, s->attempts);
}

static void resolved(struct io_op *op, int result) {
  struct stream *s = op->buffer;
  s->pending--;
  if (result)
    went_down(s, result);
  else
    start_connect(s);
}

static void connect_now(struct stream *s) {
  s->state = STREAM_RESOLVING;
  s->since_ns = shmq_now_ns();
  s->attempts++;
  s->op = (struct io_op){.what = IO_CALL, .fd = -1, .buffer = s, .call = resolve, .done = resolved};
  s->pending++;
  io_submit(io_of(s), &s->op);
}

/* ---- requests out ---- */

static bool is_refused(const struct stream *s, const char *word, size_t bytes) {
  for (const char *at = section_text(s->base.section, "refuse"); *at;) {
    size_t n = strcspn(at, " \t");
    if (n == bytes && strncasecmp(at, word, n) == 0) return true;
    at += n + strspn(at + n, " \t");
  }
  return false;
}

/* Each frame of ours must be one answer of the peer's, or everybody behind it gets another's. */
static int check_commands(const struct stream *s, const char *data, size_t bytes) {
  struct framer f = {.framing = s->framing, .most = bytes};
  for (ssize_t n; bytes && (n = framer_scan(&f, data, bytes)) > 0; data += n, bytes -= (size_t)n) {
    const char *word;
    size_t length = resp_command(data, (size_t)n, &word);
    if (!length) return -EBADMSG;
    if (is_refused(s, word, length)) return -EPERM;
  }
  return 0;
}

static uint64_t frames_of(const struct request *r) {
  return request_arg(r, 0) ? request_arg(r, 0) : 1;
}

static int check(const struct stream *s, const char *data, size_t bytes, uint64_t frames) {
  if (frames > FRAMES_MAX) return -EINVAL;
  int rc = framer_check(s->framing, (size_t)setting(s, "frame_bytes"), data, bytes, frames);
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
    request_refuse(r, rc, rc == -EPERM    ? "no client may send that command"
                          : rc == -EBADMSG ? "that is not so many whole frames"
                                           : NULL);
    return;
  }
  r->scratch[SENT_BEGIN] = s->queued;
  r->scratch[SENT_END] = s->queued += r->in.size;
  r->scratch[SENT_FRAMES] = frames_of(r);
  r->scratch[SENT_GOT] = r->scratch[SENT_BYTES] = 0;
  r->next = NULL;
  *s->sent_end = r;
  s->sent_end = &r->next;
  if (!s->unwritten) s->unwritten = r;
  if (s->sent_count++ == 0)
    alarm_set(alarms_of(s), &s->limit, shmq_after_ns(setting(s, "timeout")));
}

static void send_waiting(struct stream *s) {
  while (s->state == STREAM_UP && s->sent_count < (unsigned)setting(s, "pipeline")) {
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
  if (s->state == STREAM_DOWN && !s->again.set && !resource->shard->daemon->draining) connect_now(s);
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
  if (s->sent)
    alarm_set(alarms_of(s), &s->limit, shmq_after_ns(setting(s, "timeout")));
  else
    alarm_clear(alarms_of(s), &s->limit);
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
  went_down(s, error);
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
  alarm_clear(alarms_of(s), &s->again);
  alarm_clear(alarms_of(s), &s->limit);
  wait_list_close(&s->waiting);
  duplex_free(&s->duplex);
  if (s->state == STREAM_CONNECTING) close(s->fd);
}

/* The first attempt is made by the first turn, when the daemon is sure to start. */
static int stream_open(struct resource *resource) {
  struct stream *s = (struct stream *)resource;
  const char *to = section_text(resource->section, "connect");
  bool good = (strncmp(to, "unix:", 5) == 0 && to[5]) ||
              (strncmp(to, "tcp:", 4) == 0 && strrchr(to, ':') > to + 4);
  if (!good) {
    say(SAY_ERROR, "[stream:%s] connect: '%s' is neither tcp:HOST:PORT nor unix:PATH",
        resource->section->name, to);
    return -EINVAL;
  }
  s->framing = (enum framing)setting(s, "framing");
  s->framer = (struct framer){.framing = s->framing, .most = (size_t)setting(s, "frame_bytes")};
  s->duplex = (struct duplex){
      .in_fd = -1, .out_fd = -1, .received = received, .writing = writing, .closed = closed};
  s->again.ring = again;
  s->limit.ring = too_late;
  s->sent_end = &s->sent;
  wait_list_open(&s->waiting, resource->shard);
  return 0;
}

const struct resource_kind stream_kind = {
    .section = {"stream", true, params, "A connection to a server, for all clients", true},
    .bytes = sizeof(struct stream),
    .open = stream_open,
    .operations = operations,
    .begun = stream_begun,
    .turn = stream_turn,
    .leave = stream_leave,
    .idle = stream_idle,
    .close = stream_close};
