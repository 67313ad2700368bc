/* SPDX-License-Identifier: Apache-2.0
 *
 * The lister: it asks the daemon for one directory after the other and puts every file's name on the
 * queue. Several directories are asked for at once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmq/rpc.h>

#include "treehash.h"

enum { LISTS = 8, ROOM = 64 << 10 };

struct directory {
  struct directory *next;
  char path[];
};

struct listing {
  shmq_future *future;
  struct directory *directory;
  uint64_t cursor;
};

struct lister {
  shmq_client *client;
  shmq *names;
  uint16_t tree;
  struct directory *waiting; /* directories still to be listed */
  struct listing lists[LISTS];
  int under_way;
};

static int push_directory(struct lister *l, const char *parent, const char *name) {
  size_t n = strlen(parent) + 1 + strlen(name) + 1;
  struct directory *d = malloc(sizeof *d + n);
  if (!d) return -ENOMEM;
  snprintf(d->path, n, "%s%s%s", parent, *parent ? "/" : "", name);
  d->next = l->waiting;
  l->waiting = d;
  return 0;
}

static int put_file(struct lister *l, const char *parent, const char *name) {
  char path[NAME_MAX_BYTES];
  int n = snprintf(path, sizeof path, "%s%s%s", parent, *parent ? "/" : "", name);
  if (n >= (int)sizeof path) return -ENAMETOOLONG;
  return shmq_put(l->names, path, (size_t)n, SHMQ_FOREVER);
}

static int ask(struct lister *l, struct listing *list) {
  struct iovec path = {.iov_base = list->directory->path, .iov_len = strlen(list->directory->path)};
  shmq_ask a = {.resource = l->tree,
                .op = SHMQ_DIR_LIST,
                .flags = SHMQ_ASK_IDEMPOTENT,
                .value = {list->cursor, 0},
                .parts = &path,
                .part_count = 1,
                .room = ROOM};
  return shmq_request(l->client, &a, SHMQ_FOREVER, &list->future);
}

static int take_entries(struct lister *l, const char *parent, const char *data, size_t size) {
  int rc = 0;
  for (const char *p = data; !rc && p < data + size; p += strlen(p) + 1) {
    char type = *p;
    if (type == 'f') rc = put_file(l, parent, p + 1);
    if (type == 'd') rc = push_directory(l, parent, p + 1);
  }
  return rc;
}

static void finish(struct lister *l, struct listing *list) {
  free(list->directory);
  list->directory = NULL;
  l->under_way--;
}

static int collect(struct lister *l, struct listing *list) {
  shmq_result r;
  int rc = shmq_await(list->future, &r, SHMQ_FOREVER);
  if (rc == -ERESTART) { /* the daemon's worker died as it answered */
    shmq_future_free(list->future);
    return ask(l, list);
  }
  if (rc) {
    fprintf(stderr, "treehash: cannot list %s: %s\n", list->directory->path, shmq_strerror(rc));
    shmq_future_free(list->future);
    finish(l, list);
    return rc == -EACCES || rc == -ENOENT || rc == -EXDEV ? 0 : rc;
  }
  rc = take_entries(l, list->directory->path, r.data, r.size);
  list->cursor = r.value[0];
  shmq_future_free(list->future);
  if (!rc && list->cursor) return ask(l, list);
  finish(l, list);
  return rc;
}

static int begin_lists(struct lister *l) {
  for (int i = 0; i < LISTS && l->waiting; i++) {
    struct listing *list = &l->lists[i];
    if (list->directory) continue;
    list->directory = l->waiting;
    l->waiting = list->directory->next;
    list->cursor = 0;
    l->under_way++;
    int rc = ask(l, list);
    if (rc) return rc;
  }
  return 0;
}

static int list_tree(struct lister *l) {
  int rc = push_directory(l, "", "");
  while (!rc && (l->waiting || l->under_way)) {
    rc = begin_lists(l);
    for (int i = 0; !rc && i < LISTS; i++)
      if (l->lists[i].directory && shmq_poll(l->lists[i].future)) rc = collect(l, &l->lists[i]);
    for (int i = 0; !rc && i < LISTS && l->under_way && !l->waiting; i++)
      if (l->lists[i].directory) {
        rc = collect(l, &l->lists[i]);
        break;
      }
  }
  return rc;
}

int run_lister(const struct treehash *t) {
  struct lister l = {0};
  shmq_session_options options = {.credits = LISTS * 2, .blocks = LISTS + 2, .block_bytes = ROOM};
  int rc = shmq_client_connect(&l.client, t->socket, &options, 0);
  if (!rc) rc = shmq_open(&l.names, t->queue, 0);
  if (!rc) rc = shmq_join_segment(shmq_segment_of(l.names), "lister", NULL);
  if (!rc) {
    int tree = shmq_resource(l.client, "tree");
    l.tree = (uint16_t)tree;
    rc = tree < 0 ? tree : list_tree(&l);
  }
  if (rc) fprintf(stderr, "treehash: lister: %s\n", shmq_strerror(rc));
  shmq_close(l.names);
  shmq_client_close(l.client);
  return rc ? 1 : 0;
}
