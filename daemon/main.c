/* SPDX-License-Identifier: Apache-2.0
 *
 * shmqd: start and end.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "daemon.h"
#include "settings.h"

enum { EXIT_FAILED = 1, EXIT_USAGE_ERROR = 2 };

static int configure(struct daemon *d, const struct arguments *a) {
  struct config_error error;
  int rc = settings_read(&d->config, a, &error);
  if (rc) {
    say(SAY_ERROR, "%s", error.text);
    return rc;
  }
  d->arguments = a;
  d->settings = config_section(&d->config, "daemon");
  return 0;
}

/* ---- start and end ---- */

static int choose_directory(struct daemon *d, const struct arguments *a) {
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  int n;
  if (a->directory)
    n = snprintf(d->directory, sizeof d->directory, "%s", a->directory);
  else if (geteuid() == 0)
    n = snprintf(d->directory, sizeof d->directory, "/run/shmqd");
  else if (runtime && *runtime == '/')
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
  int rc = arguments_parse(&a, argc, argv);
  if (rc) {
    arguments_free(&a);
    return rc < 0 ? EXIT_USAGE_ERROR : 0;
  }
  say_open();
  say_set_level(a.quiet ? SAY_ERROR : a.verbose ? SAY_DEBUG : SAY_NOTICE);

  rc = configure(&daemon, &a);
  if (!rc && a.show) config_show(&daemon.config, stdout);
  if (!rc && !a.check && !a.show) rc = serve(&daemon, &a);
  config_free(&daemon.config);
  arguments_free(&a);
  return rc ? EXIT_FAILED : 0;
}
