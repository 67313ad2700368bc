/* SPDX-License-Identifier: Apache-2.0
 *
 * A private shmqd of a test's own, in a directory of its own. The program is $SHMQ_BUILD_DIR/daemon/shmqd; the rung is
 * $SHMQD_DAEMON_IO, which the daemon reads itself.
 */
#ifndef TEST_SHMQD_H
#define TEST_SHMQD_H

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "support/service.h"

struct shmqd {
  char dir[64]; /* holds control, tree/ and log/ */
  char socket[96];
  pid_t pid;
};

/* As the seccomp filter of a container or of a service manager does. */
static inline void forbid_calls(unsigned first, unsigned last, unsigned error) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 0, 2),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, last, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
    _exit(126);
}

static inline void shmqd_exec(const struct shmqd *d, const char *ready_fd) {
  char program[512], config[160], tree[160], log[160];
  const char *build = getenv("SHMQ_BUILD_DIR");
  const char *other = getenv("TEST_SHMQD"); /* another program than the shipped one */
  snprintf(program, sizeof program, "%s/%s", build ? build : ".", other ? other : "daemon/shmqd");
  snprintf(config, sizeof config, "%s/shmqd.conf", d->dir);
  snprintf(tree, sizeof tree, "dir:tree.path=%s/tree", d->dir);
  snprintf(log, sizeof log, "log:log.path=%s/log", d->dir);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getenv("TEST_FORBID_URING")) forbid_calls(SYS_io_uring_setup, SYS_io_uring_register, EPERM);
  if (getenv("TEST_FORBID_MLOCK")) forbid_calls(SYS_mlock, SYS_mlock, EPERM);
  if (getenv("TEST_FORBID_OPENAT2")) forbid_calls(SYS_openat2, SYS_openat2, ENOSYS);
  execl(program, "shmqd", "-q", "--config", config, "--dir", d->dir, "--ready-fd", ready_fd, "--set",
        tree, "--set", "dir:tree.rights=write", "--set", log, "--set", "log:log.segment_bytes=2M",
        (char *)NULL);
  _exit(127);
}

/* Returns whether it is ready, and not dead. */
static inline bool shmqd_try(struct shmqd *d, bool quiet) {
  char ready_fd[16], byte;
  int ready[2];
  MUST(pipe(ready));
  snprintf(ready_fd, sizeof ready_fd, "%d", ready[1]);
  d->pid = fork();
  if (d->pid == 0) {
    close(ready[0]);
    if (quiet && !freopen("/dev/null", "w", stderr)) abort();
    shmqd_exec(d, ready_fd);
  }
  close(ready[1]);
  bool is_ready = read(ready[0], &byte, 1) == 1;
  close(ready[0]);
  return is_ready;
}

static inline void shmqd_start(struct shmqd *d) {
  if (!shmqd_try(d, false)) abort();
}

/* With further sections of configuration, in which %s is its directory. */
static inline void shmqd_new_with(struct shmqd *d, const char *sections) {
  char path[128];
  snprintf(d->dir, sizeof d->dir, "/tmp/shmqd-test.XXXXXX");
  if (!mkdtemp(d->dir)) abort();
  snprintf(d->socket, sizeof d->socket, "%s/control", d->dir);
  snprintf(path, sizeof path, "%s/tree", d->dir);
  MUST(mkdir(path, 0700));
  snprintf(path, sizeof path, "%s/shmqd.conf", d->dir);
  FILE *config = fopen(path, "w");
  if (!config) abort();
  for (const char *at = sections; *at; at++) {
    if (at[0] == '%' && at[1] == 's')
      fputs(d->dir, config), at++;
    else
      fputc(*at, config);
  }
  if (fclose(config)) abort();
  shmqd_start(d);
}

static inline void shmqd_new(struct shmqd *d) { shmqd_new_with(d, ""); }

