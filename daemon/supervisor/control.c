/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket: DIRECTORY/control. A lock on DIRECTORY/lock says that a daemon lives here; a socket
 * without the lock was left by one that died, and is replaced. The worker holds the same lock: while one lives, its
 * resources have their owner, though the supervisor be dead.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "supervisor/service.h"
#include "supervisor/store.h"
#include "supervisor/supervisor.h"

enum { BACKLOG = 256, ACCEPT_BATCH = 16, LOCK_NAP_US = 20000, LOCK_GRACE_NS = 2000000000 };

static bool open_to_all(const struct supervisor *sv) {
  return section_number(sv->settings, "access") == 1;
}

bool control_may_connect(const struct supervisor *sv, int socket) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)) return false;
  return peer.uid == geteuid() || peer.uid == 0 || open_to_all(sv);
}

/* A socket closed with something unread resets its peer, which would lose the answer: nothing more may come, and what
   came is taken out. */
static void refuse(int socket, int status) {
  shmq_hello hello = {.magic = SHMQ_HELLO_MAGIC};
  shutdown(socket, SHUT_RD);
  while (recv(socket, &hello, sizeof hello, MSG_DONTWAIT) > 0) continue;
  hello = (shmq_hello){.magic = SHMQ_HELLO_MAGIC, .status = status};
  if (send(socket, &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    say(SAY_DEBUG, "refused");
  close(socket);
}

static void welcome(struct supervisor *sv, int socket) {
  int rc = 0;
  if (!control_may_connect(sv, socket))
    rc = -EACCES;
  else if (sv->client_count >= (unsigned)section_number(sv->settings, "max_sessions"))
    rc = -EUSERS;
  if (!rc) rc = client_new(sv, socket);
  if (rc) refuse(socket, rc);
}

static int accept_one(const struct supervisor *sv) {
  return accept4(sv->listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static int open_reserve(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

/* There are no descriptors left. Who stays in the queue would wait for ever, and we would be told so for ever. */
static void turn_away(struct supervisor *sv) {
  close(sv->reserve_fd);
  int fd = accept_one(sv);
  if (fd >= 0) refuse(fd, -EMFILE);
  sv->reserve_fd = open_reserve();
}

static void connection(struct source *source, uint32_t events) {
  struct supervisor *sv = SOURCE_OWNER(source, struct supervisor, listener);
  (void)events;
  for (int i = 0; i < ACCEPT_BATCH; i++) {
    int fd = accept_one(sv);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) turn_away(sv);
    if (fd < 0) break;
    welcome(sv, fd);
  }
}

/* ---- open and close ---- */

static int make_directory(const struct supervisor *sv) {
  struct stat st;
  if (mkdir(sv->directory, open_to_all(sv) ? 0755 : 0700) && errno != EEXIST) return -errno;
  if (stat(sv->directory, &st)) return -errno;
  if (!S_ISDIR(st.st_mode)) return -ENOTDIR;
  return st.st_uid == geteuid() || geteuid() == 0 ? 0 : -EACCES;
}

static int socket_address(const struct supervisor *sv, const char *name,
                          struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  int n = snprintf(address->sun_path, sizeof address->sun_path, "%s/%s", sv->directory, name);
  return n < (int)sizeof address->sun_path ? 0 : -ENAMETOOLONG;
}

static bool somebody_listens(const struct supervisor *sv) {
  struct sockaddr_un address;
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  bool listens = fd >= 0 && socket_address(sv, "control", &address) == 0 &&
                 connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
  if (fd >= 0) close(fd);
  return listens;
}

/* Another daemon listens; a dead one's worker does not, and is on its way to its end. */
static int wait_for_lock(const struct supervisor *sv) {
  int64_t until = shmq_after_ns(section_number(sv->settings, "drain") + LOCK_GRACE_NS);
  while (flock(sv->lock_fd, LOCK_EX | LOCK_NB)) {
    if (errno != EWOULDBLOCK) return -errno;
    if ((sv->listener.fd < 0 && somebody_listens(sv)) || shmq_now_ns() >= until) return -EADDRINUSE;
    usleep(LOCK_NAP_US);
  }
  return 0;
}

/* The lock says whose it is and how many workers there have been. One write, as long as the one before: whoever dies,
 * it is the old or the new. */
static int write_lock(const struct supervisor *sv, uint32_t epoch) {
  char text[32];
  int n = snprintf(text, sizeof text, "%10d %10" PRIu32 "\n", (int)getpid(), epoch);
  return pwrite(sv->lock_fd, text, (size_t)n, 0) == n ? 0 : -EIO;
}

static uint32_t read_epoch(const struct supervisor *sv) {
  char text[32] = "";
  uint32_t epoch;
  if (pread(sv->lock_fd, text, sizeof text - 1, 0) < 0) return 0;
  return sscanf(text, "%*d %" SCNu32, &epoch) == 1 ? epoch : 0;
}

/* Written before anybody can be told it: no number comes again. */
int control_next_epoch(struct supervisor *sv) {
  int rc = write_lock(sv, sv->epoch + 1);
  if (!rc) sv->epoch++;
  return rc;
}

int control_lock(struct supervisor *sv) {
  char path[PATH_MAX + 8];
  int rc = make_directory(sv);
  if (rc) return rc;
  snprintf(path, sizeof path, "%s/lock", sv->directory);
  sv->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  rc = sv->lock_fd < 0 ? -errno : wait_for_lock(sv);
  if (rc) return rc;
  sv->epoch = read_epoch(sv);
  return write_lock(sv, sv->epoch);
}

static int set_mode(const struct supervisor *sv, const struct sockaddr_un *address) {
  return chmod(address->sun_path, open_to_all(sv) ? 0666 : 0600) ? -errno : 0;
}

static int bind_socket(const struct supervisor *sv, int fd) {
  struct sockaddr_un address;
  int rc = socket_address(sv, "control", &address);
  if (rc) return rc;
  unlink(address.sun_path);
  if (bind(fd, (struct sockaddr *)&address, sizeof address)) return -errno;
  rc = set_mode(sv, &address);
  return rc == 0 && listen(fd, BACKLOG) ? -errno : rc;
}

/* A socket that was kept has the name and the mode that the last daemon gave it. `access` may have changed since, and
 * with another name, or none, nobody would find it. */
static bool kept_serves(const struct supervisor *sv) {
  struct sockaddr_un wanted, bound = {0};
  socklen_t size = sizeof bound - 1;
  return socket_address(sv, "control", &wanted) == 0 &&
         getsockname(sv->listener.fd, (struct sockaddr *)&bound, &size) == 0 &&
         strcmp(bound.sun_path, wanted.sun_path) == 0 && set_mode(sv, &wanted) == 0;
}

static void give_up_kept(struct supervisor *sv) {
  store_forget_control(sv);
  close(sv->listener.fd);
  sv->listener.fd = -1;
}

int control_open(struct supervisor *sv) {
  sv->reserve_fd = open_reserve();
  if (sv->listener.fd >= 0 && kept_serves(sv))
    return source_add(sv->epoll, &sv->listener, sv->listener.fd, EPOLLIN, connection);
  if (sv->listener.fd >= 0) give_up_kept(sv);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int rc = fd < 0 ? -errno : bind_socket(sv, fd);
  if (!rc) rc = source_add(sv->epoll, &sv->listener, fd, EPOLLIN, connection);
  if (!rc) {
    store_control(sv);
    return 0;
  }
  if (fd >= 0) close(fd);
  return rc;
}

/* Anybody of this user may write to it: who did so is the kernel's word. */
int control_open_notify(struct supervisor *sv) {
  struct sockaddr_un address;
  int one = 1, fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  int rc = fd < 0 ? -errno : socket_address(sv, "notify", &address);
  if (!rc) unlink(address.sun_path);
  if (!rc &&
      (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof one) ||
       bind(fd, (struct sockaddr *)&address, sizeof address) || chmod(address.sun_path, 0600)))
    rc = -errno;
  if (!rc) return source_add(sv->epoll, &sv->notify, fd, EPOLLIN, services_notified);
  if (fd >= 0) close(fd);
  return rc;
}

/* Unless somebody keeps it for the next of us. */
void control_close(struct supervisor *sv) {
  struct sockaddr_un address;
  socklen_t size = sizeof address;
  if (sv->listener.fd < 0) return;
  if (sv->reserve_fd >= 0) close(sv->reserve_fd);
  sv->reserve_fd = -1;
  if (sv->storing) {
    source_close(sv->epoll, &sv->listener);
    return;
  }
  if (getsockname(sv->listener.fd, (struct sockaddr *)&address, &size) == 0)
    unlink(address.sun_path);
  shutdown(sv->listener.fd, SHUT_RDWR);
  source_close(sv->epoll, &sv->listener);
}
