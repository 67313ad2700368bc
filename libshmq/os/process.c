/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "os/process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ns(clockid_t clock) {
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t shmq__now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
int64_t shmq__wall_clock_ns(void) { return clock_ns(CLOCK_REALTIME); }

void shmq__sleep_ns(int64_t ns) {
  struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  (void)nanosleep(&ts, NULL);
}

int shmq__cpu_count(void) {
  long n = sysconf(_SC_NPROCESSORS_ONLN);
  return n < 1 ? 1 : (int)n;
}

uint64_t shmq__pid_namespace(void) {
  struct stat st;
  return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

struct stat_line {
  char state;
  uint64_t start_time;
  int32_t exit_code;
};

/* Parses /proc/PID/stat behind the last ')', since the command name may hold anything. */
static int read_stat(int32_t pid, struct stat_line *out) {
  char path[40], text[1024];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  ssize_t n = read(fd, text, sizeof text - 1);
  (void)close(fd);
  if (n <= 0) return -EIO;
  text[n] = '\0';
  char *at = strrchr(text, ')');
  if (!at || at[1] != ' ') return -EIO;
  char *save = NULL, *field = strtok_r(at + 2, " ", &save);
  *out = (struct stat_line){.exit_code = -1};
  for (int number = 3; field; field = strtok_r(NULL, " ", &save), number++) {
    if (number == 3) out->state = field[0];
    if (number == 22) out->start_time = strtoull(field, NULL, 10);
    if (number == 52) out->exit_code = (int32_t)strtol(field, NULL, 10);
  }
  return 0;
}

void shmq__process_self(struct shmq__process *out) {
  struct stat_line line;
  out->pid = (int32_t)getpid();
  out->pid_ns = shmq__pid_namespace();
  out->start_time = read_stat(out->pid, &line) == 0 ? line.start_time : 0;
}

char shmq__process_state(const struct shmq__process *process, int32_t *wait_status) {
  struct stat_line line;
  if (wait_status) *wait_status = -1;
  if (process->pid <= 0 || process->pid_ns != shmq__pid_namespace()) return 0;
  if (read_stat(process->pid, &line) < 0) return 0;
  if (process->start_time && line.start_time != process->start_time) return 0;
  if (wait_status && line.state == 'Z') *wait_status = line.exit_code;
  return line.state;
}

int shmq__at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void)) {
  return -pthread_atfork(before, in_parent, in_child);
}
