/* SPDX-License-Identifier: Apache-2.0
 *
 * Children spoken to over standard input and output: n of the same, each leased to one request at a time.
 */
#include "resource/process.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "shmq/resource.h"

enum { FRAMES_MAX = 65536, HOPELESS = 3, MARKER_BYTES = 256, SIGNAL_MAX = 64 };

/* scratch of a leased request */
enum { LEASE_BEGIN, LEASE_FRAMES, LEASE_GOT, LEASE_BYTES, LEASE_SERIAL, LEASE_DROPPED };

static const struct param params[] = {
    RIGHTS_PARAM,
    SHARD_PARAM,
    {"command", PARAM_TEXT, NULL, 0, 0, NULL,
     "the program and its arguments, in words as a shell makes them; nothing is run to make them",
     PARAM_FIXED},
    {"count", PARAM_COUNT, "1", 1, 1024, NULL, "so many of it", PARAM_FIXED},
    {"framing", PARAM_CHOICE, "line", 0, 0, "line|length|marker",
     "what a request and an answer is: a line, 4 bytes of length and so many more, or lines up to the marker",
     PARAM_FIXED},
    {"marker", PARAM_TEXT, "", 0, 0, NULL,
     "marker: the line behind an answer; %n is a number that is another for each request", PARAM_FIXED},
    {"marker_command", PARAM_TEXT, "", 0, 0, NULL,
     "marker: the line sent behind a request that makes the program write the marker", PARAM_FIXED},
    {"frame_bytes", PARAM_BYTES, "1M", 16, 1 << 30, NULL, "the longest frame, or line", PARAM_FIXED},
    {"timeout", PARAM_DURATION, "30s", 1000000, INT64_MAX / 4, NULL,
     "a child that works on one request for so long is killed", PARAM_LIVE},
    {"retry_first", PARAM_DURATION, "100ms", 1000000, INT64_C(3600000000000), NULL,
     "start a child that has ended again after this delay, which doubles", PARAM_LIVE},
    {"retry_most", PARAM_DURATION, "30s", 1000000, INT64_C(3600000000000), NULL,
     "the longest such delay", PARAM_LIVE},
    LIMIT_PARAMS,
    {0},
};

static int64_t setting(const struct process *p, const char *key) {
  return section_number(p->base.section, key);
}

/* `pattern` with each %n as the number, and a newline. Returns its length, 0 if it is too long. */
static size_t write_marker(char to[MARKER_BYTES], const char *pattern, uint64_t number) {
  size_t n = 0;
  for (; *pattern && n < MARKER_BYTES - 24; pattern++) {
    if (pattern[0] == '%' && pattern[1] == 'n') {
      n += (size_t)snprintf(to + n, MARKER_BYTES - n, "%llu", (unsigned long long)number);
      pattern++;
    } else {
      to[n++] = *pattern;
    }
  }
  to[n++] = '\n';
  return *pattern ? 0 : n;
}

/* ---- requests out ---- */

static uint64_t frames_of(const struct request *r) {
  return request_arg(r, 0) ? request_arg(r, 0) : 1;
}

static int check(const struct process *p, const char *data, size_t bytes, uint64_t frames) {
  if (frames > FRAMES_MAX) return -EINVAL;
  if (p->framing == PROCESS_MARKER) return bytes && data[bytes - 1] == '\n' ? 0 : -EBADMSG;
  return framer_check((enum framing)p->framing, (size_t)setting(p, "frame_bytes"), data, bytes, frames);
}

static int put_marker_command(struct process *p, struct duplex *d, uint64_t serial) {
  char line[MARKER_BYTES];
  if (p->framing != PROCESS_MARKER) return 0;
  size_t n = write_marker(line, section_text(p->base.section, "marker_command"), serial);
  return duplex_put(d, line, n);
}

/* Our own copy is what is looked at and sent. */
static int put_checked(struct process_child *c, struct request *r) {
  struct duplex *d = &c->duplex;
  int rc = duplex_put(d, r->in.data, r->in.size);
  if (!rc) rc = check(c->owner, d->out, d->out_bytes, frames_of(r));
  if (!rc) rc = put_marker_command(c->owner, d, c->owner->serial + 1);
  if (rc) d->out_bytes = 0;
  return rc;
}

static void lease(struct process_child *c, struct request *r) {
  int rc = put_checked(c, r);
  if (rc) {
    request_refuse(r, rc, rc == -EBADMSG ? "that is not so many whole frames" : NULL);
    return;
  }
  r->scratch[LEASE_BEGIN] = c->duplex.written;
  r->scratch[LEASE_FRAMES] = frames_of(r);
  r->scratch[LEASE_GOT] = r->scratch[LEASE_BYTES] = r->scratch[LEASE_DROPPED] = 0;
  r->scratch[LEASE_SERIAL] = ++c->owner->serial;
  c->lease = r;
  request_rest(r, REQUEST_WAITS);
  alarm_set(&c->owner->base.shard->alarms, &c->limit,
            shmq_after_ns(setting(c->owner, "timeout")));
  duplex_flush(&c->duplex);
}

