/* SPDX-License-Identifier: Apache-2.0
 *
 * Guarding: the daemon watches every segment of /dev/shm that it may open. It learns of segments from
 * inotify, of participants from the segment, and of deaths from pidfds, and lets the library do the rest
 * (shmq_guard). One epoll descriptor gathers all that, and the loop polls it.
 *
 * A segment whose last participant has gone, with messages still in it, is reported as an orphan once; only
 * `remove_orphans` removes it, after that long.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "cut.h"
#include "daemon.h"
#include "shmq/inspect.h"

enum { WATCH_DIRECTORY, WATCH_TIMER, WATCH_SEGMENT, WATCH_PROCESS };
/* Of the directory, the timer and what gathers; of an attachment, a view and what tells that somebody joins. */
enum { GUARD_DESCRIPTORS = 3, WARD_DESCRIPTORS = 3 };

struct ward;

/* What an epoll event points at. */
struct watch {
  int what, fd;
  struct ward *ward;
  uint32_t participant, generation;
  struct watch *next;
};

/* A segment that is guarded. */
struct ward {
  char name[SHMQ_NAME_MAX + 1];
  shmq_segment *segment;
  shmq_view *view;
  struct watch joined;
  struct watch *processes;
  int64_t next_ns;      /* when to tend it, SHMQ_FOREVER: when something happens */
  int64_t orphan_since; /* 0: it has participants beside us */
  bool reported;
  bool seen; /* in the present listing */
  bool cut;  /* somebody has cut its file short: what we have is not what the others have */
  struct ward *next;
};

struct guard {
  struct daemon *daemon;
  int epoll;
  struct watch directory, timer;
  struct ward *wards;
  unsigned descriptors, descriptors_most;
  bool full;   /* it was said that there are no more */
  bool relist; /* what there is may have changed */
  struct io_op op;
};

static int64_t remove_after_ns(const struct guard *g) {
  return section_number(g->daemon->settings, "remove_orphans");
}

/* ---- watches ---- */

/* Anybody may make segments, and write into one that a thousand processes use it. */
static bool take_descriptors(struct guard *g, unsigned n) {
  if (g->descriptors + n <= g->descriptors_most) {
    g->descriptors += n;
    return true;
  }
  if (!g->full) say(SAY_WARNING, "not everything is guarded: half of all descriptors are not enough");
  g->full = true;
  return false;
}

static int watch_add(struct guard *g, struct watch *watch) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = watch};
  return epoll_ctl(g->epoll, EPOLL_CTL_ADD, watch->fd, &event) < 0 ? -errno : 0;
}

static void forget_process(struct guard *g, struct ward *w, struct watch *watch) {
  struct watch **at = &w->processes;
  while (*at && *at != watch) at = &(*at)->next;
  if (!*at) return;
  *at = watch->next;
  close(watch->fd);
  free(watch);
  g->descriptors--;
}

static bool is_watched(const struct ward *w, const shmq_participant_info *info) {
  for (const struct watch *p = w->processes; p; p = p->next)
    if (p->participant == info->index && p->generation == info->generation) return true;
  return false;
}

/* A death that no pidfd can tell (another pid namespace, no permission) is found when somebody blocks. */
static void watch_process(struct guard *g, struct ward *w, const shmq_participant_info *info) {
  if (!take_descriptors(g, 1)) return;
  int fd = (int)syscall(SYS_pidfd_open, info->pid, 0);
  struct watch *watch = fd < 0 ? NULL : calloc(1, sizeof *watch);
  if (!watch) {
    g->descriptors--;
    if (fd >= 0) close(fd);
    return;
  }
  *watch = (struct watch){.what = WATCH_PROCESS,
                          .fd = fd,
                          .ward = w,
                          .participant = info->index,
                          .generation = info->generation,
                          .next = w->processes};
  w->processes = watch;
  if (watch_add(g, watch) < 0) forget_process(g, w, watch);
}

/* ---- wards ---- */

static void ward_free(struct guard *g, struct ward *w) {
  while (w->processes) forget_process(g, w, w->processes);
  shmq_view_close(w->view);
  shmq_detach(w->segment);
  free(w);
  g->descriptors -= WARD_DESCRIPTORS;
}

struct others {
  unsigned living, dead;
};

/* Watch whoever is in it and was not watched, and only then see whether he lives: of a death before that no pidfd tells. */
static struct others watch_participants(struct guard *g, struct ward *w) {
  shmq_segment_info segment;
  shmq_participant_info info;
  struct others others = {0};
  shmq_view_segment(w->view, &segment);
  for (uint32_t i = 1; i <= segment.participants_max; i++) {
    if (shmq_view_participant(w->view, i, &info) < 0 || info.pid == getpid()) continue;
    if (!is_watched(w, &info)) {
      watch_process(g, w, &info);
      if (shmq_view_participant(w->view, i, &info) < 0) continue;
    }
    (*(info.alive ? &others.living : &others.dead))++;
  }
  return others;
}

