/* SPDX-License-Identifier: Apache-2.0 */
#include "os/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int shmq__duplicate(int fd) {
  int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return copy < 0 ? -errno : copy;
}

void shmq__descriptor_close(int fd) {
  if (fd >= 0) close(fd);
}

int shmq__packet_connect(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, strlen(path) + 1);

  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) return fd;
  int error = errno;
  close(fd);
  return -error;
}

static int take_descriptor(struct msghdr *message) {
  int fd = -1;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
      memcpy(&fd, CMSG_DATA(c), sizeof fd);
  return fd;
}

int shmq__packet_exchange(int socket, void *packet, size_t size, int *fd) {
  *fd = -1;
  /* Who refuses without reading says so first and closes then: its answer is there though the pipe is broken. */
  if (send(socket, packet, size, MSG_NOSIGNAL) < 0 && errno != EPIPE) return -errno;

  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = {.iov_base = packet, .iov_len = size};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t n;
  do n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0) return -errno;
  *fd = take_descriptor(&message);
  return n == 0 ? -ECONNRESET : (size_t)n == size ? 0 : -EPROTO;
}

bool shmq__hung_up(int socket) {
  struct pollfd p = {.fd = socket, .events = 0};
  return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR | POLLNVAL));
}

void shmq__daemon_path(char *path, size_t size) {
  const char *given = getenv("SHMQD_SOCKET");
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  if (given) {
    snprintf(path, size, "%s", given);
    return;
  }
  if (runtime) {
    snprintf(path, size, "%s/shmqd/control", runtime);
    if (access(path, F_OK) == 0) return;
  }
  snprintf(path, size, "/run/shmqd/control");
}
