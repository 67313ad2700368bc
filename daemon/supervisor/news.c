/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known of the children, as lines of key=value words: those that there are, then the obituaries, newest
 * first. The worker shows it to whoever asks.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "supervisor/supervisor.h"

static const char *const states[] = {[CHILD_DOWN] = "down",
                                     [CHILD_STARTING] = "starting",
                                     [CHILD_READY] = "ready",
                                     [CHILD_STOPPING] = "stopping",
                                     [CHILD_FAILED] = "failed"};

static size_t clamp(int n, size_t room) { return n < 0 ? 0 : (size_t)n < room ? (size_t)n : 0; }

static size_t child_line(const struct child *c, char *to, size_t room) {
  return clamp(snprintf(to, room, "child=%s state=%s pid=%d starts=%u deaths=%u\n", c->name,
                        states[c->state], (int)c->pid, c->starts, c->restart.count),
               room);
}

static size_t obituary_line(const struct obituary *o, char *to, size_t room) {
  char status[64], when[32], held[24] = "-";
  if (o->looked) snprintf(held, sizeof held, "%" PRIu64, o->held);
  time_t seconds = (time_t)(o->when_ns / 1000000000);
  struct tm tm;
  gmtime_r(&seconds, &tm);
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
  return clamp(snprintf(to, room,
                        "died=%s pid=%d at=%s uptime_ms=%" PRId64 " sessions=%u held=%s cause=%s\n",
                        o->name, (int)o->pid, when, o->uptime_ns / 1000000, o->sessions, held,
                        status_text(o->status, status)),
               room);
}

size_t news_write(const struct supervisor *sv, char *to, size_t room) {
  size_t n = 0;
  unsigned kept = sv->obituary_count < OBITUARIES ? sv->obituary_count : OBITUARIES;
  for (const struct child *c = sv->children; c; c = c->next) n += child_line(c, to + n, room - n);
  for (unsigned i = 1; i <= kept; i++)
    n += obituary_line(&sv->obituaries[(sv->obituary_count - i) % OBITUARIES], to + n, room - n);
  return n;
}
