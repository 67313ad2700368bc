/* SPDX-License-Identifier: Apache-2.0 */
#include "channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "send_fds.h"

union control {
  struct cmsghdr align;
  char bytes[CMSG_SPACE(CHANNEL_DESCRIPTORS * sizeof(int))];
};

int channel_send(int channel, const struct channel_message *m, const int *fds, int count) {
  struct iovec part = {.iov_base = (void *)(uintptr_t)m,
                       .iov_len = offsetof(struct channel_message, text) + m->text_bytes};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  return send_fds(channel, &message, fds, count);
}

int channel_receive(int channel, struct channel_message *m, int fds[CHANNEL_DESCRIPTORS]) {
  union control control;
  struct iovec part = {.iov_base = m, .iov_len = sizeof *m};
  struct msghdr message = {.msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = control.bytes,
                           .msg_controllen = sizeof control.bytes};
  for (int i = 0; i < CHANNEL_DESCRIPTORS; i++) fds[i] = -1;
  ssize_t n = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0) return -errno;
  const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
  if (c && c->cmsg_type == SCM_RIGHTS) memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
  return n > 0;
}
