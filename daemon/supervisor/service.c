/* SPDX-License-Identifier: Apache-2.0
 *
 * The instances of services: starting in order, readiness, watchdogs, recycling. Their lives are child.c's.
 */
#include "supervisor/service.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"
#include "notify.h"
#include "rlimits.h"
#include "supervisor/output.h"
#include "supervisor/supervisor.h"

enum { READY_NONE, READY_NEWLINE, READY_NOTIFY };
enum { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };
static const int64_t look_ns = 1000000000, abort_grace_ns = 2000000000;

struct service;

struct instance {
  struct child child;
  struct service *service;
  unsigned number;
  struct output output;
  struct source ready; /* our end of the pipe that a newline comes through */
  int64_t alive_ns;    /* when the watchdog last heard of it */
  bool aborted;        /* by the watchdog */
};

struct service {
  struct supervisor *supervisor;
  const struct section *section;
  struct restart_policy policy;
  struct service *next;
  unsigned count;
  bool begun;
  struct instance *instances;
};

static const struct param params[] = {
    {"command", PARAM_TEXT, NULL, 0, 0, NULL,
     "what to run: words and quotes as in a shell, variables too, but no commands in commands. "
     "SHMQ_INSTANCE is the number of the instance, from 0",
     PARAM_FIXED},
    {"instances", PARAM_COUNT, "1", 1, 64, NULL, "how many of it", PARAM_FIXED},
    {"pin", PARAM_TEXT, "none", 0, 0, NULL,
     "places, as shmq topo names them: each instance gets the next one", PARAM_FIXED},
    {"after", PARAM_TEXT, "", 0, 0, NULL, "services that must be ready first", PARAM_FIXED},
    {"ready", PARAM_CHOICE, "none", 0, 0, "none|newline|notify",
     "how it says that it is ready: it is so once it runs, by a newline to descriptor 3, or by "
     "sd_notify(3)",
     PARAM_FIXED},
    {"start_timeout", PARAM_DURATION, "30s", 1000000, INT64_MAX, NULL,
     "killed if it is not ready by then", PARAM_FIXED},
    {"stop_timeout", PARAM_DURATION, "10s", 0, INT64_MAX, NULL,
     "killed if it does not end so long after SIGTERM", PARAM_FIXED},
    {"restart", PARAM_CHOICE, "always", 0, 0, "always|on-failure|never",
     "when it is started again; never after exit status 125", PARAM_FIXED},
    RESTART_PARAMS("30s"),
    {"watchdog", PARAM_DURATION, "0s", 0, INT64_MAX / 4, NULL,
     "killed if it does not say WATCHDOG=1 by sd_notify(3) so often; 0s: it need not", PARAM_FIXED},
    {"segment", PARAM_TEXT, "", 0, 0, NULL,
     "the segment that it serves: who dies is recovered at once, and what it held is reported",
     PARAM_FIXED},
    {"recycle_requests", PARAM_COUNT, "0", 0, INT64_C(1) << 62, NULL,
     "started anew after it has taken so many messages of its segment; 0: never", PARAM_FIXED},
    {"recycle_rss", PARAM_BYTES, "0", 0, INT64_C(1) << 50, NULL,
     "started anew when it uses so much memory; 0: never", PARAM_FIXED},
    {"log_lines", PARAM_COUNT, "100", 0, 1000000, NULL,
     "lines of its output that are logged in a second; 0: all", PARAM_FIXED},
    LIMIT_PARAMS,
    {0},
};
static const char *check(const struct section *s, const char **key) {
  *key = "segment";
  if (section_number(s, "recycle_requests") && !*section_text(s, "segment"))
    return "must be given for recycle_requests";
  *key = "command";
  return command_check(section_text(s, "command"));
}

const struct section_kind service_kind = {.name = "service",
                                          .named = true,
                                          .params = params,
                                          .help = "A program that is started and watched",
                                          .check = check};

struct restart_policy restart_policy_of(const struct section *s) {
  return (struct restart_policy){.first_ns = section_number(s, "restart_first"),
                                 .most_ns = section_number(s, "restart_most"),
                                 .reset_ns = section_number(s, "restart_reset"),
                                 .failures = (unsigned)section_number(s, "restart_failures"),
                                 .within_ns = section_number(s, "restart_within")};
}

static struct instance *instance_of(struct child *c) { return (struct instance *)c; }

static int64_t setting(const struct instance *i, const char *key) {
  return section_number(i->service->section, key);
}

/* ---- order ---- */

static bool comes_after(const struct service *s, const struct service *other) {
  return service_names(section_text(s->section, "after"), other->section->name);
}

static bool in_state(const struct service *s, enum child_state state) {
  for (unsigned i = 0; i < s->count; i++)
    if (s->instances[i].child.state != state) return false;
  return true;
}

static bool is_gone(const struct service *s) {
  for (unsigned i = 0; i < s->count; i++)
    if (s->instances[i].child.pid) return false;
  return true;
}