static uint64_t messages_in(const struct ward *w) {
  shmq_queue_info queue;
  uint64_t n = 0;
  for (uint32_t i = 0; shmq_view_queue(w->view, i, &queue) == 0; i++) n += queue.depth + queue.leased;
  return n;
}

static void tend_by(struct ward *w, int64_t when_ns) {
  if (when_ns < w->next_ns) w->next_ns = when_ns;
}

/* Who leaves and lives on is told by nothing: where that matters it is looked for. */
static void mind_orphan(struct guard *g, struct ward *w, unsigned others) {
  int64_t now = shmq_now_ns(), after = remove_after_ns(g); /* 0: never */
  if (others > 0) {
    w->orphan_since = 0;
    w->reported = false;
    if (after > 0) tend_by(w, now + after);
    return;
  }
  if (w->orphan_since == 0) w->orphan_since = now;
  uint64_t left = messages_in(w);
  if (left > 0 && !w->reported)
    say(SAY_WARNING, "segment %s: nobody is attached, %llu messages are left", w->name,
        (unsigned long long)left);
  w->reported = w->reported || left > 0;
  if (after <= 0) return;
  if (now - w->orphan_since >= after) {
    say(SAY_WARNING, "segment %s: removed, nobody has been attached for the time configured", w->name);
    (void)shmq_unlink(w->name);
  } else {
    tend_by(w, w->orphan_since + after);
  }
}

/* Whom the first look found dead died before there was a pidfd; whoever joins after it is told to us. */
static int recover(struct guard *g, struct ward *w, struct others *others) {
  int first = shmq_guard(w->segment, &w->next_ns);
  if (first < 0) return first;
  *others = watch_participants(g, w);
  if (others->dead == 0) return first;
  int second = shmq_guard(w->segment, &w->next_ns);
  if (second < 0) return second;
  *others = watch_participants(g, w);
  return first + second;
}

static void tend(struct guard *g, struct ward *w) {
  struct others others;
  int recovered = recover(g, w, &others);
  if (recovered == -EBUSY) { /* another guard has it; look again some time */
    w->next_ns = shmq_after_ns(INT64_C(1000000000));
    return;
  }
  if (recovered < 0) {
    say(SAY_WARNING, "segment %s: %s", w->name, shmq_strerror(recovered));
    w->next_ns = SHMQ_FOREVER;
    return;
  }
  if (recovered > 0) say(SAY_INFO, "segment %s: recovered %d dead participants", w->name, recovered);
  mind_orphan(g, w, others.living + others.dead);
}

static void ward_tend(struct guard *g, struct ward *w) {
  unsigned cut = cut_pages();
  if (!w->cut) tend(g, w);
  if (cut_pages() == cut) return;
  say(SAY_WARNING, "segment %s: its file was cut short, it is not guarded any more", w->name);
  w->cut = g->relist = true;
  w->next_ns = SHMQ_FOREVER;
}

/* Arm before looking, so that who joins in between is not missed. */
static void ward_joined(struct guard *g, struct ward *w) {
  int rc = shmq_guard_arm(w->segment);
  if (rc < 0) say(SAY_WARNING, "segment %s: %s", w->name, shmq_strerror(rc));
  ward_tend(g, w);
}

static void ward_add(struct guard *g, const char *name) {
  if (!take_descriptors(g, WARD_DESCRIPTORS)) return;
  struct ward *w = calloc(1, sizeof *w);
  int rc = w ? shmq_attach(&w->segment, name) : -ENOMEM;
  if (rc == 0) rc = shmq_view_open(&w->view, name);
  if (rc == 0) rc = shmq_guard_fd(w->segment);
  if (rc >= 0) {
    snprintf(w->name, sizeof w->name, "%s", name);
    w->joined = (struct watch){.what = WATCH_SEGMENT, .fd = rc, .ward = w};
    rc = watch_add(g, &w->joined);
  }
  if (rc < 0) {
    if (rc != -EACCES) say(SAY_DEBUG, "segment %s is not guarded: %s", name, shmq_strerror(rc));
    if (w)
      ward_free(g, w);
    else
      g->descriptors -= WARD_DESCRIPTORS;
    return;
  }
  w->seen = true;
  w->next = g->wards;
  g->wards = w;
  ward_joined(g, w);
}

/* ---- the directory ---- */

static int found_segment(const char *name, void *ctx) {
  struct guard *g = ctx;
  for (struct ward *w = g->wards; w; w = w->next) {
    if (w->cut || strcmp(w->name, name) != 0) continue;
    uint8_t uuid[16];
    shmq_view *now;
    shmq_segment_info info;
    shmq_segment_uuid(w->segment, uuid);
    if (shmq_view_open(&now, name) < 0) return 0;
    shmq_view_segment(now, &info);
    shmq_view_close(now);
    if (memcmp(info.uuid, uuid, sizeof uuid) != 0) continue; /* removed and made anew */
    w->seen = true;
    return 0;
  }
  ward_add(g, name);
  return 0;
}

