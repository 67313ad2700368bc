/* SPDX-License-Identifier: Apache-2.0
 *
 * A daemon that guards /dev/shm. What is looked at is looked at by views, which change nothing: what happens is the guard's
 * doing. Each test has a /dev/shm of its own, for a guard minds every segment there is.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include "support/shmqd.h"

static struct shmqd d;

static void begin(void) {
  if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
      mount("shmqd-test", "/dev/shm", "tmpfs", 0, NULL))
    cr_skip_test("no /dev/shm of one's own");
  shmqd_new_with(&d, "[daemon]\nguard = yes\n");
}
static void end(void) {
  if (!d.pid) return;
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_guard, .init = begin, .fini = end, .timeout = 200);

enum { JOBS, DEAD };

static void make(const char *name, uint32_t flags) {
  const shmq_queue_options queues[] = {{.name = "jobs",
                                        .capacity = 8,
                                        .message_bytes = 16,
                                        .flags = flags,
                                        .max_attempts = 2,
                                        .dead_letter = "dead"},
                                       {.name = "dead", .capacity = 8, .message_bytes = 16}};
  const shmq_options o = {.queues = queues, .queue_count = 2, .participants = 8};
  MUST(shmq_create(name, &o));
}

static shmq_queue_info look(const char *name, uint32_t queue) {
  shmq_view *view;
  shmq_queue_info info;
  MUST(shmq_view_open(&view, name));
  MUST(shmq_view_queue(view, queue, &info));
  shmq_view_close(view);
  return info;
}

/* In a process that ends without a word. */
static void put_and_go(const char *name, const shmq_put_options *options) {
  pid_t pid = fork();
  if (pid == 0) {
    shmq *q;
    MUST(shmq_open(&q, name, 0));
    MUST(shmq_put_with(q, "job", 3, options, SHMQ_NOWAIT));
    _exit(0);
  }
  SUCCEEDED(pid);
}

static void die_holding_it(const char *name) {
  pid_t pid = fork();
  if (pid == 0) {
    shmq *q;
    shmq_message m;
    MUST(shmq_open(&q, name, 0));
    MUST(shmq_lease(q, &m, PATIENCE));
    raise(SIGKILL);
  }
  (void)ended(pid);
}

/* It is counted after it was moved. */
static void becomes_a_dead_letter(const char *name) {
  while (!look(name, JOBS).dead_lettered) nap_ms(1);
  cr_assert_eq(look(name, JOBS).dead_lettered, 1);
  cr_assert_eq(look(name, JOBS).depth, 0);
  cr_assert_eq(look(name, DEAD).depth, 1);
}

static void dies_and_is_delivered_again(const char *name) {
  put_and_go(name, NULL);
  die_holding_it(name);
  while (look(name, JOBS).leased) nap_ms(1);
  cr_assert_eq(look(name, JOBS).depth, 1);
  die_holding_it(name); /* which is once too often */
  becomes_a_dead_letter(name);
}

Test(daemon_guard, the_dead_are_recovered_and_dead_letters_are_sorted_out)
{
  make("later", 0);
  dies_and_is_delivered_again("later");
  shmqd_stop(&d, SIGTERM);
  make("earlier", 0);
  shmqd_start(&d);
  dies_and_is_delivered_again("earlier");
  MUST(shmq_unlink("later"));
  make("later", 0); /* another of the name */
  dies_and_is_delivered_again("later");
}

Test(daemon_guard, what_is_too_old_goes_and_what_is_due_is_told)
{
  make("timed", SHMQ_TIMED);
  put_and_go("timed", &(shmq_put_options){.expires_ns = shmq_after_ns(20 * MILLISECOND)});
  becomes_a_dead_letter("timed");

  shmq *q;
  char data[16];
  MUST(shmq_open(&q, "timed", 0));
  put_and_go("timed", &(shmq_put_options){.not_before_ns = shmq_after_ns(100 * MILLISECOND)});
  ssize_t n;
  while ((n = shmq_get(q, data, sizeof data, SHMQ_NOWAIT)) == -EAGAIN) {
    struct pollfd news = {.fd = shmq_event_fd(q), .events = POLLIN};
    int rc = shmq_event_arm(q);
    cr_assert_geq(rc, 0);
    if (rc == 0) cr_assert_eq(poll(&news, 1, 60000), 1, "nobody else would tell");
  }
  cr_assert_eq(n, 3);
  shmq_close(q);
}

