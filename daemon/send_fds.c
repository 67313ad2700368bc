/* SPDX-License-Identifier: Apache-2.0 */
#include "send_fds.h"

#include <errno.h>
#include <string.h>

int send_fds(int socket, struct msghdr *message, const int *fds, int count) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(SEND_FDS_MAX * sizeof(int))];
  } control = {0};
  if (count < 0 || count > SEND_FDS_MAX) return -EINVAL;
  if (count) {
    size_t bytes = (size_t)count * sizeof *fds;
    message->msg_control = control.bytes;
    message->msg_controllen = CMSG_SPACE(bytes);
    struct cmsghdr *c = CMSG_FIRSTHDR(message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(c), fds, bytes);
  }
  return sendmsg(socket, message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}
