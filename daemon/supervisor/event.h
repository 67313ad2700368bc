/* SPDX-License-Identifier: Apache-2.0
 *
 * The supervisor's descriptors. One event is taken at a time, because what handles it may remove the source of
 * another.
 */
#ifndef SHMQD_EVENT_H
#define SHMQD_EVENT_H

#include <stdint.h>
#include <sys/epoll.h>

struct source {
  int fd; /* -1: none */
  void (*ready)(struct source *source, uint32_t events);
};

/* The thing that a source is a member of. */
#define SOURCE_OWNER(source, type, member) ((type *)((char *)(source)-offsetof(type, member)))

/* Watch fd, which is the source's from then on. 0 or a negative errno. */
int source_add(int epoll, struct source *source, int fd, uint32_t events,
               void (*ready)(struct source *source, uint32_t events));
void source_change(int epoll, struct source *source, uint32_t events);
/* Watch it no more, and close it. */
void source_close(int epoll, struct source *source);

/* Handle one event, or wait for it until deadline_ns (CLOCK_MONOTONIC). 0 or a negative errno. */
int source_run(int epoll, int64_t deadline_ns);

#endif
