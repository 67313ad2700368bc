/* SPDX-License-Identifier: Apache-2.0
 *
 * shmqd: arguments, configuration, start and end.
 */
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon.h"

enum { EXIT_FAILED = 1, EXIT_USAGE_ERROR = 2 };

static const struct param daemon_params[] = {
    {"access", PARAM_CHOICE, "owner", 0, 0, "owner|all",
     "who may connect: the daemon's own user and root, or everybody"},
    {"io", PARAM_CHOICE, "auto", 0, 0, IO_RUNGS, "how I/O is done; auto tries them in order"},
    {"spin", PARAM_DURATION, "20us", 0, 1000000000, NULL,
     "how long a session that brings nothing is polled before the daemon sleeps"},
    {"drain", PARAM_DURATION, "5s", 0, 3600000000000, NULL,
     "how long SIGTERM waits for what is under way"},
    {"max_sessions", PARAM_COUNT, "1024", 1, 100000, NULL, "clients at once"},
    {"credits", PARAM_COUNT, "32", 1, 4096, NULL,
     "requests of a session at once, if it says nothing"},
    {"max_credits", PARAM_COUNT, "256", 1, 4096, NULL, "the most it may ask for"},
    {"blocks", PARAM_COUNT, "8", 0, 65536, NULL, "blocks of a session's arena, if it says nothing"},
    {"max_blocks", PARAM_COUNT, "256", 0, 65536, NULL, "the most it may ask for"},
    {"block_bytes", PARAM_BYTES, "64K", 4096, 1 << 30, NULL,
     "bytes of a block, if it says nothing"},
    {"max_block_bytes", PARAM_BYTES, "4M", 4096, 1 << 30, NULL, "the most it may ask for"},
    {"guard", PARAM_FLAG, "no", 0, 0, NULL,
     "guard the segments of /dev/shm: recover the dead at once, mind dead letters and times"},
    {"remove_orphans", PARAM_DURATION, "0s", 0, INT64_MAX, NULL,
     "remove a guarded segment after nobody was attached for so long; 0s: never"},
    {"handles", PARAM_COUNT, "64", 1, 65535, NULL, "open files of a session"},
    {0},
};
const struct section_kind daemon_section = {"daemon", false, daemon_params};

static const struct section_kind *const section_kinds[] = {&daemon_section, &dir_kind.section,
                                                           &log_kind.section, NULL};

struct arguments {
  const char *config; /* read instead of the system's and the user's */
  const char *directory;
  const char *const *settings;
  int setting_count;
  bool check, show, verbose, quiet;
  int ready_fd;
};

static void help(FILE *to) {
  struct config config;
  fprintf(
      to,
      "usage: shmqd [OPTION]...\n"
      "Own files and other resources, and serve requests for them that arrive on queues.\n\n"
      "  -c, --config FILE       read FILE and not the system's or the user's configuration\n"
      "  -d, --dir DIR           keep the socket in DIR (default $XDG_RUNTIME_DIR/shmqd, root: /run/shmqd)\n"
      "  -s, --set SECTION.KEY=VALUE   as in a file: --set dir:src.path=/usr/include\n"
      "      --check             check the configuration and exit\n"
      "      --show-config       print every setting and where it comes from, and exit\n"
      "      --ready-fd N        write a newline to descriptor N when clients can connect\n"
      "  -v, --verbose           say more; -q, --quiet: only what is wrong\n"
      "      --version, --help\n\n"
      "SIGTERM finishes what is under way. Sections and parameters:\n\n");
  config_init(&config, section_kinds);
  config_help(&config, to);
}

