/* SPDX-License-Identifier: Apache-2.0 */
#include "base/command_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/stop.h"

enum { WATCH_MS = 50 };

/* ---- the command ---- */

static int check_file(const char *path) {
  struct stat status;
  if (stat(path, &status) != 0) {
    return errno;
  }
  return S_ISREG(status.st_mode) && access(path, X_OK) == 0 ? 0 : EACCES;
}

int command_run_check(const char *program) {
  if (strchr(program, '/') != NULL) {
    return check_file(program);
  }
  if (*program == '\0') {
    return ENOENT; /* no name of a file in any folder */
  }
  const char *path = getenv("PATH");
  path = path != NULL ? path : "/usr/bin:/bin";
  for (int result = ENOENT;; path++) {
    size_t length = strcspn(path, ":");
    char file[4096];
    int size = snprintf(file, sizeof file, "%.*s/%s", length > 0 ? (int)length : 1,
                        length > 0 ? path : ".", program);
    int found = size < (int)sizeof file ? check_file(file) : ENAMETOOLONG;
    if (found == 0) {
      return 0;
    }
    result = found == EACCES ? EACCES : result;
    path += length;
    if (*path == '\0') {
      return result;
    }
  }
}

/* ---- the message as an argument ---- */

/* `argument` with every {} replaced; to be freed. NULL: out of memory. */
static char *substitute(const char *argument, const char *data, size_t size) {
  size_t places = 0;
  for (const char *at = argument; (at = strstr(at, "{}")) != NULL; at += 2) {
    places++;
  }
  char *text = malloc(strlen(argument) + places * size + 1);
  char *end = text;
  while (text != NULL) {
    const char *place = strstr(argument, "{}");
    size_t length = place != NULL ? (size_t)(place - argument) : strlen(argument);
    memcpy(end, argument, length);
    end += length;
    if (place == NULL) {
      *end = '\0';
      break;
    }
    memcpy(end, data, size);
    end += size;
    argument = place + 2;
  }
  return text;
}

static size_t count_arguments(char *const *argv) {
  size_t count = 0;
  while (argv[count] != NULL) {
    count++;
  }
  return count;
}

static bool has_place(char *const *argv) {
  for (; *argv != NULL; argv++) {
    if (strstr(*argv, "{}") != NULL) {
      return true;
    }
  }
  return false;
}

static void free_arguments(char **argv) {
  for (size_t i = 0; argv != NULL && argv[i] != NULL; i++) {
    free(argv[i]);
  }
  free(argv);
}

static int fill_in(char *const *argv, const void *data, size_t size, char ***filled) {
  if (memchr(data, '\0', size) != NULL) {
    return -EINVAL;
  }
  size_t count = count_arguments(argv);
  char **copy = calloc(count + 1, sizeof *copy);
  for (size_t i = 0; copy != NULL && i < count; i++) {
    copy[i] = substitute(argv[i], data, size);
    if (copy[i] == NULL) {
      free_arguments(copy);
      copy = NULL;
    }
  }
  *filled = copy;
  return copy != NULL ? 0 : -ENOMEM;
}

/* ---- the message as standard input ---- */

/* A descriptor to read the message from, at its beginning. A file in memory holds any size without
 * somebody having to feed it. */
static int readable_copy(const void *data, size_t size) {
  int fd = memfd_create("shmq message", MFD_CLOEXEC);
  for (size_t done = 0; fd >= 0 && done < size;) {
    ssize_t count = write(fd, (const char *)data + done, size - done);
    if (count < 0 && errno != EINTR) {
      int error = errno;
      close(fd);
      return -error;
    }
    done += count > 0 ? (size_t)count : 0;
  }
  if (fd >= 0 && lseek(fd, 0, SEEK_SET) != 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd >= 0 ? fd : -errno;
}

/* ---- running ---- */

static bool redirect(const struct command_run *run, int input) {
  return (run->foreground || dup2(input, STDIN_FILENO) == STDIN_FILENO) &&
         (run->output == 0 || dup2(run->output, STDOUT_FILENO) == STDOUT_FILENO) &&
         (run->error == 0 || dup2(run->error, STDERR_FILENO) == STDERR_FILENO);
}

/* vfork: the child borrows our memory until it has become the command, so starting it does not
 * depend on how much of a segment is mapped, and its errno comes back in *error. */
static pid_t start(const struct command_run *run, char *const *argv, int input,
                   volatile int *error) {
  pid_t parent = getpid();
  pid_t pid = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
  if (pid != 0) {
    return pid;
  }
  /* NOLINTBEGIN(clang-analyzer-unix.Vfork): system calls, which do not touch what is borrowed */
  if (!run->foreground) {
    setpgid(0, 0);
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() == parent && redirect(run, input)) {
    stop_release();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(argv[0], argv);
  }
  *error = errno;
  _exit(127);
  /* NOLINTEND(clang-analyzer-unix.Vfork) */
}

/* Wait for the end of a command whose result may become unwanted before. */
static void watch(const struct command_run *run, pid_t pid) {
  struct pollfd ended = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
  bool told = false;
  while (ended.fd >= 0 && poll(&ended, 1, WATCH_MS) <= 0) {
    if (!told && run->unwanted(run->context)) {
      kill(-pid, SIGTERM);
      told = true;
    }
  }
  if (ended.fd >= 0) {
    close(ended.fd);
  }
}

/* A command in the foreground hears a ^C for itself, but not what its caller alone was sent. */
static void pass_on(const struct command_run *run, pid_t pid, bool *told) {
  int number = stop_signal();
  if (!run->foreground || *told || (number != SIGTERM && number != SIGHUP)) {
    return;
  }
  kill(pid, number);
  *told = true;
}

static int wait_for(const struct command_run *run, pid_t pid) {
  int status = 0;
  bool told = false;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    pass_on(run, pid, &told);
  }
  return status;
}

static int run_with_input(const struct command_run *run, char *const *argv, int input, pid_t *pid,
                          int *status) {
  volatile int error = 0;
  *pid = start(run, argv, input, &error);
  if (*pid < 0) {
    return -errno;
  }
  if (run->running != NULL) {
    atomic_store(run->running, *pid);
  }
  if (run->unwanted != NULL) {
    watch(run, *pid);
  }
  *status = wait_for(run, *pid);
  if (run->running != NULL) {
    atomic_store(run->running, 0);
  }
  return -error;
}

int command_run_message(const struct command_run *run, const void *data, size_t size, pid_t *pid,
                        int *status) {
  bool as_argument = has_place(run->argv);
  char **filled = NULL;
  int rc = as_argument ? fill_in(run->argv, data, size, &filled) : 0;
  if (rc < 0) {
    return rc;
  }
  bool no_input = as_argument || run->foreground;
  int input = no_input ? open("/dev/null", O_RDONLY | O_CLOEXEC) : readable_copy(data, size);
  if (input >= 0) {
    rc = run_with_input(run, as_argument ? filled : run->argv, input, pid, status);
    close(input);
  } else {
    rc = no_input ? -errno : input;
  }
  free_arguments(filled);
  return rc;
}
