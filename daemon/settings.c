/* SPDX-License-Identifier: Apache-2.0
 *
 * [daemon], the list of all kinds of sections, and where a configuration is read from:
 *
 *   built-in < /usr/lib/shmq/shmqd.conf < /etc/shmq/shmqd.conf < /etc/shmq/conf.d < environment < arguments
 *
 * A user's daemon reads $XDG_CONFIG_HOME/shmq in place of the two directories.
 */
#include "settings.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "shard.h"
#include "supervisor/service.h"

static const struct param params[] = {
    {"access", PARAM_CHOICE, "owner", 0, 0, "owner|all",
     "who may connect: the daemon's own user and root, or everybody", PARAM_FIXED},
    {"io", PARAM_CHOICE, "auto", 0, 0, IO_RUNGS, "how I/O is done; auto tries them in order",
     PARAM_FIXED},
    {"spin", PARAM_DURATION, "20us", 0, 1000000000, NULL,
     "how long a session that brings nothing is polled before the daemon sleeps", PARAM_LIVE},
    {"spin_most", PARAM_DURATION, "400us", 0, 1000000000, NULL,
     "the same where it was back, or answered, within so long the last time; others may have the processor meanwhile; nothing if spin is 0", PARAM_LIVE},
    {"drain", PARAM_DURATION, "5s", 0, 3600000000000, NULL,
     "how long SIGTERM waits for what is under way", PARAM_LIVE},
    {"max_sessions", PARAM_COUNT, "1024", 1, 100000, NULL, "clients at once", PARAM_LIVE},
    {"credits", PARAM_COUNT, "32", 1, 4096, NULL,
     "requests of a session at once, if it says nothing", PARAM_LIVE},
    {"max_credits", PARAM_COUNT, "256", 1, 4096, NULL, "the most credits it may ask for",
     PARAM_LIVE},
    {"blocks", PARAM_COUNT, "8", 0, 65536, NULL, "blocks of a session's arena, if it says nothing",
     PARAM_LIVE},
    {"max_blocks", PARAM_COUNT, "256", 0, 65536, NULL, "the most blocks it may ask for",
     PARAM_LIVE},
    {"block_bytes", PARAM_BYTES, "64K", 4096, 1 << 30, NULL, "bytes of a block, if it says nothing",
     PARAM_LIVE},
    {"max_block_bytes", PARAM_BYTES, "4M", 4096, 1 << 30, NULL, "the longest block it may ask for",
     PARAM_LIVE},
    {"handles", PARAM_COUNT, "64", 1, 65535, NULL, "open files of a session", PARAM_LIVE},
    {"uid_sessions", PARAM_COUNT, "512", 1, 100000, NULL, "clients of one user at once", PARAM_LIVE},
    {"uid_operations", PARAM_COUNT, "16384", 1, INT32_MAX, NULL,
     "credits of one user's sessions together", PARAM_LIVE},
    {"uid_bytes", PARAM_BYTES, "4G", 1 << 20, INT64_C(1) << 50, NULL,
     "memory of one user's sessions together", PARAM_LIVE},
    {"uid_handles", PARAM_COUNT, "32768", 1, INT32_MAX, NULL,
     "open files of one user's sessions together, counted as if each had all of its own", PARAM_LIVE},
    {"store", PARAM_FLAG, "no", 0, 0, NULL,
     "have the service manager keep sessions while the daemon is restarted: systemd with "
     "FileDescriptorStoreMax=, two for each session and one more",
     PARAM_FIXED},
    {"shards", PARAM_COUNT, "1", 1, SHARDS_MAX, NULL,
     "threads that own the resources and serve the sessions, each with a ring of its own", PARAM_FIXED},
    {"pin", PARAM_TEXT, "none", 0, 0, NULL,
     "where they run: places, as shmq topo names them, one for each shard", PARAM_FIXED},
    RESTART_PARAMS("30s"),
    {"guard", PARAM_FLAG, "no", 0, 0, NULL,
     "guard the segments of /dev/shm: recover the dead at once, mind dead letters and times",
     PARAM_FIXED},
    {"remove_orphans", PARAM_DURATION, "0s", 0, INT64_MAX / 4, NULL,
     "remove a guarded segment after nobody was attached for so long; 0s: never", PARAM_LIVE},
    {0},
};
static const struct section_kind daemon_section = {
    .name = "daemon", .params = params, .help = "The daemon itself and its sessions"};

const struct section_kind *const section_kinds[] = {&daemon_section,
                                                    &dir_kind.section,
                                                    &log_kind.section,
                                                    &kv_kind.section,
                                                    &pool_kind.section,
                                                    &process_kind.section,
                                                    &stream_kind.section,
                                                    &timer_kind.section,
                                                    &service_kind,
                                                    NULL};

/* ---- sources ---- */

static int read_optional(int (*read)(struct config *, const char *, struct config_error *),
                         struct config *config, const char *path, struct config_error *error) {
  int rc = read(config, path, error);
  if (rc != -ENOENT && rc != -ENOTDIR) return rc;
  *error->text = 0;
  return 0;
}

static int read_below(struct config *config, const char *base, struct config_error *error) {
  char path[PATH_MAX + 32];
  snprintf(path, sizeof path, "%s/shmqd.conf", base);
  int rc = read_optional(config_read_file, config, path, error);
  snprintf(path, sizeof path, "%s/conf.d", base);
  return rc ? rc : read_optional(config_read_directory, config, path, error);
}

/* Paths that are not absolute are to be ignored, says the XDG base directory specification. */
static int read_user_files(struct config *config, struct config_error *error) {
  char base[PATH_MAX];
  const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
  int n = 0;
  if (xdg && *xdg == '/')
    n = snprintf(base, sizeof base, "%s/shmq", xdg);
  else if (home && *home == '/')
    n = snprintf(base, sizeof base, "%s/.config/shmq", home);
  return n > 0 && n < (int)sizeof base ? read_below(config, base, error) : 0;
}

static int read_files(struct config *config, const struct arguments *a,
                      struct config_error *error) {
  if (a->config) return config_read_file(config, a->config, error);
  if (!a->system) return read_user_files(config, error);
  int rc = read_optional(config_read_file, config, "/usr/lib/shmq/shmqd.conf", error);
  return rc ? rc : read_below(config, "/etc/shmq", error);
}

int settings_read(struct config *config, const struct arguments *a, struct config_error *error) {
  *error->text = 0;
  config_init(config, section_kinds);
  int rc = read_files(config, a, error);
  if (!rc) rc = config_read_environment(config, error);
  for (int i = 0; !rc && i < a->setting_count; i++)
    rc = config_set(config, a->settings[i], "--set", error);
  if (!rc) rc = config_complete(config, error);
  if (!rc) rc = services_check(config, error);
  if (!rc) rc = resources_check(config, error);
  if (!rc) return 0;
  if (!*error->text) snprintf(error->text, sizeof error->text, "%s", strerror(-rc));
  config_free(config);
  return rc;
}
