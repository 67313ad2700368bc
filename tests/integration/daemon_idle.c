/* SPDX-License-Identifier: Apache-2.0
 *
 * A thousand sessions of which 64 do something, and then none does: what an idle one costs, and that nobody wakes up.
 *
 *   daemon_idle [SESSIONS [SECONDS]]
 */
#include <sys/resource.h>

#include "support/shmqd.h"

enum { ACTIVE = 64, IDLE_KIB_MAX = 64 };

static const char sections[] =
    "[daemon]\nmax_sessions = 2000\nuid_sessions = 2000\nuid_operations = 100000\n"
    "uid_handles = 200000\nuid_bytes = 16G\n";
static struct shmqd d;

static long status_value(const char *path, const char *key) {
  char line[256];
  long value = 0;
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f))
    if (strncmp(line, key, strlen(key)) == 0) value = strtol(line + strlen(key) + 1, NULL, 10);
  if (f) fclose(f);
  return value;
}

/* Their own memory and its page tables. The sessions' memory is shared and not in it. */
static long own_kib(void) {
  const pid_t both[] = {d.pid, shmqd_worker(&d)};
  long sum = 0;
  for (int i = 0; i < 2; i++) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)both[i]);
    sum += status_value(path, "RssAnon") + status_value(path, "VmPTE");
  }
  return sum;
}

/* How often any thread of the two went to sleep: as often as it woke up. */
static long sleeps(void) {
  const pid_t both[] = {d.pid, shmqd_worker(&d)};
  long sum = 0;
  for (int i = 0; i < 2; i++) {
    char folder[64], path[384];
    snprintf(folder, sizeof folder, "/proc/%d/task", (int)both[i]);
    DIR *tasks = opendir(folder);
    for (struct dirent *e; tasks && (e = readdir(tasks));) {
      if (e->d_name[0] == '.') continue;
      snprintf(path, sizeof path, "%s/%s/status", folder, e->d_name);
      sum += status_value(path, "voluntary_ctxt_switches");
    }
    if (tasks) closedir(tasks);
  }
  return sum;
}

/* All have gone to sleep: nothing has happened for a while. */
static void wait_for_rest(void) {
  for (long still = 0, before = sleeps(); still < 100; still++) {
    nap_ms(10);
    long now = sleeps();
    if (now != before) still = 0;
    before = now;
  }
}

static void null_call(shmq_client *c) {
  shmq_result r;
  MUST(shmqd_ask(c, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r));
}

static void connect_all(shmq_client **c, int n) {
  for (int i = 0; i < n; i++) {
    c[i] = shmqd_client(&d);
    null_call(c[i]);
  }
}

int main(int argc, char **argv) {
  int n = argc > 1 ? atoi(argv[1]) : 1000, seconds = argc > 2 ? atoi(argv[2]) : 10;
  struct rlimit limit;
  setvbuf(stdout, NULL, _IOLBF, 0);
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < (rlim_t)n * 8) return SKIPPED;

  shmqd_new_with(&d, sections);
  shmq_client **c = calloc((size_t)n, sizeof *c);
  connect_all(c, 1); /* what is made for the first is there */
  wait_for_rest();
  long before = own_kib();
  connect_all(c + 1, n - 1);
  wait_for_rest();
  long each = (own_kib() - before) / (n - 1);
  printf("%d sessions: %ld KiB for an idle one, beyond its arena\n", n, each);
  CHECK(each <= IDLE_KIB_MAX, "%ld KiB", each);

  for (int round = 0; round < 50; round++)
    for (int i = 0; i < ACTIVE; i++) null_call(c[(i * 15 + round) % n]);
  wait_for_rest();
  long slept = sleeps();
  nap_ms(seconds * 1000L);
  slept = sleeps() - slept;
  printf("%ld wake-ups in %d s\n", slept, seconds);
  CHECK(slept == 0, "%ld wake-ups of nobody's making", slept);

  for (int i = 0; i < n; i++) null_call(c[i]); /* asleep, and not lost */
  for (int i = 0; i < n; i++) shmq_client_close(c[i]);
  CHECK(shmqd_stop(&d, SIGTERM) == 0, "its end");
  shmqd_remove(&d);
  free(c);
  return 0;
}
