/* SPDX-License-Identifier: Apache-2.0
 *
 * A supervisor that is restarted, or killed, under a service manager that keeps descriptors for it. The manager is this
 * program: it speaks systemd's protocol, keeps what comes with FDSTORE=1 and hands it back with LISTEN_FDS.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "support/check.h"
#include "support/shmqd.h"

enum { KEPT_MAX = 32 };

static struct shmqd d;
static struct {
  int fd;
  char name[64];
} kept[KEPT_MAX];
static int kept_count, manager;
static bool ready;
static char said[512]; /* with STATUS= */
static const char *access_set = "daemon.access=owner";

/* ---- the manager ---- */

static void keep(const char *name, const int *fds, int count) {
  for (int i = 0; i < count; i++) {
    CHECK(kept_count < KEPT_MAX, "room");
    kept[kept_count].fd = fds[i];
    snprintf(kept[kept_count++].name, sizeof kept[0].name, "%s", name);
  }
}

static void forget(const char *name) {
  int left = 0;
  for (int i = 0; i < kept_count; i++) {
    if (strcmp(kept[i].name, name) == 0)
      close(kept[i].fd);
    else
      kept[left++] = kept[i];
  }
  kept_count = left;
}

static void obey(char *text, const int *fds, int count) {
  const char *name = "";
  bool store = false, remove = false;
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    if (strcmp(line, "READY=1") == 0) ready = true;
    if (strcmp(line, "FDSTORE=1") == 0) store = true;
    if (strcmp(line, "FDSTOREREMOVE=1") == 0) remove = true;
    if (strncmp(line, "FDNAME=", 7) == 0) name = line + 7;
    if (strncmp(line, "STATUS=", 7) == 0) snprintf(said, sizeof said, "%s", line + 7);
  }
  if (store) keep(name, fds, count);
  if (remove) forget(name);
}

static bool hear(int flags) {
  char text[1024], control[CMSG_SPACE(8 * sizeof(int))];
  struct iovec part = {text, sizeof text - 1};
  struct msghdr m = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t n = recvmsg(manager, &m, flags | MSG_CMSG_CLOEXEC);
  if (n < 0) return false;
  text[n] = 0;
  struct cmsghdr *c = CMSG_FIRSTHDR(&m);
  int fds[8], count = c ? (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)) : 0;
  if (c) memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
  obey(text, fds, count);
  return true;
}

static void hear_until_kept(int wanted) {
  while (kept_count != wanted) CHECK(hear(0), "the manager");
}

static void open_manager(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s/manager", d.dir);
  manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  CHECK(bind(manager, (struct sockaddr *)&address, sizeof address) == 0, "bind");
  setenv("NOTIFY_SOCKET", address.sun_path, 1);
}

/* In the child: what is kept becomes 3, 4, ... */
static void hand_back(void) {
  char names[KEPT_MAX * 64] = "", number[16];
  int high[KEPT_MAX];
  for (int i = 0; i < kept_count; i++) high[i] = fcntl(kept[i].fd, F_DUPFD, 3 + KEPT_MAX);
  for (int i = 0; i < kept_count; i++) {
    dup2(high[i], 3 + i);
    sprintf(names + strlen(names), "%s%s", i ? ":" : "", kept[i].name);
  }
  close_range((unsigned)(3 + kept_count), ~0u, 0);
  snprintf(number, sizeof number, "%d", kept_count);
  setenv("LISTEN_FDS", number, 1);
  setenv("LISTEN_FDNAMES", names, 1);
  snprintf(number, sizeof number, "%d", (int)getpid());
  setenv("LISTEN_PID", number, 1);
}

static void start(void) {
  char program[512], config[160], tree[160], log[160];
  snprintf(config, sizeof config, "%s/shmqd.conf", d.dir);
  snprintf(program, sizeof program, "%s/daemon/shmqd", getenv("SHMQ_BUILD_DIR"));
  snprintf(tree, sizeof tree, "dir:tree.path=%s/tree", d.dir);
  snprintf(log, sizeof log, "log:log.path=%s/log", d.dir);
  ready = false;
  d.pid = fork();
  if (d.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    hand_back();
    execl(program, "shmqd", "-q", "--config", config, "--dir", d.dir, "--set",
          "daemon.store=yes", "--set", "daemon.uid_operations=64", "--set", access_set, "--set", tree,
          "--set", log, (char *)NULL);
    _exit(127);
  }
  while (!ready) CHECK(hear(0), "the manager");
}

/* ---- the client ---- */

static shmq_client *c;
static shmq_result r;
static int log_number;

static shmq_future *follow(uint64_t number) {
  shmq_ask a = {
      .resource = (uint16_t)log_number, .op = SHMQ_LOG_FOLLOW, .value = {number, 0}, .room = 200};
  shmq_future *f;
  EXPECT(shmq_request(c, &a, SHMQ_FOREVER, &f), 0);
  for (int i = 0; i < 100; i++) /* it stands aside then */
    EXPECT(shmqd_ask(c, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), 0);
  EXPECT(shmq_await(f, &r, shmq_after_ns(50 * MILLISECOND)), -EAGAIN);
  return f;
}

