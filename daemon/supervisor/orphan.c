/* SPDX-License-Identifier: Apache-2.0
 *
 * Orphans: whatever was started below the supervisor and has lost its parent becomes the supervisor's child.
 *
 * A worker leads a session, which all that its resources start belongs to, in whatever process groups. When it has
 * died, who is left of the session is killed, for the next worker starts the same anew. Who has left the session on
 * purpose, and what a service has left running, is nobody's business here and is only reaped at its end.
 *
 * The parent of a session's member is another or, being dead, the supervisor. So when no child is a member, nobody is,
 * and the number may be given to somebody else.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "supervisor/supervisor.h"

static bool is_known(const struct supervisor *sv, pid_t pid) {
  for (const struct child *c = sv->children; c; c = c->next)
    if (c->pid == pid) return true;
  return false;
}

/* A known child's end is told by its pidfd, and after it we are called again. */
static void reap(const struct supervisor *sv) {
  for (siginfo_t info;;) {
    info.si_pid = 0;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid) return;
    if (is_known(sv, info.si_pid)) return;
    waitpid(info.si_pid, NULL, 0);
  }
}

/* Kills the children that belong to it. A child's number is its own until it is reaped, which only we do. */
static bool kill_members(FILE *children, pid_t session) {
  bool any = false;
  rewind(children);
  for (int pid; fscanf(children, "%d", &pid) == 1;) {
    if (getsid(pid) != session) continue;
    any = true;
    kill(pid, SIGKILL);
  }
  return any;
}

/* Each death that uncovers more of them brings us back here. */
static void kill_condemned(struct supervisor *sv) {
  unsigned left = 0;
  if (!sv->condemned_count) return;
  FILE *children = fopen("/proc/thread-self/children", "re");
  if (!children) say(SAY_WARNING, "what a worker has started may live on: %s", strerror(errno));
  for (unsigned i = 0; i < sv->condemned_count; i++)
    if (children && kill_members(children, sv->condemned[i])) sv->condemned[left++] = sv->condemned[i];
  sv->condemned_count = left;
  if (children) fclose(children);
}

void orphans_look(struct supervisor *sv) {
  reap(sv);
  kill_condemned(sv);
}

void orphans_condemn(struct supervisor *sv, pid_t session) {
  if (sv->condemned_count < CONDEMNED_MAX)
    sv->condemned[sv->condemned_count++] = session;
  else
    say(SAY_WARNING, "what worker %d has started may live on", (int)session);
}

int orphans_open(void) { return prctl(PR_SET_CHILD_SUBREAPER, 1) ? -errno : 0; }
