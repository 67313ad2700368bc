/* SPDX-License-Identifier: Apache-2.0
 *
 * A session: one client, its sealed memory, its requests. Whatever the client does to that memory
 * may end this session and nothing else.
 *
 *   GREETING -> OPEN -> ENDING -> freed
 *
 * ENDING takes nothing more and waits until every operation has come back, because the ring may
 * still read or write the client's memory until then.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon.h"

enum {
  TURN_REQUESTS = 32,
  TURN_BYTES = 256 << 10,
  HANDLE_INDEX_BITS = 16,
};

enum session_state { SESSION_GREETING, SESSION_OPEN, SESSION_ENDING };

struct handle {
  int fd; /* -1: free */
  uint16_t resource;
  bool closing;
  uint32_t serial; /* a closed handle's number does not come again soon */
  uint32_t holds;
};

struct session {
  struct daemon *daemon;
  struct session *next, *prev;
  struct session *hot_next, *hot_prev;
  enum session_state state;
  bool hot;
  bool shut; /* its queue is shut and empty: it ends with its last answer */
  struct ucred peer;
  char label[32];
  int socket;
  shmq_service *service;
  int64_t active_ns; /* when it last had a request */

  struct request *requests, *free_requests;
  uint32_t credits, in_flight;
  struct handle *handles;
  uint32_t handle_count;

  struct io_op socket_op, bell_op, cancel_op[2];
  unsigned polls; /* of the four above, under way */
  bool socket_polled, bell_polled;
};

uint32_t session_uid(const struct session *s) { return s->peer.uid; }

/* ---- lists ---- */

static void link_session(struct daemon *d, struct session *s) {
  s->next = d->sessions;
  if (s->next) s->next->prev = s;
  d->sessions = s;
  d->session_count++;
}

static void unlink_session(struct session *s) {
  struct daemon *d = s->daemon;
  *(s->prev ? &s->prev->next : &d->sessions) = s->next;
  if (s->next) s->next->prev = s->prev;
  d->session_count--;
}

static void make_hot(struct session *s) {
  struct daemon *d = s->daemon;
  if (s->hot) return;
  s->hot = true;
  s->hot_prev = NULL;
  s->hot_next = d->hot;
  if (d->hot) d->hot->hot_prev = s;
  d->hot = s;
}

static void make_cold(struct session *s) {
  struct daemon *d = s->daemon;
  if (!s->hot) return;
  s->hot = false;
  *(s->hot_prev ? &s->hot_prev->hot_next : &d->hot) = s->hot_next;
  if (s->hot_next) s->hot_next->hot_prev = s->hot_prev;
}

/* ---- the end ---- */

static void close_handles(struct session *s) {
  for (uint32_t i = 0; i < s->handle_count; i++)
    if (s->handles[i].fd >= 0) close(s->handles[i].fd);
  free(s->handles);
}

static void session_free(struct session *s) {
  unlink_session(s);
  close_handles(s);
  for (uint32_t i = 0; s->requests && i < s->credits; i++) free(s->requests[i].memory);
  free(s->requests);
  shmq_service_close(s->service);
  close(s->socket);
  free(s);
}

static void free_if_over(struct session *s) {
  if (s->state == SESSION_ENDING && !s->in_flight && !s->polls) session_free(s);
}

static void cancelled(struct io_op *op, int result) {
  struct session *s = op->buffer;
  (void)result;
  s->polls--;
  free_if_over(s);
}

static void cancel_poll(struct session *s, struct io_op *cancel, struct io_op *target) {
  *cancel =
      (struct io_op){.what = IO_CANCEL, .target = target, .fd = -1, .buffer = s, .done = cancelled};
  s->polls++;
  io_submit(s->daemon->io, cancel);
}

/* The resources give up what they keep for the session. Their last answer must not free it under us. */
static void resources_leave(struct session *s) {
  s->in_flight++;
  for (struct resource *r = s->daemon->resources; r; r = r->next)
    if (r->kind->leave) r->kind->leave(r, s);
  s->in_flight--;
}