/* The exit status, or -signal. */
static inline int shmqd_stop(struct shmqd *d, int signal_number) {
  int status;
  kill(d->pid, signal_number);
  waitpid(d->pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline bool process_is_called(int pid, const char *name) {
  char path[64], found[32] = "";
  snprintf(path, sizeof path, "/proc/%d/comm", pid);
  FILE *file = fopen(path, "re");
  if (!file) return false;
  if (fscanf(file, "%31s", found) != 1) *found = 0;
  fclose(file);
  return strcmp(found, name) == 0;
}

/* The worker's pid: children of the daemon are orphans too. 0: it has none just now. */
static inline pid_t shmqd_worker(const struct shmqd *d) {
  char path[64];
  int pid = 0;
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)d->pid, (int)d->pid);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  while (fscanf(file, "%d", &pid) == 1 && !process_is_called(pid, "shmqd-worker")) pid = 0;
  fclose(file);
  return pid;
}

static inline int descriptors_of(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
  return count_entries(path);
}

/* The most memory that its worker ever had, in KiB. */
static inline long shmqd_most_memory(const struct shmqd *d) {
  char path[64], line[128];
  long most = 0;
  snprintf(path, sizeof path, "/proc/%d/status", (int)shmqd_worker(d));
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof line, file)) (void)sscanf(line, "VmHWM: %ld", &most);
  if (file) fclose(file);
  return most;
}

/* Not a child of ours; when this returns it does nothing any more. */
static inline void kill_and_wait(pid_t pid) {
  struct pollfd gone = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
  if (gone.fd < 0) return;
  syscall(SYS_pidfd_send_signal, gone.fd, SIGKILL, NULL, 0);
  poll(&gone, 1, -1);
  close(gone.fd);
}

/* As if the machine had lost them: supervisor and worker at any instruction, and neither sees the other go. */
static inline void shmqd_kill_all(struct shmqd *d) {
  kill(d->pid, SIGSTOP);
  pid_t worker = shmqd_worker(d);
  if (worker) kill_and_wait(worker);
  shmqd_stop(d, SIGKILL);
}

/* Kill its worker, once it has one; the sessions go on with the next. */
static inline void shmqd_kill_worker(const struct shmqd *d) {
  pid_t worker;
  while (!(worker = shmqd_worker(d))) nap_ms(1);
  kill_and_wait(worker);
}

/* Has each of n gone on by so much since this was true last? A request that three workers died with is
 * refused, so who kills them while others ask looks at this and not at the clock. */
static inline bool all_went_on(const _Atomic int *now, int *before, int n, int by) {
  for (int i = 0; i < n; i++)
    if (now[i] < before[i] + by) return false;
  for (int i = 0; i < n; i++) before[i] = now[i];
  return true;
}

static inline void shmqd_remove(struct shmqd *d) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", d->dir);
  if (system(command)) abort();
}

static inline shmq_client *shmqd_client(const struct shmqd *d) {
  shmq_client *c = NULL;
  MUST(shmq_client_connect(&c, d->socket, NULL, 0));
  return c;
}

/* A request with one piece of payload, which *part is to hold. */
static inline shmq_ask shmqd_ask_for(struct iovec *part, int resource, uint16_t op, uint64_t v0, uint64_t v1,
                                     const void *data, size_t size, size_t room) {
  *part = (struct iovec){.iov_base = (void *)(uintptr_t)data, .iov_len = size};
  return (shmq_ask){.resource = (uint16_t)resource,
                    .op = op,
                    .value = {v0, v1},
                    .parts = part,
                    .part_count = 1,
                    .room = room};
}
static inline int shmqd_ask(shmq_client *c, int resource, uint16_t op, uint64_t v0, uint64_t v1,
                            const void *data, size_t size, size_t room, shmq_result *r) {
  struct iovec part;
  shmq_ask a = shmqd_ask_for(&part, resource, op, v0, v1, data, size, room);
  return shmq_call(c, &a, r, PATIENCE);
}

#endif
