/* SPDX-License-Identifier: Apache-2.0
 *
 * Services of a test's own: a memfd, servers as children of the test, which die with it.
 */
#ifndef TEST_SERVICE_H
#define TEST_SERVICE_H

#include <time.h>

#include "shmq/rpc.h"
#include "support/check.h"

#define MUST(call)                                                                                \
  do {                                                                                            \
    long must_rc = (long)(call);                                                                  \
    if (must_rc < 0) {                                                                            \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, shmq_strerror((int)must_rc)); \
      abort();                                                                                    \
    }                                                                                             \
  } while (0)

/* What the test server does, by op. */
enum {
  OP_ECHO = 1, /* value + 1, and the payload */
  OP_FAIL,     /* an error of the domain "test" with code 7 */
  OP_STREAM,   /* value[0] parts {int}, then "end" */
  OP_PLACE,    /* fills the room with 'x' in place */
  OP_SLEEP,    /* answers after value[0] ms, or -ECANCELED when cancelled */
  OP_DIE,      /* the server kills itself at the first attempt; answers the attempts at the next */
  OP_COUNT,    /* how many OP_ECHO this server has executed */
  OP_LATE,     /* kept, and answered with the next OP_ECHO */
  OP_STOP
};

struct server {
  shmq_service *service;
  uint64_t echoed;
  shmq_incoming kept;
  int is_kept;
};

static inline void nap_ms(long ms) {
  struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  nanosleep(&t, NULL);
}

static inline int on_echo(shmq_incoming *in, void *ctx) {
  struct server *s = ctx;
  uint64_t value[2] = {in->header.value[0] + 1, in->header.value[1]};
  s->echoed++;
  if (s->is_kept) shmq_reply(&s->kept, "late", 4);
  s->is_kept = 0;
  shmq_reply_value(in, value, in->data, in->size);
  return 0;
}
static inline int on_fail(shmq_incoming *in, void *ctx) {
  (void)ctx;
  shmq_reply_error(in, -ENOENT, "test", 7, "there is no such thing");
  return 0;
}
static inline int on_stream(shmq_incoming *in, void *ctx) {
  (void)ctx;
  int n = (int)in->header.value[0];
  for (int i = 0; i < n; i++) {
    int rc = shmq_reply_stream(in, &i, sizeof i, PATIENCE);
    if (rc) return rc;
  }
  shmq_reply(in, "end", 3);
  return 0;
}
static inline int on_place(shmq_incoming *in, void *ctx) {
  (void)ctx;
  memset(in->data, 'x', in->room);
  shmq_reply_in_place(in, NULL, in->room);
  return 0;
}
static inline int on_sleep(shmq_incoming *in, void *ctx) {
  (void)ctx;
  for (uint64_t i = 0; i < in->header.value[0]; i++) {
    if (shmq_cancelled(in)) return -ECANCELED;
    nap_ms(1);
  }
  shmq_reply(in, NULL, 0);
  return 0;
}
static inline int on_die(shmq_incoming *in, void *ctx) {
  (void)ctx;
  if (in->attempts == 1) raise(SIGKILL);
  uint64_t value[2] = {in->attempts, 0};
  shmq_reply_value(in, value, NULL, 0);
  return 0;
}
static inline int on_count(shmq_incoming *in, void *ctx) {
  uint64_t value[2] = {((struct server *)ctx)->echoed, 0};
  shmq_reply_value(in, value, NULL, 0);
  return 0;
}
static inline int on_late(shmq_incoming *in, void *ctx) {
  struct server *s = ctx;
  shmq_reply_later(in, &s->kept);
  s->is_kept = 1;
  return 0;
}
static inline int on_stop(shmq_incoming *in, void *ctx) {
  (void)ctx;
  shmq_reply(in, NULL, 0);
  return 1;
}

static inline void serve_for_ever(int fd) {
  static const shmq_handler handlers[] = {
      {OP_ECHO, on_echo},   {OP_FAIL, on_fail},   {OP_STREAM, on_stream},
      {OP_PLACE, on_place}, {OP_SLEEP, on_sleep}, {OP_DIE, on_die},
      {OP_COUNT, on_count}, {OP_LATE, on_late},   {OP_STOP, on_stop}};
  struct server s = {0};
  MUST(shmq_service_open_fd(&s.service, fd, 0));
  int rc = shmq_service_run(s.service, handlers, 9, &s, SHMQ_FOREVER);
  shmq_service_close(s.service);
  _exit(rc < 0 ? 1 : 0);
}

static inline pid_t start_server(int fd) {
  pid_t pid = fork();
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  serve_for_ever(fd);
  return 0;
}

static inline void stop_server(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

static inline int fresh_service(enum shmq_redeliver redeliver, uint32_t askers) {
  shmq_service_options o = {.askers = askers,
                            .credits = 8,
                            .blocks = 16,
                            .block_bytes = 65536,
                            .participants = 64,
                            .redeliver = redeliver};
  int fd = -1;
  MUST(shmq_service_create_memfd(&o, &fd));
  return fd;
}

static inline shmq_client *asker(int fd) {
  shmq_client *c = NULL;
  MUST(shmq_client_open_fd(&c, fd, 0));
  return c;
}

static inline int ask_value(shmq_client *c, uint16_t op, uint64_t value, shmq_result *r) {
  shmq_ask a = {.op = op, .value = {value, 0}};
  return shmq_call(c, &a, r, PATIENCE);
}

static inline shmq_future *ask_later(shmq_client *c, uint16_t op, uint64_t value, uint32_t flags) {
  shmq_ask a = {.op = op, .value = {value, 0}, .flags = flags};
  shmq_future *f = NULL;
  MUST(shmq_request(c, &a, SHMQ_FOREVER, &f));
  return f;
}

/* What was kept is answered now: a cast, for which nobody has to make room. */
static inline void release_late(shmq_client *c) {
  shmq_ask a = {.op = OP_ECHO};
  MUST(shmq_cast(c, &a, SHMQ_FOREVER));
}

/* A long answer has come, and lies where the server put it. */
static inline shmq_future *hold_answer(shmq_client *c) {
  shmq_ask a = {.op = OP_PLACE, .room = 60000};
  shmq_future *f = NULL;
  MUST(shmq_request(c, &a, SHMQ_FOREVER, &f));
  while (!shmq_poll(f)) nap_ms(1);
  return f;
}

#endif