void session_end(struct session *s, const char *why) {
  if (s->state == SESSION_ENDING) return;
  say(SAY_INFO, "session of uid %u pid %d ends: %s", s->peer.uid, (int)s->peer.pid, why);
  s->state = SESSION_ENDING;
  resources_leave(s);
  make_cold(s);
  shutdown(s->socket, SHUT_RDWR); /* the client learns it now, whatever is still under way */
  if (s->socket_polled) cancel_poll(s, &s->cancel_op[0], &s->socket_op);
  if (s->bell_polled) cancel_poll(s, &s->cancel_op[1], &s->bell_op);
  free_if_over(s);
}

/* ---- handles ---- */

static struct handle *find_handle(const struct session *s, uint64_t number) {
  uint64_t i = (number & ((1u << HANDLE_INDEX_BITS) - 1)) - 1;
  if (i >= s->handle_count) return NULL;
  struct handle *h = &s->handles[i];
  return h->fd >= 0 && h->serial == number >> HANDLE_INDEX_BITS ? h : NULL;
}

int64_t handle_add(struct session *s, const struct resource *resource, int fd) {
  for (uint32_t i = 0; i < s->handle_count; i++) {
    struct handle *h = &s->handles[i];
    if (h->fd >= 0) continue;
    *h = (struct handle){
        .fd = fd, .resource = resource->number, .serial = (h->serial + 1) & 0x7fffffff};
    return (int64_t)((uint64_t)h->serial << HANDLE_INDEX_BITS | (i + 1));
  }
  return -EMFILE;
}

int handle_fd(const struct session *s, const struct resource *resource, uint64_t number) {
  const struct handle *h = find_handle(s, number);
  return h && !h->closing && h->resource == resource->number ? h->fd : -EBADF;
}

static void close_if_unused(struct handle *h) {
  if (h->holds || !h->closing) return;
  close(h->fd);
  h->fd = -1;
}

void handle_hold(struct session *s, uint64_t number) {
  struct handle *h = find_handle(s, number);
  if (h) h->holds++;
}

void handle_release(struct session *s, uint64_t number) {
  struct handle *h = find_handle(s, number);
  if (!h || !h->holds) return;
  h->holds--;
  close_if_unused(h);
}

int handle_close(struct session *s, const struct resource *resource, uint64_t number) {
  if (handle_fd(s, resource, number) < 0) return -EBADF;
  struct handle *h = find_handle(s, number);
  h->closing = true;
  close_if_unused(h);
  return 0;
}

/* ---- requests ---- */

static struct request *request_new(struct session *s) {
  struct request *r = s->free_requests;
  s->free_requests = r->next;
  r->session = s;
  r->resource = NULL;
  r->next = NULL;
  r->memory = NULL;
  return r;
}

static void request_free(struct request *r) {
  struct session *s = r->session;
  free(r->memory);
  r->memory = NULL;
  r->next = s->free_requests;
  s->free_requests = r;
}

/* An answered request. A client whose reply queue is full has not kept to its credits, or has damaged
 * its memory: there is nobody to tell. */
static void answered(struct request *r, int rc) {
  struct session *s = r->session;
  request_free(r);
  s->in_flight--;
  if (rc == -EAGAIN || rc == -EBADMSG) {
    session_end(s, "its reply queue is full or damaged");
    return;
  }
  if (s->shut && !s->in_flight)
    session_end(s, "its queue was shut");
  else if (s->state == SESSION_OPEN && !s->bell_polled && !s->shut)
    make_hot(s); /* a credit is back */
  else
    free_if_over(s);
}

static bool is_gone(struct request *r) { return r->session->state == SESSION_ENDING; }

void request_value(struct request *r, uint64_t value0, uint64_t value1, const void *data,
                   size_t size) {
  uint64_t value[2] = {value0, value1};
  answered(r, is_gone(r) ? 0 : shmq_reply_value(&r->in, value, data, size));
}