static void begin(struct service *s) {
  for (const struct service *o = s->supervisor->services; o; o = o->next)
    if (comes_after(s, o) && !in_state(o, CHILD_READY)) return;
  s->begun = true;
  for (unsigned i = 0; i < s->count; i++) child_start(&s->instances[i].child);
}

static void end(struct service *s) {
  bool at_once = shmq_now_ns() >= s->supervisor->drain_until_ns;
  for (const struct service *o = s->supervisor->services; o && !at_once; o = o->next)
    if (comes_after(o, s) && !is_gone(o)) return;
  for (unsigned i = 0; i < s->count; i++) {
    struct child *c = &s->instances[i].child;
    if (c->state != CHILD_STOPPING || at_once)
      child_stop(c, at_once ? 0 : setting(&s->instances[i], "stop_timeout"));
  }
}

void services_go_on(struct supervisor *sv) {
  for (struct service *s = sv->services; s; s = s->next) {
    if (sv->draining)
      end(s);
    else if (!s->begun)
      begin(s);
  }
}

/* ---- starting ---- */

static void set_number(const char *name, long long value) {
  char text[32];
  snprintf(text, sizeof text, "%lld", value);
  setenv(name, text, 1);
}

/* In the child. */
static int run(void *ctx) {
  const struct instance *i = ctx;
  wordexp_t words;
  char path[sizeof(((struct supervisor *)0)->directory) + 16];
  setenv("SHMQ_SERVICE", i->service->section->name, 1);
  set_number("SHMQ_INSTANCE", i->number);
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  unsetenv("LISTEN_FDS");
  if (setting(i, "ready") == READY_NOTIFY || setting(i, "watchdog")) {
    snprintf(path, sizeof path, "%s/notify", i->service->supervisor->directory);
    setenv("NOTIFY_SOCKET", path, 1);
  }
  if (setting(i, "watchdog")) set_number("WATCHDOG_USEC", setting(i, "watchdog") / 1000);
  if (command_split(section_text(i->service->section, "command"), &words)) return 126;
  struct limits limits;
  limits_read(&limits, i->service->section);
  errno = -limits_set(&limits);
  if (!errno) execvp(words.we_wordv[0], words.we_wordv);
  say(SAY_ERROR, "%s: %s", words.we_wordv[0], strerror(errno));
  return 127;
}

static void ready_news(struct source *source, uint32_t events) {
  struct instance *i = SOURCE_OWNER(source, struct instance, ready);
  char byte;
  (void)events;
  if (read(source->fd, &byte, 1) == 1) {
    if (byte == '\n') child_ready(&i->child);
    return;
  }
  source_close(i->service->supervisor->epoll, source);
}

static int open_ready(struct instance *i, int *child_end) {
  int ends[2];
  *child_end = -1;
  if (setting(i, "ready") != READY_NEWLINE) return 0;
  if (pipe2(ends, O_CLOEXEC)) return -errno;
  *child_end = ends[1];
  return source_add(i->service->supervisor->epoll, &i->ready, ends[0], EPOLLIN, ready_news);
}

static void close_both(int first, int second) {
  if (first >= 0) close(first);
  if (second >= 0) close(second);
}

static int start(struct child *c) {
  struct instance *i = instance_of(c);
  struct supervisor *sv = c->supervisor;
  int output = -1, ready = -1;
  source_close(sv->epoll, &i->ready);
  output_close(&i->output); /* whoever still writes to the old pipe was the dead one's child */
  i->aborted = false;
  int rc = output_open(&i->output, sv->epoll, c->name, (unsigned)setting(i, "log_lines"), &output);
  if (!rc) rc = open_ready(i, &ready);
  const struct spawn s = {.run = run,
                          .ctx = i,
                          .output = output,
                          .keep = {ready},
                          .keep_count = ready >= 0,
                          .parent_death = SIGTERM,
                          .places = section_text(i->service->section, "pin"),
                          .place = i->number};
  if (!rc) rc = child_spawn(c, &s);
  close_both(output, ready);
  if (rc) return rc;
  c->due_ns = shmq_after_ns(setting(i, "start_timeout"));
  if (setting(i, "ready") == READY_NONE) child_ready(c);
  return 0;
}

static void stop(struct child *c) { kill(-c->pid, SIGTERM); }

static bool wanted_again(const struct child *c, int status) {
  int64_t restart = section_number(((const struct instance *)c)->service->section, "restart");
  return restart == RESTART_ALWAYS || (restart == RESTART_ON_FAILURE && status != 0);
}

/* ---- what is done now and then ---- */

static int64_t resident_bytes(pid_t pid) {
  char path[64];
  long long pages = 0;
  snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  if (fscanf(file, "%*s %lld", &pages) != 1) pages = 0;
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE);
}

static void recycle(struct instance *i, const char *why) {
  say(SAY_NOTICE, "%s %d: started anew: %s", i->child.name, (int)i->child.pid, why);
  i->child.again = true;
  child_stop(&i->child, setting(i, "stop_timeout"));
}

