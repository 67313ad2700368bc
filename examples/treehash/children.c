/* SPDX-License-Identifier: Apache-2.0
 *
 * The processes: nobody outlives the parent.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "treehash.h"

pid_t start_child(const struct treehash *t, int (*fn)(const struct treehash *, unsigned),
                  unsigned index) {
  pid_t parent = getpid(), pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  signal(SIGINT, SIG_IGN); /* the parent decides */
  exit(fn(t, index));
}

static void exec_daemon(const struct treehash *t, const char *program, int ready) {
  char tree[PATH_MAX + 32], log[PATH_MAX + 32], descriptor[16];
  snprintf(tree, sizeof tree, "dir:tree.path=%s", t->tree);
  snprintf(log, sizeof log, "log:result.path=%s/log", t->run);
  snprintf(descriptor, sizeof descriptor, "%d", ready);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  signal(SIGINT, SIG_IGN);
  execlp(program, "shmqd", "--config", "/dev/null", "--dir", t->run, "--ready-fd", descriptor,
         "--set", tree, "--set", "dir:tree.cross_mounts=yes", "--set", log, "--set",
         "log:result.segment_bytes=4M", "--set", "daemon.max_credits=256", (char *)NULL);
  perror(program);
  _exit(127);
}

/* Returns when it accepts connections: it then writes a newline. */
pid_t start_daemon(const struct treehash *t, const char *program) {
  int ready[2];
  char byte;
  if (pipe(ready)) return -1;
  pid_t pid = fork();
  if (pid == 0) {
    close(ready[0]);
    exec_daemon(t, program, ready[1]);
  }
  close(ready[1]);
  ssize_t n;
  do n = pid < 0 ? 0 : read(ready[0], &byte, 1);
  while (n < 0 && errno == EINTR);
  close(ready[0]);
  if (n == 1) return pid;
  if (pid > 0) waitpid(pid, NULL, 0);
  fprintf(stderr, "treehash: shmqd did not start\n");
  return -1;
}

int stop_daemon(pid_t pid) {
  int status;
  if (pid <= 0) return 0;
  kill(pid, SIGTERM);
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -1;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}