void request_in_place(struct request *r, uint64_t value0, uint64_t value1, size_t size) {
  uint64_t value[2] = {value0, value1};
  answered(r, is_gone(r) ? 0 : shmq_reply_in_place(&r->in, value, size));
}

void request_error(struct request *r, int status, const char *text) {
  answered(r, is_gone(r) ? 0 : shmq_reply_error(&r->in, status, NULL, 0, text));
}

void request_fail(struct request *r, int status, enum shmq_executed executed, const char *text) {
  shmq_answer a = {.status = status,
                   .error_class = (uint8_t)shmq_class_of(status),
                   .executed = (uint8_t)executed,
                   .text = text};
  answered(r, is_gone(r) ? 0 : shmq_reply_answer(&r->in, &a));
}

int request_text(const struct request *r, char *to, size_t room) {
  size_t n = r->in.size;
  if (n >= room) return -ENAMETOOLONG;
  memcpy(to, r->in.data, n);
  to[n] = 0;
  return strlen(to) == n ? (int)n : -EINVAL;
}

static void dispatch(struct request *r) {
  uint16_t number = r->in.header.resource;
  if (number == 0) {
    daemon_serve(r->session->daemon, r);
    return;
  }
  r->resource = resource_find(r->session->daemon, number);
  if (r->resource)
    r->resource->kind->serve(r);
  else
    request_error(r, -ENODEV, "no such resource");
}

/* ---- a turn ---- */

static void doorbell(struct io_op *op, int result) {
  struct session *s = op->buffer;
  s->polls--;
  s->bell_polled = false;
  if (s->state == SESSION_OPEN && result < 0)
    session_end(s, "its doorbell failed");
  else if (s->state == SESSION_OPEN)
    make_hot(s);
  else
    free_if_over(s);
}

/* Sleep behind the doorbell: announced, looked again, and only then no longer polled. */
static void go_to_sleep(struct session *s) {
  int fd = shmq_service_event_fd(s->service);
  int rc = fd < 0 ? fd : shmq_service_event_arm(s->service);
  if (rc < 0) {
    session_end(s, "its doorbell cannot be armed");
    return;
  }
  if (rc > 0) return;
  make_cold(s);
  s->bell_op =
      (struct io_op){.what = IO_POLL, .fd = fd, .flags = POLLIN, .buffer = s, .done = doorbell};
  s->bell_polled = true;
  s->polls++;
  io_submit(s->daemon->io, &s->bell_op);
}

/* Returns how many were begun, or why the session cannot go on. */
static int take_requests(struct session *s) {
  int taken = 0;
  for (size_t bytes = 0; taken < TURN_REQUESTS && bytes < TURN_BYTES && s->in_flight < s->credits;
       taken++) {
    struct request *r = request_new(s);
    int rc = shmq_serve(s->service, &r->in, SHMQ_NOWAIT);
    if (rc) {
      request_free(r);
      return rc == -EAGAIN ? taken : rc;
    }
    bytes += r->in.room;
    s->in_flight++;
    s->daemon->requests++;
    dispatch(r);
    if (s->state != SESSION_OPEN) return taken;
  }
  return taken;
}

/* A session with an answer under way must not be freed while it is worked on: in_flight keeps it. */
static int session_turn(struct session *s, int64_t now_ns) {
  s->in_flight++;
  int n = take_requests(s);
  s->in_flight--;
  if (s->state != SESSION_OPEN) {
    free_if_over(s);
    return 0;
  }
  if (n > 0) s->active_ns = now_ns;
  if (n == -EPIPE && s->in_flight) {
    s->shut = true;
    make_cold(s);
  } else if (n < 0)
    session_end(s, n == -EPIPE ? "its queue was shut" : "its memory makes no sense");
  else if (s->in_flight >= s->credits)
    make_cold(s); /* until an answer gives a credit back */
  else if (n == 0 && !s->bell_polled && now_ns - s->active_ns > s->daemon->spin_ns)
    go_to_sleep(s);
  return n > 0 ? n : 0;
}