static void list_segments(struct guard *g) {
  g->relist = false;
  for (struct ward *w = g->wards; w; w = w->next) w->seen = false;
  (void)shmq_list(found_segment, g);
  for (struct ward **at = &g->wards; *at;) {
    struct ward *w = *at;
    if (w->seen) {
      at = &w->next;
      continue;
    }
    *at = w->next;
    ward_free(g, w);
  }
}

/* ---- events ---- */

static void set_timer(struct guard *g) {
  int64_t next = SHMQ_FOREVER;
  for (struct ward *w = g->wards; w; w = w->next)
    if (w->next_ns < next) next = w->next_ns;
  struct itimerspec when = {.it_value = {0}};
  if (next != SHMQ_FOREVER) {
    when.it_value.tv_sec = next / 1000000000;
    when.it_value.tv_nsec = next % 1000000000;
  }
  (void)timerfd_settime(g->timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void handle(struct guard *g, struct watch *watch) {
  char drained[4096];
  switch (watch->what) {
  case WATCH_DIRECTORY:
    while (read(watch->fd, drained, sizeof drained) > 0) g->relist = true;
    break;
  case WATCH_TIMER:
    if (read(watch->fd, drained, 8) != 8) break;
    for (struct ward *w = g->wards; w; w = w->next)
      if (w->next_ns <= shmq_now_ns()) ward_tend(g, w);
    break;
  case WATCH_SEGMENT: ward_joined(g, watch->ward); break;
  case WATCH_PROCESS: {
    struct ward *w = watch->ward;
    forget_process(g, w, watch);
    ward_tend(g, w);
    break;
  }
  }
}

static void poll_again(struct guard *g);

static void happened(struct io_op *op, int result) {
  struct guard *g = op->buffer;
  struct epoll_event event;
  if (result == -ECANCELED) return;
  /* One at a time: handling an event may free the watch of another. */
  for (int n = 0; n < 64 && epoll_wait(g->epoll, &event, 1, 0) == 1; n++)
    handle(g, event.data.ptr);
  if (g->relist) list_segments(g);
  set_timer(g);
  poll_again(g);
}

void guard_changed(struct daemon *d) {
  if (!d->guard) return;
  for (struct ward *w = d->guard->wards; w; w = w->next) ward_tend(d->guard, w);
  set_timer(d->guard);
}

static void poll_again(struct guard *g) {
  if (g->daemon->draining) return;
  g->op = (struct io_op){
      .what = IO_POLL, .fd = g->epoll, .flags = POLLIN, .buffer = g, .done = happened};
  io_submit(g->daemon->shards->io, &g->op);
}

/* ---- start and end ---- */

static unsigned half_of_descriptors(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur > UINT32_MAX) return UINT32_MAX / 2;
  return (unsigned)limit.rlim_cur / 2;
}

int guard_open(struct daemon *d) {
  if (!section_number(d->settings, "guard")) return 0;
  struct guard *g = calloc(1, sizeof *g);
  if (!g) return -ENOMEM;
  d->guard = g;
  g->daemon = d;
  g->descriptors = GUARD_DESCRIPTORS;
  g->descriptors_most = half_of_descriptors();
  g->epoll = epoll_create1(EPOLL_CLOEXEC);
  g->directory = (struct watch){.what = WATCH_DIRECTORY, .fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK)};
  g->timer = (struct watch){.what = WATCH_TIMER,
                            .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
  int rc = g->epoll < 0 || g->directory.fd < 0 || g->timer.fd < 0 ? -errno : 0;
  /* IN_ATTRIB: creation ends with the segment's mode being set, after its magic word stands. */
  if (rc == 0 && inotify_add_watch(g->directory.fd, "/dev/shm", IN_CREATE | IN_DELETE | IN_ATTRIB) < 0)
    rc = -errno;
  if (rc == 0) rc = watch_add(g, &g->directory);
  if (rc == 0) rc = watch_add(g, &g->timer);
  if (rc < 0) {
    say(SAY_ERROR, "guarding segments: %s", strerror(-rc));
    return rc;
  }
  list_segments(g);
  set_timer(g);
  poll_again(g);
  return 0;
}

void guard_stop(struct daemon *d) {
  static struct io_op cancel;
  if (!d->guard) return;
  cancel = (struct io_op){.what = IO_CANCEL, .target = &d->guard->op};
  io_submit(d->shards->io, &cancel);
}

void guard_close(struct daemon *d) {
  struct guard *g = d->guard;
  if (!g) return;
  while (g->wards) {
    struct ward *w = g->wards;
    g->wards = w->next;
    ward_free(g, w);
  }
  if (g->directory.fd >= 0) close(g->directory.fd);
  if (g->timer.fd >= 0) close(g->timer.fd);
  if (g->epoll >= 0) close(g->epoll);
  free(g);
  d->guard = NULL;
}
