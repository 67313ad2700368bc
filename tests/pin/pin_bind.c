/* SPDX-License-Identifier: Apache-2.0
 *
 * Binding for real, on the machine at hand, compared with what sched_getaffinity(2) says itself.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "machine.h"

static shmq_pin *open_here(void) {
  shmq_pin *pin = NULL;
  int rc = shmq_pin_open(&pin);
  cr_assert_eq(rc, 0, "%s", shmq_strerror(rc));
  return pin;
}

static cpu_set_t affinity_of(pid_t tid) {
  cpu_set_t set;
  cr_assert_eq(sched_getaffinity(tid, sizeof(set), &set), 0);
  return set;
}

/* Of all threads, for the test framework has some of its own: as if the process had been started
 * so. */
static bool set_affinity(const cpu_set_t *set) {
  DIR *tasks = opendir("/proc/self/task");
  bool ok = tasks != NULL;
  for (struct dirent *entry; ok && (entry = readdir(tasks)) != NULL;) {
    if (entry->d_name[0] != '.')
      ok = sched_setaffinity(atoi(entry->d_name), sizeof(*set), set) == 0;
  }
  if (tasks != NULL) closedir(tasks);
  return ok;
}

static cpu_set_t only(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return set;
}

static int highest(const cpu_set_t *set) {
  int cpu = CPU_SETSIZE - 1;
  while (cpu > 0 && !CPU_ISSET(cpu, set)) cpu--;
  return cpu;
}

static void expect_bound_to(pid_t tid, int cpu) {
  cpu_set_t now = affinity_of(tid);
  cr_expect(CPU_COUNT(&now) == 1 && CPU_ISSET(cpu, &now), "not bound to CPU %d", cpu);
}

Test(pin_bind, every_cpu)
{
  cpu_set_t before = affinity_of(0);
  shmq_pin *pin = open_here();
  cr_assert(shmq_pin_is_real(pin));
  int count = shmq_pin_count(pin, "spread");
  cr_assert_eq(count, CPU_COUNT(&before), "%d places", count);
  cpu_set_t left = before;
  for (int i = 0; i <= count; i++) {
    shmq_bound bound, now;
    cr_assert_eq(shmq_pin_self(pin, "spread", (unsigned)i, NULL, &bound), 0, "%s",
                 shmq_pin_error(pin));
    cr_expect_eq(bound.cpus, 1);
    cr_expect_eq(bound.shared, i == count);
    cr_expect(CPU_ISSET(bound.cpu, &before));
    CPU_CLR(bound.cpu, &left);
    expect_bound_to(0, bound.cpu);
    cr_expect_eq(sched_getcpu(), bound.cpu);
    cr_assert_eq(shmq_pin_where(pin, 0, &now), 0);
    cr_expect_eq(now.cpu, bound.cpu);
    cr_expect_str_eq(now.where, bound.where);
  }
  cr_expect_eq(CPU_COUNT(&left), 0, "each CPU once");
  shmq_pin_close(pin);
}

Test(pin_bind, another_process)
{
  shmq_pin *pin = open_here();
  cpu_set_t mine = affinity_of(0);
  shmq_bound bound;
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) pause();
  }
  cr_assert_eq(shmq_pin_thread(pin, child, "compact", 0, &bound), 0, "%s", shmq_pin_error(pin));
  expect_bound_to(child, bound.cpu);
  cpu_set_t still = affinity_of(0);
  cr_expect(CPU_EQUAL(&mine, &still), "the caller was bound too");
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  cr_expect_eq(shmq_pin_thread(pin, child, "compact", 0, NULL), -ESRCH);
  cr_expect_eq(shmq_pin_where(pin, child, &bound), -ESRCH);
  cr_expect_gt(strlen(shmq_pin_error(pin)), 10);
  shmq_pin_close(pin);
}

Test(pin_bind, none_and_errors_leave_it_alone)
{
  shmq_pin *pin = open_here();
  cpu_set_t one = only(sched_getcpu());
  shmq_bound bound;
  set_affinity(&one);
  cr_expect_eq(shmq_pin_thread(pin, 0, "none", 3, &bound), 0);
  cr_expect_eq(bound.cpus, 1, "says what is, not what could be");
  cr_expect_eq(bound.shared, 0);
  cr_expect_eq(shmq_pin_thread(pin, 0, "core:99999", 0, &bound), -ENOENT);
  cr_expect_eq(shmq_pin_thread(pin, 0, "what", 0, NULL), -EINVAL);
  expect_bound_to(0, highest(&one));
  shmq_pin_close(pin);
}

