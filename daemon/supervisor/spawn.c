/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "supervisor/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "say.h"
#include "shmq/pin.h"

enum { EXIT_NOT_STARTED = 126 };

/* First above everything that they become, so that none overwrites another. */
static int place_descriptors(const struct spawn *s) {
  int high[SPAWN_KEEP_MAX];
  int null = open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, STDIN_FILENO) < 0) return -errno;
  if (s->output >= 0 && (dup2(s->output, STDOUT_FILENO) < 0 || dup2(s->output, STDERR_FILENO) < 0))
    return -errno;
  for (int i = 0; i < s->keep_count; i++) {
    high[i] = fcntl(s->keep[i], F_DUPFD, SPAWN_KEEP_FIRST + SPAWN_KEEP_MAX);
    if (high[i] < 0) return -errno;
  }
  for (int i = 0; i < s->keep_count; i++)
    if (dup2(high[i], SPAWN_KEEP_FIRST + i) < 0) return -errno;
  return close_range((unsigned)(SPAWN_KEEP_FIRST + s->keep_count), ~0u, 0) ? -errno : 0;
}

static int pin(const struct spawn *s) {
  shmq_pin *machine = NULL;
  if (!s->places || !*s->places || strcmp(s->places, "none") == 0) return 0;
  int rc = shmq_pin_open(&machine);
  if (!rc) rc = shmq_pin_self(machine, s->places, s->place, NULL, NULL);
  if (rc < 0)
    say(SAY_ERROR, "pin %s: %s", s->places,
        machine && *shmq_pin_error(machine) ? shmq_pin_error(machine) : strerror(-rc));
  shmq_pin_close(machine);
  return rc < 0 ? rc : 0;
}

static int prepare(const struct spawn *s, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  /* A signal from the terminal is the supervisor's to pass on. */
  if (s->session)
    setsid();
  else
    setpgid(0, 0);
  signal(SIGPIPE, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (s->parent_death) prctl(PR_SET_PDEATHSIG, s->parent_death);
  if (s->parent_death && getppid() != parent)
    return -ESRCH; /* it died before we asked to be told */
  int rc = place_descriptors(s);
  return rc ? rc : pin(s);
}

pid_t spawn(const struct spawn *s, int *pidfd) {
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid < 0) return -errno;
  if (pid == 0) {
    int rc = prepare(s, parent);
    if (rc) say(SAY_ERROR, "a child cannot be started: %s", strerror(-rc));
    exit(rc ? EXIT_NOT_STARTED : s->run(s->ctx));
  }
  if (!s->session) setpgid(pid, pid); /* whoever of us comes first; no leader of a group can begin a session */
  *pidfd = (int)syscall(SYS_pidfd_open, pid, 0); /* ours until we reap it: it cannot be another's */
  if (*pidfd >= 0) return pid;
  int rc = -errno;
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
  return rc;
}