int sessions_turn(struct daemon *d) {
  int n = 0;
  int64_t now = d->hot ? shmq_now_ns() : 0;
  for (struct session *s = d->hot, *next; s; s = next) {
    next = s->hot_next;
    n += session_turn(s, now);
  }
  return n;
}

void sessions_shut(struct daemon *d) {
  for (struct session *s = d->sessions, *next; s; s = next) {
    next = s->next;
    resources_leave(s);
    if (s->state == SESSION_GREETING) {
      session_end(s, "the daemon is shutting down");
    } else if (s->state == SESSION_OPEN) {
      shmq_service_shutdown(s->service);
      make_hot(s); /* what is queued is taken, and then the end of the queue is seen */
    } else {
      free_if_over(s);
    }
  }
}

bool sessions_idle(const struct daemon *d) {
  for (const struct session *s = d->sessions; s; s = s->next)
    if (s->in_flight || s->state == SESSION_OPEN) return false;
  return true;
}

/* ---- the beginning ---- */

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

static int make_tables(struct session *s) {
  s->handle_count = (uint32_t)section_number(s->daemon->settings, "handles");
  s->requests = calloc(s->credits, sizeof *s->requests);
  s->handles = calloc(s->handle_count, sizeof *s->handles);
  if (!s->requests || !s->handles) {
    s->handle_count = 0;
    return -ENOMEM;
  }
  for (uint32_t i = 0; i < s->handle_count; i++) s->handles[i].fd = -1;
  for (uint32_t i = 0; i < s->credits; i++) {
    s->requests[i].next = s->free_requests;
    s->free_requests = &s->requests[i];
  }
  return 0;
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

static int greet(struct session *s) {
  shmq_hello hello;
  ssize_t n = recv(s->socket, &hello, sizeof hello, MSG_DONTWAIT);
  if (n < 0) return errno == EAGAIN || errno == EINTR ? -EAGAIN : -errno;
  if ((size_t)n != sizeof hello || hello.magic != SHMQ_HELLO_MAGIC) return -EPROTO;
  memcpy(s->label, hello.label, sizeof s->label - 1);

  int fd = -1;
  int rc = make_memory(s, &hello.options, &fd);
  if (!rc) rc = make_tables(s);
  hello.status = rc;
  int sent = send_answer(s, &hello, rc ? -1 : fd);
  if (fd >= 0) close(fd);
  return rc ? rc : sent;
}

static void poll_socket(struct session *s);

/* After the greeting the client has nothing to say here: anything is its end. */
static void socket_news(struct io_op *op, int result) {
  struct session *s = op->buffer;
  s->polls--;
  s->socket_polled = false;
  if (s->state == SESSION_ENDING) {
    free_if_over(s);
    return;
  }
  int rc = result < 0 ? result : s->state == SESSION_OPEN ? -ECONNRESET : greet(s);
  if (rc && rc != -EAGAIN) {
    session_end(s, rc == -ECONNRESET ? "the client has gone" : shmq_strerror(rc));
    return;
  }
  if (!rc) {
    s->state = SESSION_OPEN;
    s->active_ns = shmq_now_ns();
    make_hot(s);
  }
  poll_socket(s);
}

static void poll_socket(struct session *s) {
  s->socket_op = (struct io_op){.what = IO_POLL,
                                .fd = s->socket,
                                .flags = POLLIN | POLLRDHUP,
                                .buffer = s,
                                .done = socket_news};
  s->socket_polled = true;
  s->polls++;
  io_submit(s->daemon->io, &s->socket_op);
}

int session_new(struct daemon *d, int socket) {
  struct session *s = calloc(1, sizeof *s);
  socklen_t size = sizeof s->peer;
  if (!s) return -ENOMEM;
  s->daemon = d;
  s->socket = socket;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &s->peer, &size)) {
    free(s);
    return -errno;
  }
  link_session(d, s);
  poll_socket(s);
  return 0;
}