/* The machine is what the affinity leaves of it, and is counted from 0. */
Test(pin_bind, affinity_is_respected)
{
  cpu_set_t all = affinity_of(0);
  if (CPU_COUNT(&all) < 2) cr_skip_test("one CPU");
  int last = highest(&all);
  cpu_set_t one = only(last);
  set_affinity(&one);
  shmq_pin *pin = open_here();
  shmq_bound bound;
  set_affinity(&all); /* what counts is what it was at open */
  cr_expect_eq(shmq_pin_count(pin, "pu:all"), 1);
  cr_expect_eq(shmq_pin_count(pin, "spread"), 1);
  cr_expect_eq(shmq_pin_count(pin, "pu:1"), -ENOENT);
  cr_expect_eq(shmq_pin_count(pin, "pair:l3"), -ENOSPC);
  if (last < 32) {
    char mask[16];
    snprintf(mask, sizeof(mask), "0x%x", (1u << last) | 1u);
    cr_expect_eq(shmq_pin_count(pin, mask), -ENOSPC, "'%s'", mask);
    snprintf(mask, sizeof(mask), "0x%x", 1u << last);
    cr_expect_eq(shmq_pin_count(pin, mask), 1, "'%s': %s", mask, shmq_pin_error(pin));
  }
  cr_assert_eq(shmq_pin_self(pin, "pu:0", 0, NULL, &bound), 0, "%s", shmq_pin_error(pin));
  cr_expect_eq(bound.cpu, last);
  expect_bound_to(0, last);
  shmq_pin_close(pin);
}

Test(pin_bind, imagined_machines_bind_nothing)
{
  cpu_set_t before = affinity_of(0);
  shmq_pin *pin = open_machine(BIG);
  shmq_bound bound;
  char page[1];
  cr_expect_not(shmq_pin_is_real(pin));
  cr_expect_eq(shmq_pin_thread(pin, 0, "core:0", 0, &bound), -EOPNOTSUPP);
  cr_expect(strstr(shmq_pin_error(pin), "HWLOC_SYNTHETIC") != NULL, "%s", shmq_pin_error(pin));
  cr_expect_eq(shmq_pin_self(pin, "spread", 0, NULL, NULL), -EOPNOTSUPP);
  cr_expect_eq(shmq_pin_where(pin, 0, &bound), -EOPNOTSUPP);
  cr_expect_eq(shmq_pin_area(pin, page, 1, "numa:0", NULL), -EOPNOTSUPP);
  cr_expect_eq(shmq_pin_thread(pin, 0, "none", 0, &bound), 0, "nothing was asked");
  cpu_set_t after = affinity_of(0);
  cr_expect(CPU_EQUAL(&before, &after));
  shmq_pin_close(pin);
}

/* The big machine declared to be this one, of which this process may use CPUs 0 and 1: one core's
 * PUs. */
Test(pin_bind, part_of_a_big_machine)
{
  cpu_set_t two = only(0);
  CPU_SET(1, &two);
  if (!set_affinity(&two)) cr_skip_test("no CPU 0");
  cpu_set_t got = affinity_of(0);
  if (CPU_COUNT(&got) != 2) cr_skip_test("no CPU 1");
  setenv("HWLOC_THISSYSTEM", "1", 1);
  shmq_pin *pin = open_machine(BIG);
  shmq_bound bound;
  cr_expect(shmq_pin_is_real(pin));
  cr_expect_str_eq(list_places(pin, "core:all"), "0-1");
  cr_expect_str_eq(list_places(pin, "spread"), "0|1");
  cr_expect_str_eq(list_places(pin, "pair:l2"), "0|1");
  cr_expect_eq(shmq_pin_count(pin, "pair:l3"), -ENOSPC);
  cr_expect_eq(shmq_pin_count(pin, "core:1"), -ENOENT);
  cr_expect_eq(shmq_pin_count(pin, "0x7"), -ENOSPC);
  cr_expect_eq(shmq_pin_count(pin, "0xf...f"), 1);
  cr_expect_eq(shmq_pin_count(pin, "numa:1"), -ENOENT, "memory without CPUs: %s",
               shmq_pin_error(pin));
  cr_expect_str_eq(
      list_places(pin, "package:0.numa:1"),
      "error: 'package:0.numa:1': there is no numa:1, only numa:0 to numa:0, for this process");
  cr_expect_eq(shmq_pin_count(pin, "numa:all"), 1);
  cr_expect_eq(shmq_pin_count(pin, "package:all"), 1);

  cr_assert_eq(shmq_pin_self(pin, "core:0", 0, NULL, &bound), 0, "%s", shmq_pin_error(pin));
  cr_expect_str_eq(bound.list, "0-1");
  cr_expect_eq(bound.cpu, 0);
  cr_assert_eq(shmq_pin_self(pin, "core:0.pu:1", 0, NULL, &bound), 0);
  expect_bound_to(0, 1);
  shmq_pin_close(pin);
}

