/* SPDX-License-Identifier: Apache-2.0
 *
 * Before there is a session: greetings that end at any byte, that make no sense, that carry descriptors, that come in
 * floods and want everything.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "attack.h"

static int raw_connect(const struct shmqd *d) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, d->socket);
  int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (s < 0 || connect(s, (struct sockaddr *)&address, sizeof address)) _exit(0);
  return s;
}

static shmq_hello any_hello(unsigned *seed) {
  shmq_hello h = {.magic = SHMQ_HELLO_MAGIC,
                  .options = {.credits = (uint32_t)any_bits(seed),
                              .blocks = (uint32_t)any_bits(seed),
                              .block_bytes = (uint32_t)any_bits(seed)}};
  if (dice(seed, 4) == 0) h.magic = (uint32_t)any_bits(seed);
  memset(h.label, (int)dice(seed, 256), sizeof h.label);
  return h;
}

/* Cut at each byte, the whole included; then gone, at once or after a while, or half closed. */
void attack_handshake(const struct shmqd *d, unsigned *seed) {
  for (size_t n = 0; n <= sizeof(shmq_hello); n++) {
    shmq_hello h = any_hello(seed);
    h.magic = SHMQ_HELLO_MAGIC;
    int s = raw_connect(d);
    if (n && send(s, &h, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) _exit(0);
    if (dice(seed, 4) == 0) nap_ms(1);
    if (dice(seed, 4) == 0) shutdown(s, (int)dice(seed, 3));
    if (dice(seed, 2)) close(s);
  }
}

void attack_greeting(const struct shmqd *d, unsigned *seed) {
  char junk[2048];
  int s = raw_connect(d);
  for (int i = 0; i < 20; i++) {
    shmq_hello h = any_hello(seed);
    memset(junk, (int)dice(seed, 256), sizeof junk);
    bool sense = dice(seed, 2);
    const void *packet = sense ? (const void *)&h : junk;
    size_t size = sense ? sizeof h : dice(seed, sizeof junk + 1);
    if (send(s, packet, size, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) continue;
    close(s); /* it has ended us, as it should */
    s = raw_connect(d);
  }
}

/* Descriptors that nobody asked for must not stay with the daemon. */
void attack_descriptors(const struct shmqd *d, unsigned *seed) {
  enum { COUNT = 200 };
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(COUNT * sizeof(int))];
  } control = {0};
  int fds[COUNT], null = open("/dev/null", O_RDONLY);
  for (int i = 0; i < COUNT; i++) fds[i] = null;
  for (int i = 0; i < 20; i++) {
    shmq_hello h = any_hello(seed);
    struct iovec part = {.iov_base = &h, .iov_len = sizeof h};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(c), fds, sizeof fds);
    int s = raw_connect(d);
    sendmsg(s, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (dice(seed, 2)) sendmsg(s, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (dice(seed, 2)) close(s);
  }
}

/* As many sessions as there are to be had, each as large as it may be, with handles and waits until there are no more. */
void attack_quotas(const struct shmqd *d, unsigned *seed) {
  const shmq_session_options greed = {
      .credits = UINT32_MAX, .blocks = 1 + dice(seed, 64), .block_bytes = 4096u << dice(seed, 6)};
  for (int i = 0; i < 100; i++) {
    shmq_client *c = attack_connect(d, dice(seed, 2) ? &greed : NULL);
    if (!c) return;
    int tree = shmq_resource(c, "victim-tree"), log = shmq_resource(c, "victim-log");
    shmq_result r;
    shmq_future *f;
    for (int k = 0; k < 70 && dice(seed, 100); k++)
      shmqd_ask(c, tree, SHMQ_DIR_OPEN, SHMQ_DIR_CREATE | SHMQ_DIR_WRITABLE, 0600, "f", 1, 0, &r);
    shmq_ask wait = {
        .resource = (uint16_t)log, .op = SHMQ_LOG_FOLLOW, .value = {UINT64_MAX, 0}, .room = 100};
    for (int k = 0; k < 300 && shmq_request(c, &wait, SHMQ_NOWAIT, &f) == 0; k++) continue;
  }
}