static int participants_of(const char *name) {
  shmq_view *view;
  shmq_segment_info info;
  MUST(shmq_view_open(&view, name));
  MUST(shmq_view_segment(view, &info));
  shmq_view_close(view);
  return (int)info.participants;
}

/* Some between the guard's look at who is dead and its taking a pidfd of who is there. */
Test(daemon_guard, whoever_joins_and_dies_at_once_is_recovered)
{
  make("brief", 0);
  while (participants_of("brief") < 1) nap_ms(1);
  for (int i = 0; i < 500; i++) {
    pid_t pid = fork();
    if (pid == 0) {
      shmq_segment *segment;
      MUST(shmq_attach(&segment, "brief"));
      MUST(shmq_join_segment(segment, NULL, NULL));
      int64_t until = shmq_after_ns(i % 100 * 4000);
      while (shmq_now_ns() < until) continue;
      raise(SIGKILL);
    }
    (void)ended(pid);
    while (participants_of("brief") > 1) nap_ms(1);
  }
}

static bool exists(const char *name) {
  shmq_view *view;
  int rc = shmq_view_open(&view, name);
  if (rc == 0) shmq_view_close(view);
  return rc == 0;
}

Test(daemon_guard, orphans_stay_until_it_is_configured_that_they_go)
{
  char path[128];
  shmq *q; /* ours before it could be taken for an orphan */
  make("used", 0);
  MUST(shmq_open(&q, "used", 0));
  MUST(shmq_join_segment(shmq_segment_of(q), NULL, NULL));
  make("orphan", 0);
  dies_and_is_delivered_again("orphan");
  nap_ms(50);
  cr_assert(exists("orphan"));
  snprintf(path, sizeof path, "%s/shmqd.conf", d.dir);
  FILE *config = fopen(path, "w");
  fputs("[daemon]\nguard = yes\nremove_orphans = 10ms\n", config);
  fclose(config);
  kill(d.pid, SIGHUP);
  while (exists("orphan")) nap_ms(1);
  put_and_go("used", NULL);
  nap_ms(50);
  cr_assert(exists("used"));
  shmq_close(q);
  while (exists("used")) nap_ms(1);
}

/* Whoever looks into what was cut off gets SIGBUS: the guard goes on with what is whole. */
Test(daemon_guard, a_segment_that_is_cut_short_costs_nobody_else_anything)
{
  static const off_t lengths[] = {0, 1, 4096, 8192};
  char name[16], path[64];
  for (int i = 0; i < 12; i++) {
    snprintf(name, sizeof name, "cut%d", i);
    make(name, 0);
    put_and_go(name, NULL);
    pid_t holder = fork();
    if (holder == 0) {
      shmq *q;
      shmq_message m;
      MUST(shmq_open(&q, name, 0));
      MUST(shmq_lease(q, &m, PATIENCE));
      for (;;) pause();
    }
    while (!look(name, JOBS).leased || participants_of(name) < 2) nap_ms(1);
    snprintf(path, sizeof path, "/dev/shm/shmq.%s", name);
    MUST(truncate(path, lengths[i % 4]));
    kill(holder, SIGKILL);
    (void)ended(holder);
  }
  make("whole", 0);
  dies_and_is_delivered_again("whole");
  shmq_result r;
  shmq_client *c = shmqd_client(&d);
  cr_assert_eq(shmqd_ask(c, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), 0);
  cr_assert_eq(r.epoch, 1, "by the first worker still");
  shmq_client_close(c);
}

/* The rest is everybody else's. */
Test(daemon_guard, a_guard_takes_half_of_the_descriptors)
{
  char name[16];
  int without = descriptors_of(shmqd_worker(&d));
  shmqd_stop(&d, SIGTERM);
  MUST(setrlimit(RLIMIT_NOFILE, &(struct rlimit){100, 100}));
  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "s%d", i);
    make(name, 0);
  }
  shmqd_start(&d);
  cr_assert_leq(descriptors_of(shmqd_worker(&d)) - without, 50);
  for (int i = 0; i < 5; i++) {
    shmq_result r;
    shmq_client *c = shmqd_client(&d);
    cr_assert_eq(shmqd_ask(c, 0, SHMQ_DAEMON_NULL, 0, 0, NULL, 0, 0, &r), 0);
    shmq_client_close(c);
  }
  int guarded = 0;
  for (int i = 0; i < 100; i++) {
    snprintf(name, sizeof name, "s%d", i);
    guarded += participants_of(name);
  }
  cr_assert_gt(guarded, 0);
}
