/* SPDX-License-Identifier: Apache-2.0
 *
 * lru SERVICE ENTRIES: the owner of a cache that many processes share and nobody locks.
 *
 *   shmq call SERVICE --op 1 KEY=VALUE     put
 *   shmq call SERVICE --op 2 KEY           get: the value, or an error of the class not-found
 */
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmq/rpc.h>

struct pair {
  struct pair *next, *prev; /* in the order of use; first, for insque(3) and remque(3) */
  char *key, *value;
};

struct cache {
  struct pair order; /* .next was used last, .prev is the next to go */
  void *by_key;       /* a tree of tsearch(3) */
  unsigned entries, most;
};

static int compare(const void *a, const void *b) {
  return strcmp(((const struct pair *)a)->key, ((const struct pair *)b)->key);
}

static struct pair *find(struct cache *c, char *key) {
  struct pair **found = tfind(&(struct pair){.key = key}, &c->by_key, compare);
  return found ? *found : NULL;
}

static void touch(struct cache *c, struct pair *e) {
  remque(e);
  insque(e, &c->order);
}

static void drop(struct cache *c, struct pair *e) {
  remque(e);
  tdelete(e, &c->by_key, compare);
  free(e->key);
  free(e->value);
  free(e);
  c->entries--;
}

static int put(shmq_incoming *in, void *context) {
  struct cache *c = context;
  struct pair *e = calloc(1, sizeof *e);
  char *text = strndup(in->data, in->size); /* a copy: the asker can still write to the original */
  char *equals = text ? strchr(text, '=') : NULL;
  if (!e || !equals) {
    free(text);
    free(e);
    return -EINVAL; /* the loop answers with it */
  }
  *equals = 0;
  *e = (struct pair){.key = text, .value = strdup(equals + 1)};
  struct pair *old = find(c, e->key);
  if (old) drop(c, old);
  if (c->entries == c->most) drop(c, c->order.prev);
  insque(e, &c->order);
  tsearch(e, &c->by_key, compare);
  c->entries++;
  return shmq_reply(in, NULL, 0);
}

static int get(shmq_incoming *in, void *context) {
  struct cache *c = context;
  char *key = strndup(in->data, in->size);
  struct pair *e = key ? find(c, key) : NULL;
  free(key);
  if (!e) return -ENOENT;
  touch(c, e);
  return shmq_reply(in, e->value, strlen(e->value));
}

int main(int argc, char **argv) {
  static const shmq_handler handlers[] = {{1, put}, {2, get}};
  struct cache cache = {.most = argc == 3 ? (unsigned)atoi(argv[2]) : 0};
  if (cache.most == 0) return fputs("usage: lru SERVICE ENTRIES\n", stderr), 2;
  cache.order.next = cache.order.prev = &cache.order;

  shmq_service *service;
  int rc = shmq_service_create(argv[1], &(shmq_service_options){.message_bytes = 1024});
  if (rc == 0 || rc == -EEXIST) rc = shmq_service_open(&service, argv[1], 0);
  if (rc == 0) {
    rc = shmq_service_run(service, handlers, 2, &cache, SHMQ_FOREVER); /* until shmq shutdown */
    shmq_service_close(service);
  }
  while (cache.entries) drop(&cache, cache.order.prev);
  if (rc < 0) fprintf(stderr, "lru: %s\n", shmq_strerror(rc));
  return rc < 0;
}
