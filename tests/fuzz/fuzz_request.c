/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to shmqd: the daemon's sessions and resources, real but for their I/O, which is done at once
 * (sync_io.c), against a client that writes headers and payloads of its own, changes them after it sent them, and
 * scribbles on the words of its session. The daemon may answer or end the session.
 */
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "daemon.h"
#include "settings.h"
#include "supervisor/memory.h"
#include "guard.h"
#include "session.h"
#include "world.h"

enum { STEPS_MAX = 120, RUNS_OF_A_DAEMON = 512, TURNS_AT_ONCE = 100, TURNS_TO_END = 20000, REQUEST_MAX = 6000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __wrap_say(enum say_level level, const char *format, ...);
void __wrap_say(enum say_level level, const char *format, ...) { (void)level, (void)format; }

/* ---- the daemon ---- */

static struct daemon d;
static struct shard shard;
static char root[64];

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st, (void)type, (void)ftw;
  return remove(path);
}

static void assign(const char *section, const char *key, const char *value) {
  struct config_error error;
  if (config_assign(&d.config, section, key, value, "fuzz", &error) != 0) check(false, error.text);
}

static void configure(void) {
  struct config_error error;
  char path[96];
  config_init(&d.config, section_kinds);
  assign("daemon", "max_credits", "4");
  assign("daemon", "max_blocks", "4");
  assign("daemon", "max_block_bytes", "4096");
  assign("daemon", "handles", "4");
  snprintf(path, sizeof path, "%s/tree", root);
  assign("dir:tree", "path", path);
  assign("dir:tree", "rights", "write");
  snprintf(path, sizeof path, "%s/log", root);
  assign("log:log", "path", path);
  assign("log:log", "segment_bytes", "2M");
  assign("log:log", "keys", "16");
  check(config_complete(&d.config, &error) == 0, "the configuration");
  d.settings = config_section(&d.config, "daemon");
}

static void make_file(const char *name, size_t bytes) {
  static const char text[4096];
  char path[96];
  snprintf(path, sizeof path, "%s/tree/%s", root, name);
  FILE *file = fopen(path, "we");
  check(file && fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0, "a file");
}

static void daemon_start(void) {
  char path[96];
  snprintf(root, sizeof root, "/dev/shm/shmq-fuzz-%d", (int)getpid());
  (void)nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
  snprintf(path, sizeof path, "%s/tree", root);
  check(mkdir(root, 0700) == 0 && mkdir(path, 0700) == 0, "a directory");
  make_file("a", 100);
  make_file("b", 4096);
  snprintf(path, sizeof path, "%s/tree/d", root);
  check(mkdir(path, 0700) == 0, "a directory");
  d = (struct daemon){.shards = &shard, .shard_count = 1};
  shard = (struct shard){.daemon = &d};
  configure();
  check(io_open(&shard.io, IO_AUTO) == 0 && resources_open(&d) == 0, "the resources");
}

static void daemon_stop(void) {
  resources_close(&d);
  io_close(shard.io);
  config_free(&d.config);
  (void)nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void turn_until(int64_t deadline_ns) {
  alarms_run(&shard.alarms); /* a log's batch may wait for company */
  (void)sessions_turn(&shard);
  resources_turn(&shard);
  sessions_send(&shard);
  check(io_run(shard.io, deadline_ns) >= 0, "the loop");
  sessions_send(&shard);
}

static void turn(void) { turn_until(SHMQ_NOWAIT); }

/* ---- the client ---- */

struct client {
  int socket;
  int memory; /* the session's */
  shmq_segment *segment;
  shmq *requests, *replies, *cancels;
  uint32_t asker, generation;
  uint64_t serial;
  uint32_t epoch; /* of its handles */
};

/* What the supervisor makes of a hello. */
static uint32_t make_memory(struct client *c, struct input *in) {
  shmq_session_options o = {.credits = input_below(in, 6), .blocks = input_below(in, 6)};
  uint32_t credits;
  o.block_bytes = input_u8(in) & 1 ? 4096 : input_below(in, 9000);
  check(session_memory(d.settings, &o, &credits, &c->memory) == 0, "a session's memory");
  return credits;
}

static void client_connect(struct client *c, struct input *in) {
  int sockets[2];
  check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0, "sockets");
  *c = (struct client){.socket = sockets[0], .memory = -1};
  uint32_t credits = make_memory(c, in);
  check(session_new(&shard, sockets[1], dup(c->memory), credits) == 0, "a session");
  check(shmq_attach_fd(&c->segment, c->memory) == 0 &&
            shmq_open_in(&c->requests, c->segment, NULL, 0) == 0 &&
            shmq_open_in(&c->replies, c->segment, "reply.0", 0) == 0 &&
            shmq_open_in(&c->cancels, c->segment, "cancel.0", 0) == 0 &&
            shmq_join_segment(c->segment, "asker", NULL) == 0,
        "the session's memory");
  c->epoch = shard.sessions->epoch;
  c->asker = (uint32_t)shmq_participant(c->segment, &c->generation);
}