static int parse(int argc, char **argv, struct arguments *a) {
  enum { CHECK = 256, SHOW, READY, VERSION, HELP };
  static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                          {"dir", required_argument, NULL, 'd'},
                                          {"set", required_argument, NULL, 's'},
                                          {"check", no_argument, NULL, CHECK},
                                          {"show-config", no_argument, NULL, SHOW},
                                          {"ready-fd", required_argument, NULL, READY},
                                          {"verbose", no_argument, NULL, 'v'},
                                          {"quiet", no_argument, NULL, 'q'},
                                          {"version", no_argument, NULL, VERSION},
                                          {"help", no_argument, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
  const char **settings = calloc((size_t)argc, sizeof *settings);
  *a = (struct arguments){.settings = settings, .ready_fd = -1};
  if (!settings) return -EXIT_FAILED;
  for (int o; (o = getopt_long(argc, argv, "c:d:s:vq", options, NULL)) != -1;) {
    char *end;
    switch (o) {
    case 'c': a->config = optarg; break;
    case 'd': a->directory = optarg; break;
    case 's': settings[a->setting_count++] = optarg; break;
    case CHECK: a->check = true; break;
    case SHOW: a->show = true; break;
    case READY:
      a->ready_fd = (int)strtol(optarg, &end, 10);
      if (*end || end == optarg || a->ready_fd < 0) {
        fprintf(stderr, "shmqd: --ready-fd: '%s' is not a descriptor\n", optarg);
        return -EXIT_USAGE_ERROR;
      }
      break;
    case 'v': a->verbose = true; break;
    case 'q': a->quiet = true; break;
    case VERSION: puts("shmqd " SHMQ_VERSION); return 1;
    case HELP: help(stdout); return 1;
    default: fprintf(stderr, "Try 'shmqd --help'.\n"); return -EXIT_USAGE_ERROR;
    }
  }
  if (optind == argc) return 0;
  fprintf(stderr, "shmqd: unexpected argument '%s'\nTry 'shmqd --help'.\n", argv[optind]);
  return -EXIT_USAGE_ERROR;
}

/* ---- configuration: built-in < /usr/lib < /etc < conf.d < environment < arguments ---- */

static int read_optional(struct config *config, const char *path, bool directory,
                         struct config_error *error) {
  int rc = directory ? config_read_directory(config, path, error)
                     : config_read_file(config, path, error);
  return rc == -ENOENT || rc == -ENOTDIR ? 0 : rc;
}

static int read_user_files(struct config *config, struct config_error *error) {
  char path[PATH_MAX];
  const char *base = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
  if (base)
    snprintf(path, sizeof path, "%s/shmq/shmqd.conf", base);
  else
    snprintf(path, sizeof path, "%s/.config/shmq/shmqd.conf", home ? home : "");
  return read_optional(config, path, false, error);
}

static int read_files(struct config *config, const struct arguments *a,
                      struct config_error *error) {
  if (a->config) return config_read_file(config, a->config, error);
  if (geteuid() != 0) return read_user_files(config, error);
  int rc = read_optional(config, "/usr/lib/shmq/shmqd.conf", false, error);
  if (!rc) rc = read_optional(config, "/etc/shmq/shmqd.conf", false, error);
  if (!rc) rc = read_optional(config, "/etc/shmq/conf.d", true, error);
  return rc;
}

static int configure(struct daemon *d, const struct arguments *a) {
  struct config_error error = {""};
  config_init(&d->config, section_kinds);
  int rc = read_files(&d->config, a, &error);
  if (!rc) rc = config_read_environment(&d->config, &error);
  for (int i = 0; !rc && i < a->setting_count; i++)
    rc = config_set(&d->config, a->settings[i], "--set", &error);
  if (!rc) rc = config_complete(&d->config, &error);
  if (rc) say(SAY_ERROR, "%s", *error.text ? error.text : strerror(-rc));
  d->settings = config_section(&d->config, "daemon");
  return rc;
}

/* ---- start and end ---- */

static int choose_directory(struct daemon *d, const struct arguments *a) {
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  int n;
  if (a->directory)
    n = snprintf(d->directory, sizeof d->directory, "%s", a->directory);
  else if (geteuid() == 0)
    n = snprintf(d->directory, sizeof d->directory, "/run/shmqd");
  else if (runtime)
    n = snprintf(d->directory, sizeof d->directory, "%s/shmqd", runtime);
  else {
    say(SAY_ERROR, "neither --dir nor XDG_RUNTIME_DIR says where to keep the socket");
    return -ENOENT;
  }
  return n < (int)sizeof d->directory ? 0 : -ENAMETOOLONG;
}

/* Signals come through a descriptor; each session needs half a dozen descriptors. */
static int prepare_process(struct daemon *d) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigprocmask(SIG_BLOCK, &set, NULL);
  d->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  return d->signals < 0 ? -errno : 0;
}

static void notify_systemd(const char *state) {
  const char *path = getenv("NOTIFY_SOCKET");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (!path || strlen(path) >= sizeof address.sun_path) return;
  memcpy(address.sun_path, path, strlen(path));
  if (address.sun_path[0] == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
    say(SAY_WARNING, "NOTIFY_SOCKET: %s", strerror(errno));
  close(fd);
}

static void tell_ready(int fd) {
  notify_systemd("READY=1");
  if (fd < 0) return;
  if (write(fd, "\n", 1) < 0) say(SAY_WARNING, "--ready-fd: %s", strerror(errno));
  close(fd);
}

static int start(struct daemon *d) {
  int rc = prepare_process(d);
  if (!rc) rc = io_open(&d->io, (enum io_rung)section_number(d->settings, "io"));
  if (rc) {
    say(SAY_ERROR, "cannot set up I/O '%s': %s", section_text(d->settings, "io"), strerror(-rc));
    return rc;
  }
  d->spin_ns = section_number(d->settings, "spin");
  rc = resources_open(d);
  if (rc) return rc;
  rc = control_open(d, d->directory);
  if (rc == -EADDRINUSE)
    say(SAY_ERROR, "%s: another daemon lives here", d->directory);
  else if (rc)
    say(SAY_ERROR, "%s: %s", d->directory, strerror(-rc));
  return rc ? rc : guard_open(d);
}

static int serve(struct daemon *d, const struct arguments *a) {
  int rc = choose_directory(d, a);
  if (!rc) rc = start(d);
  if (!rc) {
    say(SAY_INFO, "ready in %s, %u resources, I/O by %s", d->directory, d->resource_count,
        io_name(d->io));
    tell_ready(a->ready_fd);
    rc = daemon_run(d);
    notify_systemd("STOPPING=1");
  }
  guard_close(d);
  resources_close(d);
  control_close(d);
  return rc;
}

int main(int argc, char **argv) {
  static struct daemon daemon = {.listener = -1, .lock_fd = -1, .signals = -1};
  struct arguments a;
  int rc = parse(argc, argv, &a);
  if (rc) return rc < 0 ? -rc : 0;
  say_open();
  say_set_level(a.quiet ? SAY_ERROR : a.verbose ? SAY_DEBUG : SAY_NOTICE);

  rc = configure(&daemon, &a);
  if (!rc && a.show) config_show(&daemon.config, stdout);
  if (!rc && !a.check && !a.show) rc = serve(&daemon, &a);
  config_free(&daemon.config);
  free((void *)(uintptr_t)a.settings);
  return rc ? EXIT_FAILED : 0;
}
