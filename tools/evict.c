/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq evict: end a participant that does not go on, and give back what it holds. Nobody alive is
 * ever robbed: the process is killed first, through a pidfd, so that it is that process and no
 * successor.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/parse.h"
#include "base/report.h"
#include "base/view.h"
#include "command.h"

static bool kill_wanted;

static const struct flag flags[] = {
    SET_FLAG("kill", 'k', &kill_wanted, "kill the process (SIGKILL) if it lives"),
    END_OF_FLAGS,
};

/* Field 22 of /proc/PID/stat, counted behind the name, which may hold anything. 0: not known. */
static uint64_t start_time_of(int32_t pid) {
  char path[40];
  char text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0) {
    close(fd);
  }
  if (size <= 0) {
    return 0;
  }
  text[size] = '\0';
  char *at = strrchr(text, ')');
  for (int field = 2; at != NULL && field < 22; field++) {
    at = strchr(at + 1, ' ');
  }
  return at == NULL ? 0 : strtoull(at, NULL, 10);
}

static uint64_t own_pid_namespace(void) {
  struct stat status;
  return stat("/proc/self/ns/pid", &status) == 0 ? status.st_ino : 0;
}

/* Is `pid`, now held by a pidfd, the process that joined? */
static bool same_process(const shmq_participant_info *who) {
  return who->start_time == 0 || start_time_of(who->pid) == who->start_time;
}

static int kill_and_wait(const shmq_participant_info *who, const char *name) {
  char subject[32];
  snprintf(subject, sizeof subject, "pid %d", who->pid);
  int pidfd = (int)syscall(SYS_pidfd_open, who->pid, 0);
  if (pidfd < 0) {
    return errno == ESRCH ? STATUS_OK : fail_system(subject, errno);
  }
  int status = STATUS_OK;
  if (!same_process(who)) {
    complain("%s: participant %u: pid %d is another process now", name, who->index, who->pid);
    status = STATUS_FAILED;
  } else if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) != 0 && errno != ESRCH) {
    status = fail_system(subject, errno);
  } else {
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    while (poll(&ended, 1, 10000) < 0 && errno == EINTR) {}
    if (ended.revents == 0) {
      complain("%s: killed, but it does not end; it may hang in the kernel", subject);
      status = STATUS_FAILED;
    }
  }
  close(pidfd);
  return status;
}

static int end(const shmq_participant_info *who, const char *name) {
  if (!who->alive) {
    return STATUS_OK;
  }
  if (!kill_wanted) {
    complain("%s: participant %u (pid %d, %s) is alive%s; --kill ends it", name, who->index,
             who->pid, who->role, who->stopped ? " and stopped" : "");
    return STATUS_FAILED;
  }
  if (who->pid_ns != own_pid_namespace()) {
    complain("%s: participant %u is pid %d of another pid namespace (%" PRIu64 "); kill it there",
             name, who->index, who->pid, who->pid_ns);
    return STATUS_FAILED;
  }
  return kill_and_wait(who, name);
}

/* The kernel drops the lock that proves life a moment after the process has ended: wait a second
 * for it. Returns 0, -EBUSY if somebody still holds it (a thread of another process through a
 * passed descriptor, or a process that hangs while it ends), or another negative errno. */
static int wait_for_death(shmq_segment *segment, const shmq_participant_info *who) {
  for (int tries = 0; tries < 1000; tries++) {
    int rc = shmq_participant_alive(segment, (int)who->index, who->generation);
    if (rc != 1) {
      return rc;
    }
    poll(NULL, 0, 1);
  }
  return -EBUSY;
}

static int recover(const char *name, const shmq_participant_info *who) {
  shmq_segment *segment;
  int rc = shmq_attach(&segment, name);
  if (rc != 0) {
    return fail(name, rc);
  }
  rc = wait_for_death(segment, who);
  if (rc == 0) {
    rc = shmq_recover(segment);
  }
  shmq_detach(segment);
  if (rc == -EBUSY) {
    complain("%s: participant %u: its process has ended and its lock is still held", name,
             who->index);
    return STATUS_FAILED;
  }
  return rc < 0 ? fail(name, rc) : STATUS_OK;
}

static int look_up(const char *name, uint32_t index, shmq_participant_info *who) {
  shmq_view *view;
  int rc = shmq_view_open(&view, name);
  if (rc != 0) {
    return fail(name, rc);
  }
  rc = shmq_view_participant(view, index, who);
  shmq_view_close(view);
  if (rc != 0) {
    complain("%s: there is no participant %u; 'shmq info %s' lists them", name, index, name);
    return STATUS_NOT_FOUND;
  }
  return STATUS_OK;
}

static int run(int count, char **arguments) {
  (void)count;
  struct address address;
  int status = check_name(arguments[0], false, &address);
  if (status != STATUS_OK) {
    return status;
  }
  uint64_t index;
  const char *fault = parse_number(arguments[1], 1, SHMQ_PARTICIPANTS_MAX, &index);
  if (fault != NULL) {
    return usage("participant '%s' %s", arguments[1], fault);
  }
  shmq_participant_info who = {.index = 0};
  status = look_up(address.segment, (uint32_t)index, &who);
  if (status == STATUS_OK) {
    status = end(&who, address.segment);
  }
  return status == STATUS_OK ? recover(address.segment, &who) : status;
}

const struct command evict_command = {
    .name = "evict",
    .arguments = "NAME INDEX",
    .summary = "End a participant and give back what it holds",
    .details =
        "INDEX is the participant's, as 'shmq info' and 'shmq doctor' show it. A living one is "
        "only ended with --kill: what a living process holds is never taken from it. The messages "
        "it had taken are delivered again.",
    .flags = flags,
    .least = 2,
    .most = 2,
    .run = run,
};
