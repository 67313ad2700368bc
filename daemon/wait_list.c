/* SPDX-License-Identifier: Apache-2.0 */
#include "wait_list.h"

enum { LOOK_NS = 100000000 };

static struct request *detach(struct wait_list *l) {
  struct request *list = l->first;
  for (struct request *r = list; r; r = r->next) request_rest(r, REQUEST_BUSY);
  l->first = NULL;
  l->end = &l->first;
  l->count = 0;
  return list;
}

static void append(struct wait_list *l, struct request *r) {
  request_rest(r, REQUEST_PARKED);
  r->next = NULL;
  *l->end = r;
  l->end = &r->next;
  l->count++;
}

static void look_by(struct wait_list *l, int64_t deadline_ns) {
  int64_t look = shmq_after_ns(LOOK_NS);
  if (deadline_ns < look) look = deadline_ns;
  if (!l->look.set || look < l->look.due_ns) alarm_set(&l->shard->alarms, &l->look, look);
}

static void fail(const struct wait_list *l, struct request *r, int status, const char *text) {
  if (l->refused) l->refused(r);
  request_fail(r, status, SHMQ_EXECUTED_NO, text);
}

static void refuse(const struct wait_list *l, struct request *r) {
  int64_t deadline = r->in.header.deadline_ns;
  bool late = deadline != SHMQ_FOREVER && deadline <= shmq_now_ns();
  fail(l, r, late ? -ETIMEDOUT : -ECANCELED, NULL);
}

static void look(struct alarm *alarm) {
  struct wait_list *l = (struct wait_list *)((char *)alarm - offsetof(struct wait_list, look));
  for (struct request *r = detach(l), *next; r; r = next) {
    next = r->next;
    if (request_cancelled(r))
      refuse(l, r);
    else
      wait_list_add(l, r);
  }
}

void wait_list_open(struct wait_list *l, struct shard *shard) {
  *l = (struct wait_list){.shard = shard, .look.ring = look};
  l->end = &l->first;
}

void wait_list_close(struct wait_list *l) { alarm_clear(&l->shard->alarms, &l->look); }

void wait_list_add(struct wait_list *l, struct request *r) {
  append(l, r);
  look_by(l, r->in.header.deadline_ns);
}

struct request *wait_list_take(struct wait_list *l) {
  for (struct request *r; (r = l->first);) {
    l->first = r->next;
    if (!l->first) l->end = &l->first;
    l->count--;
    request_rest(r, REQUEST_BUSY);
    if (!request_cancelled(r)) return r;
    refuse(l, r);
  }
  return NULL;
}

void wait_list_remove(struct wait_list *l, struct request *r) {
  struct request **at = &l->first;
  while (*at && *at != r) at = &(*at)->next;
  if (!*at) return;
  *at = r->next;
  if (!*at) l->end = at;
  l->count--;
  request_rest(r, REQUEST_BUSY);
}

static void fail_those(struct wait_list *l, const struct session *session, int status,
                       const char *text) {
  for (struct request *r = detach(l), *next; r; r = next) {
    next = r->next;
    if (!session || r->session == session)
      fail(l, r, status, text);
    else
      append(l, r);
  }
}

void wait_list_fail(struct wait_list *l, int status, const char *text) {
  fail_those(l, NULL, status, text);
}

void wait_list_leave(struct wait_list *l, const struct session *session) {
  fail_those(l, session, -ECANCELED, NULL);
}
