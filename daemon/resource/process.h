/* SPDX-License-Identifier: Apache-2.0
 *
 * The private side of `process`: process.c leases the children to requests, process_child.c is the life of one.
 */
#ifndef SHMQD_RESOURCE_PROCESS_H
#define SHMQD_RESOURCE_PROCESS_H

#include <sys/types.h>
#include <wordexp.h>

#include "rlimits.h"
#include "resource/duplex.h"
#include "resource/framing.h"
#include "supervisor/restart.h"
#include "wait_list.h"

enum { PROCESS_MARKER = FRAMING_RESP /* in its place in the list of framings: answers end with a line of their own */ };

/* DOWN -> STARTING -> UP -> ENDING -> DOWN. ENDING: its pipes are closed or it has exited, and the other is waited for. */
enum child_state { CHILD_IS_DOWN, CHILD_IS_STARTING, CHILD_IS_UP, CHILD_IS_ENDING };

struct process_child {
  struct process *owner;
  enum child_state state;
  pid_t pid;
  int pidfd;
  bool exited, piped; /* ENDING is over when it has exited and is not piped any more */
  int64_t since_ns;
  int error;         /* why it ends */
  int status;        /* how the last one ended, waitid's */
  unsigned failures; /* deaths since it last answered */
  struct restart backoff;
  struct alarm again, limit;
  struct io_op op; /* its start, its exit */
  int pipes[2];    /* of a start that has succeeded */
  struct duplex duplex;
  struct framer framer;
  struct request *lease; /* the one request it works on */
};

struct process {
  struct resource base;
  wordexp_t words;
  struct limits limits;
  int framing;
  struct process_child *children;
  unsigned count;
  struct wait_list waiting;
  uint64_t serial; /* of requests, for their markers */
};

/* ---- process_child.c ---- */
void process_child_open(struct process_child *child, struct process *owner);
void process_child_start(struct process_child *child);
/* It has to go; `error` is what its request is answered. */
void process_child_kill(struct process_child *child, int error);
int process_child_signal(const struct process_child *child, int signal_number);
void process_child_close(struct process_child *child);

/* ---- process.c, called by a child ---- */
void process_child_up(struct process_child *child);
void process_received(struct process_child *child);
void process_child_down(struct process_child *child);

#endif
