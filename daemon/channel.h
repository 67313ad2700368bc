/* SPDX-License-Identifier: Apache-2.0
 *
 * What supervisor and worker say to each other, over one SOCK_SEQPACKET pair. Both are this program, the worker a
 * child of the supervisor, so a message is a struct; descriptors come beside it.
 */
#ifndef SHMQD_CHANNEL_H
#define SHMQD_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum channel_what {
  /* to the worker */
  CHANNEL_SESSION, /* session, number: its credits; descriptors: the client's socket, the session's memory */
  CHANNEL_DRAIN,   /* number: until when; status: 1: the sessions go on, with another worker */
  CHANNEL_RELOAD,  /* descriptor: the configuration to become */
  CHANNEL_NEWS,    /* text: what the supervisor knows of its children; number: 1: it has passed all sessions */
  CHANNEL_LOOK,    /* number: a pid; text: the segment that it serves, or has served */
  /* to the supervisor */
  CHANNEL_READY,
  CHANNEL_RELOADED, /* status: 0, or why not */
  CHANNEL_REFUSED,  /* session: it cannot be served; status: why */
  CHANNEL_SEEN      /* text: struct service_look */
};

enum { CHANNEL_DESCRIPTORS = 2, CHANNEL_TEXT_MAX = 8192 };

struct channel_message {
  uint32_t what; /* enum channel_what */
  int32_t status;
  int64_t number;
  uint64_t session; /* a client's number */
  uint32_t text_bytes;
  char text[CHANNEL_TEXT_MAX];
};

/* What a process has done in a segment. The dead are recovered, and what they held is there to be taken again. */
struct service_look {
  int32_t pid;
  int32_t status; /* 0, or why there is nothing to be said */
  uint64_t taken; /* messages, by a living one */
  uint64_t held;  /* by a dead one, taken and not answered */
};

/* 0, or a negative errno: -EAGAIN the other side does not keep up. The descriptors stay the caller's. */
int channel_send(int channel, const struct channel_message *message, const int *fds, int count);
/* Receive one; missing descriptors are -1. 1, 0 at the other side's end, or a negative errno. */
int channel_receive(int channel, struct channel_message *message, int fds[CHANNEL_DESCRIPTORS]);

#endif
