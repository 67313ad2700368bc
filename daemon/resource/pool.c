/* SPDX-License-Identifier: Apache-2.0
 *
 * Scarce things that one may use at a time. A token stands for each; a session that ends gives back what it
 * holds, and who has waited longest gets it.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shmq/resource.h"
#include "wait_list.h"

/* Who holds a token. It stands in a file that is mapped, so the next worker knows what sessions that go on have. */
struct holding {
  _Atomic uint32_t held; /* set last and cleared first: the rest is true where it is set */
  int32_t pid;
  uint32_t uid;
  uint32_t reserved;
  uint8_t session[16]; /* session_uuid */
  uint64_t request;    /* that was answered with it */
  int64_t since_ns;
};

struct token {
  char *text;
  struct token *next_free;
};

struct pool {
  struct resource base;
  struct token *tokens;
  struct holding *holdings; /* count of them */
  size_t count;
  struct token *free, **free_end; /* in the order they came back, so that all are used alike */
  struct wait_list waiting;
};

static const struct param params[] = {
    {"tokens", PARAM_TEXT, "", 0, 0, NULL, "the tokens' texts, separated by spaces", PARAM_FIXED},
    {"count", PARAM_COUNT, "0", 0, 65536, NULL, "so many tokens more, named 1, 2, 3 and so on",
     PARAM_FIXED},
    RIGHTS_PARAM,
    SHARD_PARAM,
    {0},
};

/* ---- take and give ---- */

static struct holding *holding_of(const struct pool *p, const struct token *t) {
  return &p->holdings[t - p->tokens];
}

static bool holds(const struct session *session, const struct holding *h) {
  uint8_t own[16];
  session_uuid(session, own);
  return h->held && memcmp(own, h->session, sizeof own) == 0;
}

static void put_free(struct pool *p, struct token *t) {
  holding_of(p, t)->held = 0;
  t->next_free = NULL;
  *p->free_end = t;
  p->free_end = &t->next_free;
}

static void answer_taken(const struct pool *p, struct request *r, const struct token *t) {
  request_value(r, (uint64_t)(t - p->tokens) + 1, 0, t->text, strlen(t->text));
}

static void hand_out(struct pool *p, struct request *r) {
  struct token *t = p->free;
  struct holding *h = holding_of(p, t);
  p->free = t->next_free;
  if (!p->free) p->free_end = &p->free;
  h->pid = session_pid(r->session);
  h->uid = session_uid(r->session);
  h->request = r->in.header.id;
  h->since_ns = shmq_now_ns();
  session_uuid(r->session, h->session);
  h->held = 1;
  /* If we die here, the request comes again and is recognised. */
  answer_taken(p, r, t);
}

/* The token that a worker that has died took for this very request, or NULL. */
static const struct token *taken_before(const struct pool *p, const struct request *r) {
  for (size_t i = 0; r->in.attempts > 1 && i < p->count; i++)
    if (p->holdings[i].request == r->in.header.id && holds(r->session, &p->holdings[i]))
      return &p->tokens[i];
  return NULL;
}

static void hand_out_free(struct pool *p) {
  for (struct request *r; p->free && (r = wait_list_take(&p->waiting));) hand_out(p, r);
}

/* Who comes now is behind those who wait. */
static void serve_take(struct request *r) {
  struct pool *p = (struct pool *)r->resource;
  const struct token *before = taken_before(p, r);
  if (before) {
    answer_taken(p, r, before);
  } else if (request_arg(r, 0) > 1) {
    request_refuse(r, -EINVAL, NULL);
  } else if (p->free && !p->waiting.first) {
    hand_out(p, r);
  } else if (request_arg(r, 0)) {
    wait_list_add(&p->waiting, r);
    hand_out_free(p);
  } else {
    request_refuse(r, -EAGAIN, "every token is taken");
  }
}

static bool may_give(const struct request *r, const struct holding *h) {
  if (holds(r->session, h)) return true;
  return request_arg(r, 1) && (session_uid(r->session) == h->uid || request_may(r, RIGHT_ADMIN));
}

static void serve_give(struct request *r) {
  struct pool *p = (struct pool *)r->resource;
  uint64_t number = request_arg(r, 0);
  struct token *t = number - 1 < p->count ? &p->tokens[number - 1] : NULL;
  const struct holding *h = t ? holding_of(p, t) : NULL;
  if (t && r->in.attempts > 1 && !holds(r->session, h)) {
    request_restarted(r, -ERESTART, SHMQ_EXECUTED_UNKNOWN, "the session does not hold that token now");
    return;
  }
  if (!t || !h->held) {
    request_refuse(r, -ENOENT, t ? "nobody holds that token" : "no such token");
    return;
  }
  if (!may_give(r, h)) {
    request_refuse(r, -EPERM, "another session holds that token");
    return;
  }
  put_free(p, t);
  request_value(r, 0, 0, NULL, 0);
  hand_out_free(p);
}

/* ---- list ---- */

static size_t entry_bytes(const struct token *t) {
  return sizeof(shmq_pool_entry) + ((strlen(t->text) + 7) & ~(size_t)7);
}

static void write_entry(const struct pool *p, const struct token *t, char *to) {
  shmq_pool_entry e = {.token = (uint64_t)(t - p->tokens) + 1, .bytes = (uint32_t)strlen(t->text)};
  const struct holding *h = holding_of(p, t);
  if (h->held) {
    e.since_ns = h->since_ns;
    e.pid = h->pid;
    e.uid = h->uid;
  }
  memset(to, 0, entry_bytes(t));
  memcpy(to, &e, sizeof e);
  memcpy(to + sizeof e, t->text, e.bytes);
}