static void client_close(struct client *c) {
  shmq_close(c->requests);
  shmq_close(c->replies);
  shmq_close(c->cancels);
  shmq_detach(c->segment);
  close(c->memory);
  close(c->socket);
}

/* ---- what it sends ---- */

static size_t any_payload(char *to, struct input *in) {
  static const char *const paths[] = {"a", "b", "d", "d/e", ".", "..", "/", "d/../a", "", "tree", "log", "a/b"};
  uint32_t choice = input_below(in, 16);
  if (choice < sizeof paths / sizeof *paths) {
    size_t n = strlen(paths[choice]);
    memcpy(to, paths[choice], n);
    return n;
  }
  if (choice == 12) { /* a rename, or a put's path and contents */
    memcpy(to, "a\0c", 3);
    return 3;
  }
  size_t n = input_below(in, choice == 13 ? REQUEST_MAX : 48);
  memset(to, (int)choice, n);
  for (size_t i = 0; i < n && i < 48; i++) to[i] = (char)input_u8(in);
  return n;
}

static shmq_request_header any_header(struct client *c, size_t payload, struct input *in) {
  shmq_request_header h = {.magic = SHMQ_RPC_MAGIC,
                           .kind = SHMQ_RPC_REQUEST,
                           .flags = input_below(in, 8) == 0 ? input_u16(in) : 0,
                           .id = ++c->serial,
                           .asker = c->asker,
                           .generation = c->generation,
                           .resource = (uint16_t)input_below(in, 4),
                           .op = (uint16_t)input_below(in, 16),
                           .deadline_ns = SHMQ_FOREVER,
                           .data_offset = sizeof h,
                           .data_bytes = (uint32_t)payload,
                           .value = {input_u8(in), input_u8(in)}};
  uint8_t handle = input_u8(in); /* the first ones, and their numbers' second use */
  if (handle & 1) h.value[0] = ((uint64_t)c->epoch << 40) + (handle >> 1 & 1) + UINT64_C(1) + ((handle >> 2 & 1) + UINT64_C(1)) * 65536;
  if (input_below(in, 6) == 0) h.value[input_u8(in) & 1] = input_u64(in);
  if (input_below(in, 6) == 0) {
    unsigned char *at = (unsigned char *)&h;
    uint32_t where = input_below(in, sizeof h / 4) * 4, value = input_u32(in);
    memcpy(at + where, &value, sizeof value);
  }
  return h;
}

static void send_request(struct client *c, struct input *in) {
  static char payload[REQUEST_MAX];
  shmq_message m;
  size_t bytes = any_payload(payload, in);
  shmq_request_header h = any_header(c, bytes, in);
  size_t room = input_below(in, 4) == 0 ? input_below(in, 5000) : 0, size = sizeof h + bytes + room;
  if (shmq_reserve(c->requests, size, &m, SHMQ_NOWAIT) != 0) return;
  memcpy(m.data, &h, sizeof h);
  memcpy((char *)m.data + sizeof h, payload, bytes);
  memset((char *)m.data + sizeof h + bytes, 0, room);
  (void)shmq_commit(c->requests, &m);
}

static void take_reply(const struct client *c) {
  shmq_message m;
  if (shmq_lease(c->replies, &m, SHMQ_NOWAIT) != 0) return;
  check_payload(c->segment, m.data, m.size, true);
  (void)shmq_ack(c->replies, &m);
}

static void send_cancel(const struct client *c, struct input *in) {
  struct { uint64_t id; uint32_t asker, generation; } what = {input_u8(in), c->asker, c->generation};
  (void)shmq_put(c->cancels, &what, sizeof what, SHMQ_NOWAIT);
}

static void play(struct client *c, struct input *in) {
  for (int step = 0; step < STEPS_MAX && !input_over(in); step++) {
    switch (input_below(in, 12)) {
      case 0: case 1: case 2: case 3: case 4: send_request(c, in); break;
      case 5: case 6: case 7: turn(); break;
      case 8: case 9: take_reply(c); break;
      case 10: send_cancel(c, in); break;
      default: world_scribble(c->segment, in); break;
    }
  }
}

/* ---- the fuzzer ---- */

static void prepare(void) {
  static int runs;
  if (runs++ % RUNS_OF_A_DAEMON != 0) return;
  if (runs > 1) daemon_stop();
  else atexit(daemon_stop);
  /* A hole of any size is quick to make; what fills the machine is not. */
  struct rlimit limit = {.rlim_cur = 8 << 20, .rlim_max = 8 << 20};
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  daemon_start();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input in = input_of(data, size);
  struct client c;
  d.spin_ns = d.spin_most_ns = size % 2 ? 0 : INT64_MAX; /* asleep behind its doorbell, or polled */
  prepare();
  client_connect(&c, &in);
  play(&c, &in);
  turn();
  client_close(&c);
  for (int i = 0; shard.sessions; i++) {
    check(i < TURNS_TO_END, "a session whose client has gone does not end");
    turn_until(i < TURNS_AT_ONCE ? SHMQ_NOWAIT : shmq_after_ns(1000000)); /* the disk may be slow */
  }
  return 0;
}
