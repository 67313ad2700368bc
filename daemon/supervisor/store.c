/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/store.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "notify.h"
#include "supervisor/supervisor.h"

enum { FIRST_FD = 3 };

/* ---- giving ---- */

void store_control(const struct supervisor *sv) {
  if (sv->storing) notify_with_fds("FDSTORE=1\nFDNAME=control", &sv->listener.fd, 1);
}

void store_forget_control(const struct supervisor *sv) {
  if (sv->storing) notify_systemd("FDSTOREREMOVE=1\nFDNAME=control");
}

static void say_session(const struct client *c, const char *what, const int *fds, int count) {
  char text[96];
  if (!c->supervisor->storing) return;
  snprintf(text, sizeof text, "%s\nFDNAME=session-%" PRIu64 "-%" PRIu32, what, c->number,
           c->credits);
  notify_with_fds(text, fds, count);
}

void store_session(const struct client *c) {
  const int fds[] = {c->socket.fd, c->memory};
  say_session(c, "FDSTORE=1", fds, 2);
}

void store_forget(const struct client *c) { say_session(c, "FDSTOREREMOVE=1", NULL, 0); }

/* ---- taking back ---- */

/* The two halves of a session may come in any order. */
struct half {
  uint64_t number;
  uint32_t credits;
  int socket, memory;
};

static bool is_socket(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

static struct half *find_half(struct half *halves, int *count, uint64_t number, uint32_t credits) {
  for (int i = 0; i < *count; i++)
    if (halves[i].number == number) return &halves[i];
  halves[*count] = (struct half){.number = number, .credits = credits, .socket = -1, .memory = -1};
  return &halves[(*count)++];
}

static void take(struct supervisor *sv, const char *name, int fd, struct half *halves, int *count) {
  uint64_t number;
  uint32_t credits;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (strcmp(name, "control") == 0) {
    sv->listener.fd = fd;
  } else if (sscanf(name, "session-%" SCNu64 "-%" SCNu32, &number, &credits) == 2) {
    struct half *h = find_half(halves, count, number, credits);
    *(is_socket(fd) ? &h->socket : &h->memory) = fd;
  } else {
    close(fd);
  }
}

/* The manager lets go of a socket whose client has gone, and keeps the memory. */
static void adopt(struct supervisor *sv, const struct half *h) {
  if (h->socket >= 0 && h->memory >= 0 &&
      client_adopt(sv, h->socket, h->memory, h->number, h->credits) == 0)
    return;
  const struct client gone = {.supervisor = sv, .number = h->number, .credits = h->credits};
  store_forget(&gone);
  if (h->socket >= 0) shutdown(h->socket, SHUT_RDWR), close(h->socket);
  if (h->memory >= 0) close(h->memory);
}

/* Are there any, and are they for us and not for who started us? */
static int given(void) {
  const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
  return pid && fds && atol(pid) == (long)getpid() ? atoi(fds) : 0;
}

int store_take(struct supervisor *sv) {
  int n = given(), count = 0;
  const char *all = getenv("LISTEN_FDNAMES");
  char *names = n > 0 && all ? strdup(all) : NULL, *rest = names;
  struct half *halves = names ? calloc((size_t)n, sizeof *halves) : NULL;
  for (int i = 0; halves && i < n; i++) {
    const char *name = strsep(&rest, ":");
    take(sv, name ? name : "", FIRST_FD + i, halves, &count);
  }
  for (int i = 0; i < count; i++) adopt(sv, &halves[i]);
  free(halves);
  free(names);
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_FDNAMES");
  if (count) say(SAY_INFO, "%u sessions were kept", sv->client_count);
  return n > 0 && !halves ? -ENOMEM : 0;
}
