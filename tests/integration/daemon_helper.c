/* SPDX-License-Identifier: Apache-2.0
 *
 * A service for the test of services.
 *
 *   daemon_helper notify N     say READY=1, and N times WATCHDOG=1, and then nothing more
 *   daemon_helper serve NAME   answer whatever is asked, until SIGTERM
 *   daemon_helper grow MIB     take that much memory, and wait
 */
#include <shmq/rpc.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "support/check.h"

static void notify(const char *text) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  const char *path = getenv("NOTIFY_SOCKET");
  CHECK(path && strlen(path) < sizeof address.sun_path, "NOTIFY_SOCKET");
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ssize_t n = sendto(fd, text, strlen(text), 0, (struct sockaddr *)&address, sizeof address);
  CHECK(n == (ssize_t)strlen(text), "sendto");
  close(fd);
}

static void wait_for_ever(void) {
  for (;;) pause();
}

static void say_often(int times) {
  notify("READY=1\n");
  for (int i = 0; i < times; i++) {
    usleep(100000);
    notify("WATCHDOG=1\n");
  }
  wait_for_ever();
}

static volatile sig_atomic_t stopping;
static void stop(int signal_number) {
  (void)signal_number;
  stopping = 1;
}

static void serve(const char *name) {
  const struct sigaction action = {.sa_handler = stop};
  shmq_service *s;
  int rc = shmq_service_create(name, NULL);
  CHECK(rc == 0 || rc == -EEXIST, "%s", shmq_strerror(rc));
  EXPECT(shmq_service_open(&s, name, 0), 0);
  sigaction(SIGTERM, &action, NULL);
  notify("READY=1\n");
  while (!stopping) {
    shmq_incoming in;
    rc = shmq_serve(s, &in, shmq_after_ns(100 * MILLISECOND));
    if (rc == 0) shmq_reply(&in, NULL, 0);
    CHECK(rc == 0 || rc == -ETIMEDOUT || rc == -EINTR, "%s", shmq_strerror(rc));
  }
  shmq_service_close(s);
}

static void grow(size_t mib) {
  char *memory = malloc(mib << 20);
  CHECK(memory, "memory");
  for (size_t i = 0; i < mib << 20; i += 4096) ((volatile char *)memory)[i] = 1;
  notify("READY=1\n");
  wait_for_ever();
}

int main(int argc, char **argv) {
  CHECK(argc == 3, "arguments");
  if (strcmp(argv[1], "notify") == 0) say_often(atoi(argv[2]));
  if (strcmp(argv[1], "serve") == 0) serve(argv[2]);
  if (strcmp(argv[1], "grow") == 0) grow((size_t)atoi(argv[2]));
  return 0;
}
