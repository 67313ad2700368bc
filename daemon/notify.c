/* SPDX-License-Identifier: Apache-2.0 */
#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "say.h"
#include "send_fds.h"

static int send_to(int socket, const struct sockaddr_un *address, socklen_t address_size,
                   const char *state, const int *fds, int count) {
  struct iovec part = {.iov_base = (void *)(uintptr_t)state, .iov_len = strlen(state)};
  struct msghdr message = {.msg_name = (void *)(uintptr_t)address,
                           .msg_namelen = address_size,
                           .msg_iov = &part,
                           .msg_iovlen = 1};
  return send_fds(socket, &message, fds, count);
}

int notify_with_fds(const char *state, const int *fds, int count) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!path) return 1;
  if (strlen(path) >= sizeof address.sun_path) return -EINVAL;
  memcpy(address.sun_path, path, strlen(path));
  if (address.sun_path[0] == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  int rc = send_to(fd, &address, size, state, fds, count);
  if (rc) say(SAY_WARNING, "NOTIFY_SOCKET: %s", strerror(-rc));
  close(fd);
  return rc;
}

int notify_systemd(const char *state) { return notify_with_fds(state, NULL, 0); }

/* Whatever descriptors came with it are closed: we keep none for others. */
static void close_received(struct msghdr *message) {
  for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      close(fd);
    }
  }
}

ssize_t notify_receive(int socket, char *text, size_t room, pid_t *pid) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(16 * sizeof(int))];
  } control;
  struct iovec part = {.iov_base = text, .iov_len = room};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return -errno;
  *pid = 0;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    struct ucred who;
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS) continue;
    memcpy(&who, CMSG_DATA(c), sizeof who);
    *pid = who.pid;
  }
  close_received(&message);
  return n;
}