static void append(uint64_t number) {
  EXPECT(shmqd_ask(c, log_number, SHMQ_LOG_APPEND, SHMQ_LOG_ACK_DISK, 0, "x", 1, 0, &r), 0);
  CHECK(r.value[0] == number, "number %d", (int)r.value[0]);
}

static void restart(int signal_number, int status) {
  EXPECT(shmqd_stop(&d, signal_number), status);
  while (hear(MSG_DONTWAIT)) {}
  start();
}

/* Two sessions have all that a user may. */
static void no_third(void) {
  shmq_client *third;
  EXPECT(shmq_client_connect(&third, d.socket, NULL, 0), -EDQUOT);
}

/* ---- what is kept, and who may use it ---- */

static mode_t control_mode(void) {
  struct stat st;
  CHECK(stat(d.socket, &st) == 0, "stat");
  return st.st_mode & 0777;
}

static void null_request(shmq_client *client, int expected) {
  EXPECT(shmqd_ask(client, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), expected);
}

static void anybody_connects(void) {
  shmq_client *fresh = shmqd_client(&d);
  null_request(fresh, 0);
  shmq_client_close(fresh);
}

/* Who may connect may be another after a restart, and the socket is the one that was kept. */
static void access_changes(void) {
  const uid_t stranger = 65534;
  bool root = geteuid() == 0;
  shmq_client *theirs = NULL;
  CHECK(control_mode() == 0600, "mode %o", control_mode());
  access_set = "daemon.access=all";
  restart(SIGTERM, 0);
  CHECK(control_mode() == 0666, "mode %o", control_mode());
  if (root) {
    CHECK(chmod(d.dir, 0755) == 0 && seteuid(stranger) == 0, "become another");
    theirs = shmqd_client(&d);
    CHECK(seteuid(0) == 0, "become root again");
    null_request(theirs, 0);
    restart(SIGTERM, 0);
    null_request(theirs, 0);
  }
  access_set = "daemon.access=owner";
  restart(SIGTERM, 0);
  CHECK(control_mode() == 0600, "mode %o", control_mode());
  null_request(c, 0);
  if (!theirs) return;
  null_request(theirs, -EOWNERDEAD);
  shmq_client_close(theirs);
}

/* A socket that nobody can find any more is of no use, though it was kept. */
static void name_goes(void) {
  CHECK(unlink(d.socket) == 0, "unlink");
  restart(SIGTERM, 0);
  anybody_connects();
  restart(SIGTERM, 0);
  anybody_connects();
}

/* ---- reload ---- */

static void configure(const char *text) {
  char path[128];
  snprintf(path, sizeof path, "%s/shmqd.conf", d.dir);
  FILE *file = fopen(path, "we");
  CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

static void reload(const char *text) {
  configure(text);
  ready = false;
  CHECK(kill(d.pid, SIGHUP) == 0, "kill");
  while (!ready) CHECK(hear(0), "the manager");
}

static void refusal_is_told(void) {
  reload("[daemon]\ncolour = blue\n");
  CHECK(strncmp(said, "Not reloaded: ", 14) == 0 && strstr(said, "shmqd.conf:2"), "%s", said);
  reload("[daemon]\nspin = 30us\n");
  CHECK(!*said, "%s", said);
  null_request(c, 0);
}

int main(void) {
  snprintf(d.dir, sizeof d.dir, "/tmp/shmqd-test.XXXXXX");
  CHECK(mkdtemp(d.dir), "mkdtemp");
  snprintf(d.socket, sizeof d.socket, "%s/control", d.dir);
  char path[128];
  snprintf(path, sizeof path, "%s/tree", d.dir);
  CHECK(mkdir(path, 0700) == 0, "mkdir");
  open_manager();
  configure("");
  start();
  c = shmqd_client(&d);
  log_number = shmq_resource(c, "log");
  shmq_client *other = shmqd_client(&d);
  hear_until_kept(1 + 2 * 2);
  no_third();
  append(1);

  shmq_future *f = follow(2);
  restart(SIGTERM, 0); /* as `systemctl restart` does */
  EXPECT(shmq_await(f, &r, shmq_after_ns(50 * MILLISECOND)), -EAGAIN);
  append(2);
  no_third(); /* what was kept is counted */
  CHECK(shmq_client_epoch(c) == 2, "epoch %u", shmq_client_epoch(c));
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);

  f = follow(3);
  restart(SIGKILL, -SIGKILL); /* as it is after a failure */
  append(3);
  CHECK(shmq_client_epoch(c) == 3, "epoch %u", shmq_client_epoch(c));
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  shmq_future_free(f);

  shmq_client_close(other); /* which the manager is told, now or by the next supervisor */
  hear_until_kept(1 + 2);
  anybody_connects();
  access_changes();
  name_goes();
  refusal_is_told();

  f = follow(4);
  EXPECT(shmqd_stop(&d, SIGTERM), 0);
  while (hear(MSG_DONTWAIT)) {}
  while (kept_count) forget(kept[0].name); /* as `systemctl stop` does */
  EXPECT(shmq_await(f, &r, PATIENCE), -EOWNERDEAD);
  shmq_future_free(f);
  shmq_client_close(c);
  shmqd_remove(&d);
  return 0;
}
