/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket: DIRECTORY/control. A lock on DIRECTORY/lock says that a daemon lives here; a socket
 * without the lock was left by one that died, and is replaced.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"

enum { BACKLOG = 256, ACCEPT_BATCH = 16 };

static bool may_connect(const struct daemon *d, int socket) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)) return false;
  if (peer.uid == geteuid() || peer.uid == 0) return true;
  return section_number(d->settings, "access") == 1;
}

static void refuse(int socket, int status) {
  shmq_hello hello = {.magic = SHMQ_HELLO_MAGIC, .status = status};
  if (send(socket, &hello, sizeof hello, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
    say(SAY_DEBUG, "refused");
  close(socket);
}

static void welcome(struct daemon *d, int socket) {
  int rc = 0;
  if (!may_connect(d, socket))
    rc = -EACCES;
  else if (d->session_count >= (unsigned)section_number(d->settings, "max_sessions"))
    rc = -EUSERS;
  if (!rc) rc = session_new(d, socket);
  if (rc) refuse(socket, rc);
}

static void poll_listener(struct daemon *d);

static void connection(struct io_op *op, int result) {
  struct daemon *d = op->buffer;
  if (d->listener < 0 || result < 0) return;
  for (int i = 0; i < ACCEPT_BATCH; i++) {
    int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) break;
    welcome(d, fd);
  }
  poll_listener(d);
}

static void poll_listener(struct daemon *d) {
  d->accept_op = (struct io_op){
      .what = IO_POLL, .fd = d->listener, .flags = POLLIN, .buffer = d, .done = connection};
  io_submit(d->io, &d->accept_op);
}

/* ---- open and close ---- */

static int take_lock(struct daemon *d, const char *directory) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/lock", directory);
  d->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (d->lock_fd < 0) return -errno;
  /* The lock of a killed process that used io_uring is released some ms after its death. */
  for (int i = 0; flock(d->lock_fd, LOCK_EX | LOCK_NB); i++) {
    if (errno != EWOULDBLOCK || i == 50) return -EADDRINUSE;
    usleep(20000);
  }
  char pid[32];
  int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
  if (ftruncate(d->lock_fd, 0) || write(d->lock_fd, pid, (size_t)n) < 0) return -errno;
  return 0;
}

static int make_directory(const char *directory, mode_t mode) {
  struct stat st;
  if (mkdir(directory, mode) && errno != EEXIST) return -errno;
  if (stat(directory, &st)) return -errno;
  if (!S_ISDIR(st.st_mode)) return -ENOTDIR;
  return st.st_uid == geteuid() || geteuid() == 0 ? 0 : -EACCES;
}

static int bind_socket(struct daemon *d, const char *directory, mode_t mode) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int n = snprintf(address.sun_path, sizeof address.sun_path, "%s/control", directory);
  if (n >= (int)sizeof address.sun_path) return -ENAMETOOLONG;
  d->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (d->listener < 0) return -errno;
  unlink(address.sun_path);
  if (bind(d->listener, (struct sockaddr *)&address, sizeof address)) return -errno;
  if (chmod(address.sun_path, mode) || listen(d->listener, BACKLOG)) return -errno;
  return 0;
}

int control_open(struct daemon *d, const char *directory) {
  bool open_to_all = section_number(d->settings, "access") == 1;
  int rc = make_directory(directory, open_to_all ? 0755 : 0700);
  if (!rc) rc = take_lock(d, directory);
  if (!rc) rc = bind_socket(d, directory, open_to_all ? 0666 : 0600);
  if (!rc) poll_listener(d);
  return rc;
}

void control_stop(struct daemon *d) {
  struct sockaddr_un address;
  socklen_t size = sizeof address;
  if (d->listener < 0) return;
  if (getsockname(d->listener, (struct sockaddr *)&address, &size) == 0) unlink(address.sun_path);
  shutdown(d->listener, SHUT_RDWR);
  close(d->listener);
  d->listener = -1;
}

void control_close(struct daemon *d) {
  control_stop(d);
  if (d->lock_fd >= 0) close(d->lock_fd);
}
