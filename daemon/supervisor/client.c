/* SPDX-License-Identifier: Apache-2.0
 *
 * A client: it says what it would like to have, and gets the descriptor of its session's memory. That descriptor and
 * the socket are kept here and given to each worker in turn. The socket is the session's life: client, worker and
 * supervisor all see its end, whoever of them brings it about, and nobody has to be told.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "send_fds.h"
#include "supervisor/memory.h"
#include "supervisor/store.h"
#include "supervisor/supervisor.h"

/* ---- the handshake ---- */

static int send_answer(int socket, const shmq_hello *hello, int fd) {
  struct iovec part = {.iov_base = (void *)(uintptr_t)hello, .iov_len = sizeof *hello};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  return send_fds(socket, &message, &fd, fd >= 0);
}

/* Counted against what its user may have; 0 or a negative errno. */
static int charge(struct client *c, const struct share *more) {
  int rc = account_take(c->account, c->supervisor->settings, more);
  if (rc) return rc;
  c->share.sessions += more->sessions;
  c->share.operations += more->operations;
  c->share.bytes += more->bytes;
  c->share.handles += more->handles;
  return 0;
}

/* What a session takes beside being one. */
static struct share memory_share(const struct supervisor *sv, uint32_t credits,
                                 const struct stat *st) {
  return (struct share){.operations = credits,
                        .bytes = (uint64_t)st->st_size,
                        .handles = (uint64_t)section_number(sv->settings, "handles")};
}

/* Memory that was made and is not used yet costs nothing, and its size is known then. */
static int make_memory(struct client *c, const shmq_session_options *wanted) {
  const struct section *settings = c->supervisor->settings;
  struct stat st = {0};
  int rc = session_memory(settings, wanted, &c->credits, &c->memory);
  if (rc) return rc;
  rc = fstat(c->memory, &st) ? -errno : 0;
  const struct share more = memory_share(c->supervisor, c->credits, &st);
  if (!rc) rc = charge(c, &more);
  if (!rc) return 0;
  close(c->memory);
  c->memory = -1;
  return rc;
}

static int greet(struct client *c) {
  shmq_hello hello;
  ssize_t n = recv(c->socket.fd, &hello, sizeof hello, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
  if ((size_t)n != sizeof hello || hello.magic != SHMQ_HELLO_MAGIC) return -EPROTO;
  int rc = make_memory(c, &hello.options);
  hello.status = rc;
  hello.epoch = c->supervisor->epoch;
  int sent = send_answer(c->socket.fd, &hello, rc ? -1 : c->memory);
  return rc ? rc : sent;
}

/* ---- life ---- */

static void client_leave(struct client *c) {
  struct supervisor *sv = c->supervisor;
  *(c->prev ? &c->prev->next : &sv->clients) = c->next;
  if (c->next) c->next->prev = c->prev;
  sv->client_count--;
  source_close(sv->epoll, &c->socket);
  if (c->memory >= 0) close(c->memory);
  if (c->account) account_give(&sv->accounts, c->account, &c->share);
  free(c);
}

static void client_end(struct client *c) {
  if (c->memory >= 0) store_forget(c);
  shutdown(c->socket.fd, SHUT_RDWR); /* the worker, which has it too, sees the end */
  client_leave(c);
}

/* After the greeting a client has nothing to say here: anything is its end. */
static void socket_news(struct source *source, uint32_t events) {
  struct client *c = SOURCE_OWNER(source, struct client, socket);
  struct supervisor *sv = c->supervisor;
  (void)events;
  int rc = c->memory < 0 ? greet(c) : -ECONNRESET;
  if (!rc) store_session(c);
  if (!rc) worker_pass_clients(sv);
  if (rc && rc != -EAGAIN) client_end(c);
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

static int account_of(struct supervisor *sv, int socket, struct account **account) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)) return -errno;
  *account = account_find(&sv->accounts, peer.uid);
  return *account ? 0 : -ENOMEM;
}

/* Whoever gave it has checked it. Quotas may be lower now: it is charged and not checked. But who may not connect any
 * more is not served any more. */
int client_adopt(struct supervisor *sv, int socket, int memory, uint64_t number, uint32_t credits) {
  struct account *account = NULL;
  struct stat st;
  if (!control_may_connect(sv, socket)) return -EACCES;
  int rc = fstat(memory, &st) ? -errno : account_of(sv, socket, &account);
  if (rc) return rc;
  struct share share = memory_share(sv, credits, &st);
  share.sessions = 1;
  account_charge(account, &share);
  struct client *c = add(sv, socket);
  if (!c) {
    account_give(&sv->accounts, account, &share);
    return -ENOMEM;
  }
  c->account = account;
  c->share = share;
  c->memory = memory;
  c->number = number;
  c->credits = credits;
  if (sv->next_number < number) sv->next_number = number;
  return 0;
}

int client_new(struct supervisor *sv, int socket) {
  const struct share one = {.sessions = 1};
  struct account *account = NULL;
  int rc = account_of(sv, socket, &account);
  if (!rc) rc = account_take(account, sv->settings, &one);
  if (rc) return rc;
  struct client *c = add(sv, socket);
  if (!c) {
    account_give(&sv->accounts, account, &one);
    return -ENOMEM;
  }
  c->account = account;
  c->share = one;
  return 0;
}

void client_refused(struct supervisor *sv, uint64_t number) {
  struct client *c = sv->clients;
  while (c && c->number != number) c = c->next;
  if (c) client_end(c);
}

void clients_close(struct supervisor *sv) {
  while (sv->clients) client_end(sv->clients);
}

void clients_leave(struct supervisor *sv) {
  while (sv->clients) client_leave(sv->clients);
}

void clients_forget_worker(struct supervisor *sv) {
  for (struct client *c = sv->clients; c; c = c->next) c->passed = false;
}
