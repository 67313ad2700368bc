/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles: descriptors that a client names by number. A number says which slot of the session's table, and which
 * descriptor in its row it was: a closed handle's number does not come again soon.
 */
#include <stdlib.h>
#include <unistd.h>

#include "session.h"

enum { HANDLE_INDEX_BITS = 16 };

struct handle {
  int fd; /* -1: free */
  uint16_t resource;
  bool closing;
  uint32_t serial;
  uint32_t holds;
};

int handles_open(struct session *s) {
  uint32_t count = (uint32_t)section_number(s->daemon->settings, "handles");
  s->handles = calloc(count, sizeof *s->handles);
  if (!s->handles) return -ENOMEM;
  s->handle_count = count;
  for (uint32_t i = 0; i < count; i++) s->handles[i].fd = -1;
  return 0;
}

void handles_close(struct session *s) {
  for (uint32_t i = 0; i < s->handle_count; i++)
    if (s->handles[i].fd >= 0) close(s->handles[i].fd);
  free(s->handles);
}

static struct handle *find_handle(const struct session *s, uint64_t number) {
  uint64_t i = (number & ((1u << HANDLE_INDEX_BITS) - 1)) - 1;
  if (i >= s->handle_count) return NULL;
  struct handle *h = &s->handles[i];
  return h->fd >= 0 && h->serial == number >> HANDLE_INDEX_BITS ? h : NULL;
}

int64_t handle_add(struct session *s, const struct resource *resource, int fd) {
  for (uint32_t i = 0; i < s->handle_count; i++) {
    struct handle *h = &s->handles[i];
    if (h->fd >= 0) continue;
    *h = (struct handle){
        .fd = fd, .resource = resource->number, .serial = (h->serial + 1) & 0x7fffffff};
    return (int64_t)((uint64_t)h->serial << HANDLE_INDEX_BITS | (i + 1));
  }
  return -EMFILE;
}

int handle_fd(const struct session *s, const struct resource *resource, uint64_t number) {
  const struct handle *h = find_handle(s, number);
  return h && !h->closing && h->resource == resource->number ? h->fd : -EBADF;
}

static void close_if_unused(struct handle *h) {
  if (h->holds || !h->closing) return;
  close(h->fd);
  h->fd = -1;
}

void handle_hold(struct session *s, uint64_t number) {
  struct handle *h = find_handle(s, number);
  if (h) h->holds++;
}

void handle_release(struct session *s, uint64_t number) {
  struct handle *h = find_handle(s, number);
  if (!h || !h->holds) return;
  h->holds--;
  close_if_unused(h);
}

int handle_close(struct session *s, const struct resource *resource, uint64_t number) {
  if (handle_fd(s, resource, number) < 0) return -EBADF;
  struct handle *h = find_handle(s, number);
  h->closing = true;
  close_if_unused(h);
  return 0;
}
