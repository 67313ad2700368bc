/* SPDX-License-Identifier: Apache-2.0
 *
 * The supervisor: it listens, makes the memory of sessions and keeps their descriptors, starts the worker that serves
 * them, and starts another when that one dies. It touches no memory that a client can write.
 *
 *   supervisor.c  start, signals, the loop, the end
 *   control.c     the control socket
 *   client.c      a client: its handshake, what is kept of it; memory.c makes the memory
 *   store.c       what the service manager keeps for us
 *   worker.c      the worker as a child: start, hand over, drain, reload
 *   service.c     the instances of services; output.c what they write
 *   child.c       what the worker and the instances of services have in common; obituaries
 *   news.c        what there is to be said of them
 *   orphan.c      what children have left behind
 *   event.c, spawn.c, restart.c  descriptors, forks, delays
 */
#ifndef SHMQD_SUPERVISOR_H
#define SHMQD_SUPERVISOR_H

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#include "channel.h"
#include "config.h"
#include "say.h"
#include "shmq/rpc.h"
#include "supervisor/account.h"
#include "supervisor/event.h"
#include "supervisor/restart.h"
#include "supervisor/spawn.h"

struct arguments;
struct service;
struct supervisor;

/* ---- children ---- */

enum child_state {
  CHILD_DOWN,     /* not started, or to be started at due_ns */
  CHILD_STARTING, /* runs, and has not said that it is ready */
  CHILD_READY,
  CHILD_STOPPING, /* asked to end; killed at due_ns */
  CHILD_FAILED    /* died too often, or asked not to be started again */
};

struct child {
  struct supervisor *supervisor;
  struct child *next;
  char name[64];
  enum child_state state;
  pid_t pid;
  struct source exit; /* its pidfd */
  const struct restart_policy *policy;
  struct restart restart;
  int64_t started_ns;
  int64_t due_ns; /* when `due` is called, SHMQ_FOREVER: not */
  unsigned starts;
  /* Start it: fill in what is to run and call child_spawn. Returns a negative errno. */
  int (*start)(struct child *child);
  /* Ask it to end, in the way it understands. */
  void (*stop)(struct child *child);
  /* The rest may be NULL. It has died and been reaped; the state is DOWN or FAILED, due_ns is set. */
  void (*died)(struct child *child, int status);
  void (*became_ready)(struct child *child);
  /* due_ns has come, and it is READY. */
  void (*tick)(struct child *child);
  /* Is it to be started again after it ended so? */
  bool (*wanted_again)(const struct child *child, int status);
  bool again;     /* STOPPING only to be started anew */
  pid_t died_pid; /* of the last one */
};

/* The last that is known of the dead. */
struct obituary {
  char name[64];
  pid_t pid;
  int status; /* waitpid's */
  int64_t uptime_ns;
  int64_t when_ns;   /* CLOCK_REALTIME */
  unsigned sessions; /* that the worker held */
  bool looked;       /* into the segment that it served */
  uint64_t held;     /* messages of it, which are delivered again */
};
enum { OBITUARIES = 16 };

void child_init(struct child *child, struct supervisor *supervisor, const char *name,
                const struct restart_policy *policy);
void child_start(struct child *child);
int child_spawn(struct child *child, const struct spawn *spawn);
void child_ready(struct child *child);
void child_stop(struct child *child, int64_t patience_ns);
/* Do what is due at due_ns: start it, or kill it. */
void child_due(struct child *child);
void obituary_seen(struct supervisor *supervisor, const struct service_look *look);
/* How it ended, in words: "signal 9 (Killed)", "exit 3". */
const char *status_text(int status, char to[64]);

/* ---- orphan.c ---- */

enum { CONDEMNED_MAX = 8 };

int orphans_open(void);
/* The leader of that session has been reaped: nobody of it is to live on. */
void orphans_condemn(struct supervisor *supervisor, pid_t session);
/* Some child has died: reap it if it is nobody's, kill whom it leaves behind if that is condemned. */
void orphans_look(struct supervisor *supervisor);