static void serve_list(struct request *r) {
  struct pool *p = (struct pool *)r->resource;
  size_t filled = 0, i = request_arg(r, 0) < p->count ? (size_t)request_arg(r, 0) : p->count;
  size_t first = i;
  for (; i < p->count && r->in.room - filled >= entry_bytes(&p->tokens[i]); i++) {
    write_entry(p, &p->tokens[i], (char *)r->in.data + filled);
    filled += entry_bytes(&p->tokens[i]);
  }
  if (i == first && i < p->count)
    request_refuse(r, -EMSGSIZE, NULL);
  else
    request_in_place(r, i < p->count ? i : 0, p->waiting.count, filled);
}

/* ---- the table ---- */

static const struct operation operations[] = {{SHMQ_POOL_TAKE, RIGHT_WRITE, serve_take},
                                              {SHMQ_POOL_GIVE, RIGHT_WRITE, serve_give},
                                              {SHMQ_POOL_LIST, RIGHT_READ, serve_list},
                                              {0}};

/* A daemon that drains tells every session to leave, and they may still be using what they hold: nobody else
 * gets it. */
static void pool_leave(struct resource *resource, struct session *session) {
  struct pool *p = (struct pool *)resource;
  wait_list_leave(&p->waiting, session);
  if (resource->shard->daemon->draining) return;
  for (size_t i = 0; i < p->count; i++)
    if (holds(session, &p->holdings[i])) put_free(p, &p->tokens[i]);
  hand_out_free(p);
}

/* What sessions held that ended while there was no worker. */
static void pool_sessions_known(struct resource *resource) {
  struct pool *p = (struct pool *)resource;
  for (size_t i = 0; i < p->count; i++)
    if (p->holdings[i].held && !session_exists(resource->shard->daemon, p->holdings[i].session))
      put_free(p, &p->tokens[i]);
  hand_out_free(p);
}

static int add_token(struct pool *p, const char *text, size_t bytes) {
  struct token *tokens = realloc(p->tokens, (p->count + 1) * sizeof *tokens);
  if (!tokens) return -ENOMEM;
  p->tokens = tokens;
  tokens[p->count] = (struct token){.text = strndup(text, bytes)};
  return tokens[p->count].text ? (p->count++, 0) : -ENOMEM;
}

static int make_tokens(struct pool *p, const struct section *section) {
  int64_t more = section_number(section, "count");
  char name[24];
  int rc = 0;
  for (const char *at = section_text(section, "tokens"); *at && !rc;) {
    size_t n = strcspn(at, " \t");
    if (n) rc = add_token(p, at, n);
    at += n + strspn(at + n, " \t");
  }
  for (int64_t i = 1; i <= more && !rc; i++)
    rc = add_token(p, name, (size_t)snprintf(name, sizeof name, "%lld", (long long)i));
  return rc;
}

/* A file of the right size was written by a worker before us, or by a daemon whose sessions are no more. */
static int open_holdings(const struct resource *resource, size_t bytes) {
  char path[PATH_MAX];
  struct stat st;
  snprintf(path, sizeof path, "%s/pool.%s", resource->shard->daemon->directory, resource->section->name);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return -errno;
  bool good = fstat(fd, &st) == 0 && (size_t)st.st_size == bytes;
  if (good || (ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)bytes) == 0)) return fd;
  int rc = -errno;
  close(fd);
  return rc;
}

/* Without a directory there is no worker after this one either. */
static int map_holdings(struct pool *p) {
  const struct resource *resource = &p->base;
  size_t bytes = p->count * sizeof *p->holdings;
  int fd = resource->shard->daemon->directory ? open_holdings(resource, bytes) : -1;
  if (resource->shard->daemon->directory && fd < 0) return fd;
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
  int rc = at == MAP_FAILED ? -errno : 0;
  if (fd >= 0) close(fd);
  if (!rc) p->holdings = at;
  return rc;
}

static void pool_close(struct resource *resource) {
  struct pool *p = (struct pool *)resource;
  wait_list_close(&p->waiting);
  if (p->holdings) munmap(p->holdings, p->count * sizeof *p->holdings);
  for (size_t i = 0; i < p->count; i++) free(p->tokens[i].text);
  free(p->tokens);
}

static const char *pool_check(const struct section *section, const char **key) {
  const char *tokens = section_text(section, "tokens");
  *key = "tokens";
  return tokens[strspn(tokens, " \t")] || section_number(section, "count") ? NULL : "must be given, or count";
}

static int pool_open(struct resource *resource) {
  struct pool *p = (struct pool *)resource;
  wait_list_open(&p->waiting, resource->shard);
  p->free_end = &p->free;
  int rc = make_tokens(p, resource->section);
  if (!rc) rc = map_holdings(p);
  for (size_t i = 0; !rc && i < p->count; i++)
    if (!p->holdings[i].held) put_free(p, &p->tokens[i]);
  if (!rc) return 0;
  say(SAY_ERROR, "[pool:%s] %s", resource->section->name, strerror(-rc));
  pool_close(resource);
  return rc;
}

const struct resource_kind pool_kind = {.section = {"pool", true, params,
                                                    "Tokens that one session holds at a time", true,
                                                    pool_check},
                                        .bytes = sizeof(struct pool),
                                        .open = pool_open,
                                        .operations = operations,
                                        .leave = pool_leave,
                                        .sessions_known = pool_sessions_known,
                                        .close = pool_close};
