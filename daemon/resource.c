/* SPDX-License-Identifier: Apache-2.0
 *
 * The resources of the configuration.
 */
#include <stdlib.h>

#include "daemon.h"

static const struct resource_kind *const kinds[] = {
    &dir_kind, &log_kind, &kv_kind, &pool_kind, &timer_kind, &stream_kind, &process_kind};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const struct resource_kind *kind_of(const struct section *section) {
  for (int i = 0; i < KINDS; i++)
    if (section->kind == &kinds[i]->section) return kinds[i];
  return NULL;
}

/* If it is not said, in turn, beginning with the second: the first has the guard as well. */
static struct shard *shard_of(const struct daemon *d, const struct section *section,
                              unsigned number) {
  int64_t chosen = section_number(section, "shard");
  return &d->shards[(chosen ? (unsigned)chosen - 1 : number) % d->shard_count];
}

static void add_to_lists(struct daemon *d, struct resource *r) {
  d->resource_count++;
  r->next = d->resources;
  d->resources = r;
  r->shard_next = r->shard->resources;
  r->shard->resources = r;
}

static int open_one(struct daemon *d, const struct resource_kind *kind,
                    const struct section *section) {
  struct resource *r = calloc(1, kind->bytes);
  if (!r) return -ENOMEM;
  r->kind = kind;
  r->section = section;
  r->shard = shard_of(d, section, r->number);
  r->number = (uint16_t)(d->resource_count + 1);
  r->rights = rights_new(section_text(section, "allow"));
  int rc = r->rights ? kind->open(r) : -ENOMEM;
  if (rc) {
    rights_free(r->rights);
    free(r);
    return rc;
  }
  add_to_lists(d, r);
  return 0;
}

int resources_check(struct config *config, struct config_error *error) {
  int64_t shards = section_number(config_section(config, "daemon"), "shards");
  for (const struct section *s = config->sections; s; s = s->next)
    if (kind_of(s) && section_number(s, "shard") > shards)
      return config_complain(error, s, "shard", "is more than there are");
  return 0;
}

int resources_open(struct daemon *d) {
  for (const struct section *s = d->config.sections; s; s = s->next) {
    const struct resource_kind *kind = kind_of(s);
    int rc = kind ? open_one(d, kind, s) : 0;
    if (rc) return rc;
  }
  return 0;
}

/* The newest stand first. */
static void close_above(struct daemon *d, unsigned count) {
  for (struct resource *r; d->resource_count > count; d->resource_count--) {
    r = d->resources;
    d->resources = r->next;
    r->shard->resources = r->shard_next;
    r->kind->close(r);
    rights_free(r->rights);
    free(r);
  }
}

void resources_close(struct daemon *d) { close_above(d, 0); }

int resources_add(struct daemon *d, const struct config *fresh) {
  unsigned before = d->resource_count;
  for (const struct section *s = fresh->sections; s; s = s->next) {
    const struct resource_kind *kind = kind_of(s);
    if (!kind || config_find(&d->config, s->kind, s->name)) continue;
    int rc = open_one(d, kind, s);
    if (!rc) continue;
    close_above(d, before);
    return rc;
  }
  return 0;
}

void resources_turn(struct shard *shard) {
  for (struct resource *r = shard->resources; r; r = r->shard_next)
    if (r->kind->turn) r->kind->turn(r);
}

void resources_know_sessions(struct shard *shard) {
  for (struct resource *r = shard->resources; r; r = r->shard_next)
    if (r->kind->sessions_known) r->kind->sessions_known(r);
}

void resources_leave(struct shard *shard, struct session *session) {
  for (struct resource *r = shard->resources; r; r = r->shard_next)
    if (r->kind->leave) r->kind->leave(r, session);
}

bool resources_idle(const struct shard *shard) {
  for (const struct resource *r = shard->resources; r; r = r->shard_next)
    if (r->kind->idle && !r->kind->idle(r)) return false;
  return true;
}

struct resource *resource_find(struct daemon *d, uint16_t number) {
  struct resource *r = d->resources;
  while (r && r->number != number) r = r->next;
  return r;
}

void resources_changed(struct daemon *d) {
  for (struct resource *r = d->resources; r; r = r->next) {
    struct rights *rights = rights_new(section_text(r->section, "allow"));
    if (rights) {
      rights_free(r->rights);
      r->rights = rights;
    }
    if (r->kind->changed) r->kind->changed(r);
  }
}

/* ---- serving ---- */

size_t resource_answer_most(const struct request *r) {
  int64_t most = section_number(r->resource->shard->daemon->settings, "max_block_bytes");
  return r->in.room > (uint64_t)most ? r->in.room : (size_t)most;
}

static const struct operation *find_operation(const struct resource_kind *kind, uint16_t op) {
  const struct operation *o = kind->operations;
  while (o->serve && o->op != op) o++;
  return o->serve ? o : NULL;
}

bool request_may(const struct request *r, enum right right) {
  return rights_grant(r->resource->rights, session_peer(r->session), right);
}

static int may_serve(const struct request *r, const struct operation *o, const char **why) {
  const struct resource_kind *kind = r->resource->kind;
  *why = "no such operation";
  if (!o) return -EOPNOTSUPP;
  *why = "the resource does not allow you that";
  if (!request_may(r, o->right)) return -EACCES;
  return kind->admit ? kind->admit(r->resource, o, why) : 0;
}

/* A worker that died may have done it, though it would be refused now. Where that is not marked, as in a log, which
 * would recognise it, nobody can tell any more. */
static enum shmq_executed executed_before(const struct request *r, const struct operation *o) {
  return r->in.attempts > 1 && o && o->right != RIGHT_READ ? SHMQ_EXECUTED_UNKNOWN
                                                           : SHMQ_EXECUTED_NO;
}

void resource_serve(struct request *r) {
  const struct resource_kind *kind = r->resource->kind;
  const struct operation *o = find_operation(kind, r->in.header.op);
  bool begun = request_begun(r);
  const char *why;
  int rc = may_serve(r, o, &why);
  if (o && begun && kind->begun)
    kind->begun(r);
  else if (rc)
    request_fail(r, rc, executed_before(r, o), why);
  else
    o->serve(r);
}
