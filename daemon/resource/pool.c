/* SPDX-License-Identifier: Apache-2.0
 *
 * Scarce things that one may use at a time. A token stands for each; a session that ends gives back what it
 * holds, and who has waited longest gets it.
 */
#include <stdlib.h>
#include <string.h>

#include "shmq/resource.h"
#include "wait_list.h"

struct token {
  char *text;
  const struct session *holder; /* NULL: free */
  int64_t since_ns;
  struct token *next_free;
};

struct pool {
  struct resource base;
  struct token *tokens;
  size_t count;
  struct token *free, **free_end; /* in the order they came back, so that all are used alike */
  struct wait_list waiting;
};

static const struct param params[] = {
    {"tokens", PARAM_TEXT, "", 0, 0, NULL, "the tokens' texts, separated by spaces", PARAM_FIXED},
    {"count", PARAM_COUNT, "0", 0, 65536, NULL, "so many tokens more, named 1, 2, 3 and so on",
     PARAM_FIXED},
    RIGHTS_PARAM,
    {0},
};

/* ---- take and give ---- */

static void put_free(struct pool *p, struct token *t) {
  t->holder = NULL;
  t->next_free = NULL;
  *p->free_end = t;
  p->free_end = &t->next_free;
}

static void hand_out(struct pool *p, struct request *r) {
  struct token *t = p->free;
  p->free = t->next_free;
  if (!p->free) p->free_end = &p->free;
  t->holder = r->session;
  t->since_ns = shmq_now_ns();
  request_value(r, (uint64_t)(t - p->tokens) + 1, 0, t->text, strlen(t->text));
}

static void hand_out_free(struct pool *p) {
  for (struct request *r; p->free && (r = wait_list_take(&p->waiting));) hand_out(p, r);
}

/* Who comes now is behind those who wait. */
static void serve_take(struct request *r) {
  struct pool *p = (struct pool *)r->resource;
  if (request_arg(r, 0) > 1) {
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

static bool may_give(const struct request *r, const struct session *holder) {
  if (holder == r->session) return true;
  uint32_t uid = session_uid(r->session);
  return request_arg(r, 1) && (uid == session_uid(holder) || request_may(r, RIGHT_ADMIN));
}

static void serve_give(struct request *r) {
  struct pool *p = (struct pool *)r->resource;
  uint64_t number = request_arg(r, 0);
  struct token *t = number - 1 < p->count ? &p->tokens[number - 1] : NULL;
  if (!t || !t->holder) {
    request_refuse(r, -ENOENT, t ? "nobody holds that token" : "no such token");
    return;
  }
  if (!may_give(r, t->holder)) {
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
  if (t->holder) {
    e.since_ns = t->since_ns;
    e.pid = session_pid(t->holder);
    e.uid = session_uid(t->holder);
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
  if (resource->daemon->draining) return;
  for (size_t i = 0; i < p->count; i++)
    if (p->tokens[i].holder == session) put_free(p, &p->tokens[i]);
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
  return rc ? rc : p->count ? 0 : -EINVAL;
}

static void pool_close(struct resource *resource) {
  struct pool *p = (struct pool *)resource;
  wait_list_close(&p->waiting);
  for (size_t i = 0; i < p->count; i++) free(p->tokens[i].text);
  free(p->tokens);
}

static int pool_open(struct resource *resource) {
  struct pool *p = (struct pool *)resource;
  wait_list_open(&p->waiting, resource->daemon);
  p->free_end = &p->free;
  int rc = make_tokens(p, resource->section);
  for (size_t i = 0; i < p->count; i++) put_free(p, &p->tokens[i]);
  if (!rc) return 0;
  say(SAY_ERROR, "[pool:%s] %s", resource->section->name,
      rc == -EINVAL ? "has no tokens: give it tokens= or count=" : strerror(-rc));
  pool_close(resource);
  return rc;
}

const struct resource_kind pool_kind = {.section = {"pool", true, params,
                                                    "Tokens that one session holds at a time", true},
                                        .bytes = sizeof(struct pool),
                                        .open = pool_open,
                                        .operations = operations,
                                        .leave = pool_leave,
                                        .close = pool_close};