/* None of the CPUs that the process may use is in the topology. */
Test(pin_bind, nothing_of_the_machine_is_ours)
{
  cpu_set_t all = affinity_of(0);
  int last = highest(&all);
  if (last == 0) cr_skip_test("one CPU");
  cpu_set_t one = only(last);
  set_affinity(&one);
  setenv("HWLOC_THISSYSTEM", "1", 1);
  setenv("HWLOC_SYNTHETIC", ONE_CPU, 1);
  shmq_pin *pin = NULL;
  cr_expect_eq(shmq_pin_open(&pin), -ENOSPC);
  cr_expect_null(pin);
}

/* ---- cpusets ----------------------------------------------------------------------------- */

#define CGROUPS "/sys/fs/cgroup/cpuset"

static bool write_file(const char *folder, const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  if (fd >= 0) close(fd);
  return ok;
}

/* In a process of its own, which leaves the group by ending, so that the group can go. */
static int in_cpuset(const char *cpus, int (*test)(const char *folder)) {
  char folder[128];
  int status = 77 << 8;
  snprintf(folder, sizeof(folder), CGROUPS "/shmq.t-pin-%d", (int)getpid());
  if (mkdir(folder, 0700) != 0) return status;
  if (write_file(folder, "cpuset.cpus", cpus) && write_file(folder, "cpuset.mems", "0")) {
    pid_t child = fork();
    if (child == 0) _exit(test(folder));
    waitpid(child, &status, 0);
  }
  rmdir(folder);
  return status;
}

static void expect_passed(int status) {
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) cr_skip_test("may not make a cpuset here");
  cr_expect_eq(status, 0, "check %d", WEXITSTATUS(status));
}

static int open_in_cpuset(const char *folder) {
  char pid[16];
  snprintf(pid, sizeof(pid), "%d", (int)getpid());
  if (!write_file(folder, "tasks", pid)) return 77;
  shmq_pin *pin = NULL;
  if (shmq_pin_open(&pin) != 0) return 1;
  if (shmq_pin_count(pin, "pu:all") != 1) return 2;
  if (shmq_pin_count(pin, "0x2") != -ENOSPC) return 3;
  if (shmq_pin_self(pin, "spread", 1, NULL, NULL) != 0) return 4;
  shmq_pin_close(pin);
  return 0;
}

Test(pin_bind, cpuset_is_respected)
{ expect_passed(in_cpuset("0", open_in_cpuset)); }

/* The cpuset shrinks after the topology was loaded: what the kernel then gives is not what was
 * asked. */
static int shrink_later(const char *folder) {
  char pid[16];
  shmq_bound bound;
  shmq_pin *pin = NULL;
  snprintf(pid, sizeof(pid), "%d", (int)getpid());
  if (shmq_pin_open(&pin) != 0) return 1;
  if (shmq_pin_count(pin, "0x3") != 1) return 77;
  if (!write_file(folder, "tasks", pid)) return 77;
  if (shmq_pin_thread(pin, 0, "0x3", 0, &bound) != -ENOSPC) return 2;
  if (strcmp(bound.list, "0") != 0) return 3;
  if (strstr(shmq_pin_error(pin), "0-1") == NULL) return 4;
  if (shmq_pin_thread(pin, 0, "0x2", 0, &bound) != -ENOSPC) return 5; /* refused, not cut down */
  if (shmq_pin_thread(pin, 0, "0x1", 0, &bound) != 0) return 6;
  shmq_pin_close(pin);
  return 0;
}

Test(pin_bind, cpuset_shrinks)
{ expect_passed(in_cpuset("0", shrink_later)); }