/* Whoever has waited longest gets a child that is free. */
static void lease_free(struct process *p) {
  for (unsigned i = 0; i < p->count; i++) {
    struct process_child *c = &p->children[i];
    struct request *r;
    while (c->state == CHILD_IS_UP && !c->lease && (r = wait_list_take(&p->waiting))) lease(c, r);
  }
}

void process_child_up(struct process_child *c) { lease_free(c->owner); }

/* None is there, and each has died several times without answering anything. */
static bool is_hopeless(const struct process *p) {
  for (unsigned i = 0; i < p->count; i++)
    if (p->children[i].state == CHILD_IS_UP || p->children[i].failures < HOPELESS) return false;
  return true;
}

static void serve_ask(struct request *r) {
  struct process *p = (struct process *)r->resource;
  if (is_hopeless(p)) {
    request_refuse(r, -ECONNRESET, "the program does not stay");
    return;
  }
  wait_list_add(&p->waiting, r);
  lease_free(p);
}

/* ---- answers in ---- */

static bool is_marker(const struct process_child *c, const char *line, size_t bytes) {
  char marker[MARKER_BYTES];
  const struct process *p = c->owner;
  size_t n = write_marker(marker, section_text(p->base.section, "marker"),
                          c->lease->scratch[LEASE_SERIAL]);
  return n == bytes && memcmp(line, marker, n) == 0;
}

static void answer(struct process_child *c, const char *data, size_t bytes, uint64_t frames) {
  struct request *r = c->lease;
  c->lease = NULL;
  c->failures = 0;
  request_rest(r, REQUEST_BUSY);
  alarm_clear(&c->owner->base.shard->alarms, &c->limit);
  if (r->scratch[LEASE_DROPPED]) {
    request_fail(r, -EMSGSIZE, SHMQ_EXECUTED_YES, "the answer is longer than any block");
    return;
  }
  if (bytes > r->in.room) {
    request_value(r, frames, (uint64_t)c->pid, data, bytes);
    return;
  }
  memcpy(r->in.data, data, bytes);
  request_in_place(r, frames, (uint64_t)c->pid, bytes);
}

/* Take in one more frame. Returns 1: the answer is whole; 0: there is more to come; or a negative errno. */
static int take_frame(struct process_child *c, struct request *r) {
  const char *at = c->duplex.in + r->scratch[LEASE_BYTES];
  size_t left = c->duplex.in_bytes - (size_t)r->scratch[LEASE_BYTES];
  ssize_t n = left ? framer_scan(&c->framer, at, left) : 0;
  if (n <= 0) return n ? (int)n : -EAGAIN;
  r->scratch[LEASE_BYTES] += (size_t)n;
  if (c->owner->framing == PROCESS_MARKER) {
    bool over = is_marker(c, at, (size_t)n);
    if (!over) r->scratch[LEASE_GOT]++;
    return over;
  }
  return ++r->scratch[LEASE_GOT] == r->scratch[LEASE_FRAMES];
}

/* Its end is looked for, but what nobody can be told is not kept. */
static void drop_excess(struct process_child *c, struct request *r) {
  size_t bytes = (size_t)r->scratch[LEASE_BYTES];
  if (bytes <= resource_answer_most(r)) return;
  duplex_consume(&c->duplex, bytes);
  r->scratch[LEASE_DROPPED] += bytes;
  r->scratch[LEASE_BYTES] = 0;
}

void process_received(struct process_child *c) {
  struct request *r = c->lease;
  size_t before = r ? (size_t)r->scratch[LEASE_BYTES] : 0;
  int rc = 0;
  while (r && rc == 0) {
    before = (size_t)r->scratch[LEASE_BYTES];
    rc = take_frame(c, r);
  }
  if (rc == -EAGAIN) {
    drop_excess(c, r);
    return;
  }
  size_t used = rc > 0 ? (size_t)r->scratch[LEASE_BYTES] : 0;
  /* It has said more than it was asked, or before it has read what it was. */
  if (rc < 0 || used < c->duplex.in_bytes || c->duplex.out_bytes) {
    process_child_kill(c, -EBADMSG);
    return;
  }
  size_t bytes = c->owner->framing == PROCESS_MARKER ? before : used;
  uint64_t frames = r->scratch[LEASE_GOT];
  duplex_consume(&c->duplex, used);
  answer(c, c->duplex.in, bytes, frames); /* consumed bytes lie there until something is received */
  lease_free(c->owner);
}

void process_child_down(struct process_child *c) {
  struct process *p = c->owner;
  struct request *r = c->lease;
  c->lease = NULL;
  if (r && r->scratch[LEASE_BEGIN] == c->duplex.written)
    wait_list_add(&p->waiting, r); /* it has seen nothing of it */
  else if (r)
    request_died(r, c->error, "the program died before it answered");
  if (is_hopeless(p)) wait_list_fail(&p->waiting, -ECONNRESET, "the program does not stay");
  lease_free(p);
}

