/* SPDX-License-Identifier: Apache-2.0
 *
 * A client: it says what it would like to have, and gets the descriptor of its session's memory. That descriptor and
 * the socket are kept here and given to each worker in turn. The socket is the session's life: client, worker and
 * supervisor all see its end, whoever of them brings it about, and nobody has to be told.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor/memory.h"
#include "supervisor/supervisor.h"

/* ---- the handshake ---- */

static int send_answer(int socket, const shmq_hello *hello, int fd) {
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
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int greet(struct client *c) {
  shmq_hello hello;
  ssize_t n = recv(c->socket.fd, &hello, sizeof hello, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
  if ((size_t)n != sizeof hello || hello.magic != SHMQ_HELLO_MAGIC) return -EPROTO;
  int rc = session_memory(c->supervisor->settings, &hello.options, &c->credits, &c->memory);
  hello.status = rc;
  int sent = send_answer(c->socket.fd, &hello, rc ? -1 : c->memory);
  return rc ? rc : sent;
}

/* ---- life ---- */

static void client_free(struct client *c) {
  struct supervisor *sv = c->supervisor;
  *(c->prev ? &c->prev->next : &sv->clients) = c->next;
  if (c->next) c->next->prev = c->prev;
  sv->client_count--;
  shutdown(c->socket.fd, SHUT_RDWR); /* the worker, which has it too, sees the end */
  source_close(sv->epoll, &c->socket);
  if (c->memory >= 0) close(c->memory);
  free(c);
}

/* After the greeting a client has nothing to say here: anything is its end. */
static void socket_news(struct source *source, uint32_t events) {
  struct client *c = SOURCE_OWNER(source, struct client, socket);
  struct supervisor *sv = c->supervisor;
  (void)events;
  int rc = c->memory < 0 ? greet(c) : -ECONNRESET;
  if (!rc) worker_pass_clients(sv);
  if (rc && rc != -EAGAIN) client_free(c);
}

static struct client *add(struct supervisor *sv, int socket) {
  struct client *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->supervisor = sv;
  c->memory = -1;
  c->number = ++sv->next_number;
  if (source_add(sv->epoll, &c->socket, socket, EPOLLIN | EPOLLRDHUP, socket_news)) {
    free(c);
    return NULL;
  }
  c->next = sv->clients;
  if (c->next) c->next->prev = c;
  sv->clients = c;
  sv->client_count++;
  return c;
}

int client_new(struct supervisor *sv, int socket) { return add(sv, socket) ? 0 : -ENOMEM; }

void clients_close(struct supervisor *sv) {
  while (sv->clients) client_free(sv->clients);
}

void clients_forget_worker(struct supervisor *sv) {
  for (struct client *c = sv->clients; c; c = c->next) c->passed = false;
}