/* ---- the worker ---- */

struct worker {
  struct child child;
  struct source channel;
  bool proven;          /* one has been ready: the configuration can be served */
  bool blocked;         /* the channel is full */
  struct config *fresh; /* the worker is trying it */
  bool reload_again;    /* asked for meanwhile: what it is trying may be older than what was meant */
};

void worker_init(struct supervisor *supervisor);
/* Hand over whoever is not with the worker yet. */
void worker_pass_clients(struct supervisor *supervisor);
void worker_drain(struct supervisor *supervisor, int64_t until_ns, bool keep);
void worker_reload(struct supervisor *supervisor);
/* Tell it what it may be asked about the supervisor's children. */
void worker_tell_news(struct supervisor *supervisor);

/* Have it look what that process has done in a segment: services_seen. */
void worker_look(struct supervisor *supervisor, const char *segment, pid_t pid);

/* ---- service.c ---- */
void services_notified(struct source *source, uint32_t events);

/* ---- news.c ---- */
size_t news_write(const struct supervisor *supervisor, char *to, size_t room);

/* ---- clients ---- */

/* Somebody at the control socket; with memory, a session. */
struct client {
  struct supervisor *supervisor;
  struct client *next, *prev;
  struct source socket;
  int memory; /* -1: it has not said what it wants */
  uint32_t credits;
  struct account *account; /* of its user */
  struct share share;      /* what it has taken of that */
  bool passed;             /* the present worker has it */
  uint64_t number;
};

int client_new(struct supervisor *supervisor, int socket);
/* A session that was kept for us while we were not there. Takes both descriptors over. */
int client_adopt(struct supervisor *supervisor, int socket, int memory, uint64_t number,
                 uint32_t credits);
/* The worker cannot serve it: it ends. */
void client_refused(struct supervisor *supervisor, uint64_t number);
/* They end; or, if somebody else keeps them, only we leave them. */
void clients_close(struct supervisor *supervisor);
void clients_leave(struct supervisor *supervisor);
void clients_forget_worker(struct supervisor *supervisor);

/* ---- the control socket ---- */

int control_lock(struct supervisor *supervisor);
/* A worker is about to be started: the next epoch. */
int control_next_epoch(struct supervisor *supervisor);
/* Bind DIRECTORY/control and listen; clients are accepted from then on. */
int control_open(struct supervisor *supervisor);
void control_close(struct supervisor *supervisor);
/* `access`, and the kernel's word about who is at the other end. */
bool control_may_connect(const struct supervisor *supervisor, int socket);
/* Bind DIRECTORY/notify. */
int control_open_notify(struct supervisor *supervisor);

/* ---- the supervisor ---- */

struct supervisor {
  struct config config;
  const struct section *settings; /* [daemon] */
  const struct arguments *arguments;
  char directory[4096];
  int epoll, lock_fd;
  int reserve_fd; /* given up to tell somebody that there are no more descriptors */
  uint32_t epoch; /* workers started in this directory, by supervisors before too */
  struct source listener, signals;
  struct source notify; /* what services say by sd_notify(3) */
  struct client *clients;
  unsigned client_count;
  struct account *accounts; /* one for each user who has clients */
  uint64_t next_number;
  struct child *children; /* the worker and all instances of services */
  struct worker worker;
  struct service *services;
  struct restart_policy policy; /* of the worker */
  pid_t condemned[CONDEMNED_MAX]; /* sessions of dead workers */
  unsigned condemned_count;
  struct obituary obituaries[OBITUARIES];
  unsigned obituary_count;
  bool storing; /* the service manager keeps sessions and control socket */
  bool told_ready, draining;
  int64_t drain_until_ns;
  int failed; /* why it must end, 0: it need not */
};

/* Until it has drained, or cannot go on. 0 or a negative errno. */
int supervisor_run(struct supervisor *supervisor);
/* The worker has become ready. */
void supervisor_ready(struct supervisor *supervisor);
/* It cannot go on. */
void supervisor_fail(struct supervisor *supervisor, int error);

#endif