/* ---- signal and status ---- */

static void serve_signal(struct request *r) {
  struct process *p = (struct process *)r->resource;
  uint64_t which = request_arg(r, 0), number = request_arg(r, 1), count = 0;
  if (which > p->count || number == 0 || number > SIGNAL_MAX) {
    request_refuse(r, -EINVAL, NULL);
    return;
  }
  request_begin(r); /* the next worker's programs are others */
  for (unsigned i = 0; i < p->count; i++)
    if (!which || which == i + 1) count += process_child_signal(&p->children[i], (int)number) == 0;
  request_value(r, count, 0, NULL, 0);
}

static void serve_status(struct request *r) {
  static const char *const states[] = {"down", "starting", "up", "ending"};
  const struct process *p = (const struct process *)r->resource;
  char line[128];
  size_t filled = 0;
  for (unsigned i = 0; i < p->count; i++) {
    const struct process_child *c = &p->children[i];
    int n = snprintf(line, sizeof line, "%u %s pid=%d leased=%d deaths=%u status=%d\n", i + 1,
                     states[c->state], (int)c->pid, c->lease != NULL, c->backoff.count, c->status);
    if ((size_t)n > r->in.room - filled) break;
    memcpy((char *)r->in.data + filled, line, (size_t)n);
    filled += (size_t)n;
  }
  request_in_place(r, p->count, p->waiting.count, filled);
}

/* ---- the table ---- */

static const struct operation operations[] = {{SHMQ_PROCESS_ASK, RIGHT_WRITE, serve_ask},
                                              {SHMQ_PROCESS_SIGNAL, RIGHT_ADMIN, serve_signal},
                                              {SHMQ_PROCESS_STATUS, RIGHT_READ, serve_status},
                                              {0}};

static void process_begun(struct request *r) {
  request_restarted(r, -ERESTART, SHMQ_EXECUTED_UNKNOWN, "the daemon's worker died, and the program with it");
}

static void process_leave(struct resource *resource, struct session *session) {
  wait_list_leave(&((struct process *)resource)->waiting, session);
}

/* The first are started by the first turn, when the daemon is sure to start. */
static void process_turn(struct resource *resource) {
  struct process *p = (struct process *)resource;
  if (resource->shard->daemon->draining) return;
  for (unsigned i = 0; i < p->count; i++) {
    struct process_child *c = &p->children[i];
    if (c->state == CHILD_IS_DOWN && !c->again.set) process_child_start(c);
  }
}

static bool process_idle(const struct resource *resource) {
  const struct process *p = (const struct process *)resource;
  for (unsigned i = 0; i < p->count; i++)
    if (p->children[i].lease || p->children[i].state == CHILD_IS_STARTING) return false;
  return true;
}

static void process_close(struct resource *resource) {
  struct process *p = (struct process *)resource;
  for (unsigned i = 0; p->children && i < p->count; i++) process_child_close(&p->children[i]);
  wait_list_close(&p->waiting);
  free(p->children);
  wordfree(&p->words);
}

static const char *check_marker(const struct section *s, const char *key) {
  char line[MARKER_BYTES];
  const char *text = section_text(s, key);
  if (!*text) return "must be given for framing = marker";
  return write_marker(line, text, UINT64_MAX) ? NULL : "is too long";
}

static const char *process_check(const struct section *s, const char **key) {
  static const char *const markers[] = {"marker", "marker_command"};
  const char *wrong = NULL;
  for (int i = 0; i < 2 && !wrong && section_number(s, "framing") == PROCESS_MARKER; i++)
    wrong = check_marker(s, *key = markers[i]);
  if (wrong) return wrong;
  *key = "command";
  return command_check(section_text(s, "command"));
}

static int process_open(struct resource *resource) {
  struct process *p = (struct process *)resource;
  p->framing = (int)setting(p, "framing");
  p->count = (unsigned)setting(p, "count");
  limits_read(&p->limits, resource->section);
  wait_list_open(&p->waiting, resource->shard);
  const char *wrong = command_split(section_text(resource->section, "command"), &p->words);
  p->children = wrong ? NULL : calloc(p->count, sizeof *p->children);
  if (!wrong && !p->children) wrong = "out of memory";
  if (wrong) {
    say(SAY_ERROR, "[process:%s] command: %s", resource->section->name, wrong);
    process_close(resource);
    return -EINVAL;
  }
  for (unsigned i = 0; i < p->count; i++) process_child_open(&p->children[i], p);
  return 0;
}

const struct resource_kind process_kind = {
    .section = {"process", true, params, "Programs spoken to over standard input and output", true,
                process_check},
    .bytes = sizeof(struct process),
    .open = process_open,
    .operations = operations,
    .begun = process_begun,
    .turn = process_turn,
    .leave = process_leave,
    .idle = process_idle,
    .close = process_close};
