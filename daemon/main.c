/* SPDX-License-Identifier: Apache-2.0
 *
 * shmqd: arguments and configuration, then the supervisor.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "settings.h"
#include "supervisor/supervisor.h"

enum { EXIT_FAILED = 1, EXIT_USAGE_ERROR = 2 };

static int configure(struct supervisor *sv, const struct arguments *a) {
  struct config_error error;
  int rc = settings_read(&sv->config, a, &error);
  if (rc) {
    say(SAY_ERROR, "%s", error.text);
    return rc;
  }
  sv->arguments = a;
  sv->settings = config_section(&sv->config, "daemon");
  return 0;
}

static int choose_directory(struct supervisor *sv, const struct arguments *a) {
  const char *runtime = getenv("XDG_RUNTIME_DIR");
  int n;
  if (a->directory)
    n = snprintf(sv->directory, sizeof sv->directory, "%s", a->directory);
  else if (a->system)
    n = snprintf(sv->directory, sizeof sv->directory, "/run/shmqd");
  else if (runtime && *runtime == '/')
    n = snprintf(sv->directory, sizeof sv->directory, "%s/shmqd", runtime);
  else {
    say(SAY_ERROR, "neither --dir nor XDG_RUNTIME_DIR says where to keep the socket");
    return -ENOENT;
  }
  return n < (int)sizeof sv->directory ? 0 : -ENAMETOOLONG;
}

static int serve(struct supervisor *sv, const struct arguments *a) {
  int rc = choose_directory(sv, a);
  return rc ? rc : supervisor_run(sv);
}

int main(int argc, char **argv) {
  static struct supervisor supervisor;
  struct arguments a;
  int rc = arguments_parse(&a, argc, argv);
  if (rc) {
    arguments_free(&a);
    return rc < 0 ? EXIT_USAGE_ERROR : 0;
  }
  say_open();
  say_set_level(a.quiet ? SAY_ERROR : a.verbose ? SAY_DEBUG : SAY_NOTICE);

  rc = configure(&supervisor, &a);
  if (!rc && a.show) config_show(&supervisor.config, stdout);
  if (!rc && !a.check && !a.show) rc = serve(&supervisor, &a);
  config_free(&supervisor.config);
  arguments_free(&a);
  return rc ? EXIT_FAILED : 0;
}
