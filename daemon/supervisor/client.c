/* SPDX-License-Identifier: Apache-2.0
 *
 * The handshake: a client says what it would like to have, and gets the descriptor of its session's
 * memory.
 */
#include <string.h>
#include <unistd.h>

#include "session.h"

static uint32_t bounded(uint32_t wanted, const struct section *settings, const char *fallback,
                        const char *most) {
  int64_t value = wanted ? wanted : section_number(settings, fallback);
  int64_t max = section_number(settings, most);
  return (uint32_t)(value < max ? value : max);
}

static uint32_t power_of_two(uint32_t n) {
  uint32_t p = 1;
  while (p < n) p <<= 1;
  return p;
}

static int make_memory(struct session *s, const shmq_session_options *wanted, int *fd) {
  const struct section *settings = s->daemon->settings;
  shmq_service_options o = {
      .credits = power_of_two(bounded(wanted->credits, settings, "credits", "max_credits")),
      .blocks = bounded(wanted->blocks, settings, "blocks", "max_blocks"),
      .block_bytes = bounded(wanted->block_bytes, settings, "block_bytes", "max_block_bytes"),
      .mode = 0666, /* who has the descriptor may open it: nobody can find it by name */
      .redeliver = SHMQ_REDELIVER_ALWAYS,
      .single = 1};
  s->credits = o.credits;
  int rc = shmq_service_create_memfd(&o, fd);
  return rc ? rc : shmq_service_open_fd(&s->service, *fd, SHMQ_NEVER_WAIT);
}

static int send_answer(struct session *s, const shmq_hello *hello, int fd) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec part = {.iov_base = (void *)(uintptr_t)hello, .iov_len = sizeof *hello};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (fd >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  return sendmsg(s->socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int session_greet(struct session *s) {
  shmq_hello hello;
  ssize_t n = recv(s->socket, &hello, sizeof hello, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
  if ((size_t)n != sizeof hello || hello.magic != SHMQ_HELLO_MAGIC) return -EPROTO;
  memcpy(s->label, hello.label, sizeof s->label - 1);

  int fd = -1;
  int rc = make_memory(s, &hello.options, &fd);
  if (!rc) rc = requests_open(s);
  if (!rc) rc = handles_open(s);
  hello.status = rc;
  int sent = send_answer(s, &hello, rc ? -1 : fd);
  if (fd >= 0) close(fd);
  return rc ? rc : sent;
}