/* It is silent. It may leave a core first. */
static void bite(struct instance *i) {
  struct child *c = &i->child;
  say(SAY_ERROR, "%s %d: the watchdog has not heard of it", c->name, (int)c->pid);
  kill(-c->pid, i->aborted ? SIGKILL : SIGABRT);
  i->aborted = true;
  c->due_ns = shmq_after_ns(abort_grace_ns);
}

static void tick_later(struct instance *i) {
  int64_t watchdog = setting(i, "watchdog"), look = SHMQ_FOREVER;
  if (setting(i, "recycle_rss") || setting(i, "recycle_requests")) look = shmq_after_ns(look_ns);
  if (watchdog && i->alive_ns + watchdog < look) look = i->alive_ns + watchdog;
  i->child.due_ns = look;
}

static void tick(struct child *c) {
  struct instance *i = instance_of(c);
  int64_t watchdog = setting(i, "watchdog"), rss = setting(i, "recycle_rss");
  if (watchdog && shmq_now_ns() - i->alive_ns >= watchdog) {
    bite(i);
    return;
  }
  if (rss && resident_bytes(c->pid) >= rss) {
    recycle(i, "its memory");
    return;
  }
  if (setting(i, "recycle_requests"))
    worker_look(c->supervisor, section_text(i->service->section, "segment"), c->pid);
  tick_later(i);
}

static void became_ready(struct child *c) {
  instance_of(c)->alive_ns = shmq_now_ns();
  tick_later(instance_of(c));
  services_go_on(c->supervisor);
}

static void died(struct child *c, int status) {
  struct instance *i = instance_of(c);
  const char *segment = section_text(i->service->section, "segment");
  (void)status;
  source_close(c->supervisor->epoll, &i->ready);
  if (*segment) worker_look(c->supervisor, segment, c->died_pid);
  services_go_on(c->supervisor);
}

static struct child *find_child(const struct supervisor *sv, pid_t pid) {
  struct child *c = sv->children;
  while (c && c->pid != pid) c = c->next;
  return c;
}

void services_seen(struct supervisor *sv, const struct channel_message *m) {
  struct service_look look;
  if (m->text_bytes != sizeof look) return;
  memcpy(&look, m->text, sizeof look);
  struct child *c = find_child(sv, look.pid);
  if (!c) {
    obituary_seen(sv, &look);
    return;
  }
  if (c->state != CHILD_READY || c == &sv->worker.child) return;
  struct instance *i = instance_of(c);
  int64_t most = setting(i, "recycle_requests");
  if (most && look.taken >= (uint64_t)most) recycle(i, "its requests");
}

/* ---- sd_notify(3) ---- */

static void heard(struct supervisor *sv, pid_t pid, char *text) {
  struct child *c = find_child(sv, pid);
  if (!c || c == &sv->worker.child) return;
  struct instance *i = instance_of(c);
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    if (strcmp(line, "WATCHDOG=1") == 0) i->alive_ns = shmq_now_ns();
    if (strcmp(line, "READY=1") == 0 && setting(i, "ready") == READY_NOTIFY) child_ready(c);
  }
}

void services_notified(struct source *source, uint32_t events) {
  struct supervisor *sv = SOURCE_OWNER(source, struct supervisor, notify);
  char text[1024];
  pid_t pid;
  (void)events;
  ssize_t n = notify_receive(source->fd, text, sizeof text - 1, &pid);
  if (n < 0) return;
  text[n] = 0;
  heard(sv, pid, text);
}

/* ---- open and close ---- */

static int add_instances(struct service *s) {
  s->instances = calloc(s->count, sizeof *s->instances);
  if (!s->instances) return -ENOMEM;
  for (unsigned n = 0; n < s->count; n++) {
    struct instance *i = &s->instances[n];
    char name[64];
    snprintf(name, sizeof name, s->count > 1 ? "%.50s.%u" : "%.50s", s->section->name, n);
    child_init(&i->child, s->supervisor, name, &s->policy);
    i->service = s;
    i->number = n;
    i->ready.fd = i->output.source.fd = -1;
    i->child.start = start;
    i->child.stop = stop;
    i->child.died = died;
    i->child.tick = tick;
    i->child.became_ready = became_ready;
    i->child.wanted_again = wanted_again;
  }
  return 0;
}

int services_open(struct supervisor *sv) {
  struct service **end_of = &sv->services;
  for (const struct section *section = sv->config.sections; section; section = section->next) {
    if (section->kind != &service_kind) continue;
    struct service *s = calloc(1, sizeof *s);
    if (!s) return -ENOMEM;
    *s = (struct service){.supervisor = sv,
                          .section = section,
                          .policy = restart_policy_of(section),
                          .count = (unsigned)section_number(section, "instances")};
    *end_of = s;
    end_of = &s->next;
    int rc = add_instances(s);
    if (rc) return rc;
  }
  return 0;
}

void services_close(struct supervisor *sv) {
  for (struct service *s = sv->services, *next; s; s = next) {
    next = s->next;
    for (unsigned i = 0; s->instances && i < s->count; i++) {
      source_close(sv->epoll, &s->instances[i].ready);
      output_close(&s->instances[i].output);
    }
    free(s->instances);
    free(s);
  }
  sv->services = NULL;
}
