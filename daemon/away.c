/* SPDX-License-Identifier: Apache-2.0
 *
 * A request for a resource of another shard goes there and comes back with its answer, for only its session's shard may
 * touch the session: its queues, its credits, what is under way for it. What one shard sends to another arrives in
 * order, so requests for one resource are served in the order in which they were taken, and a session leaves a shard
 * behind its last request to it.
 */
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "shard.h"

enum { LOOK_NS = 100000000 };

static struct request *request_of(struct post *post) {
  return (struct request *)((char *)post - offsetof(struct request, post));
}

/* ---- there ---- */

static void arrived(struct post *post) { resource_serve(request_of(post)); }

/* ---- cancellation ---- */

/* Only the session's shard may look into its cancel queue, so it does, and tells the resource's by a flag. The
 * deadline is for everybody to see. Of the header, what the other shard may change is not looked at. */
static void look_whether_wanted(struct request *r) {
  const shmq_request_header *h = &r->in.header;
  shmq_incoming in = {.header = {.id = h->id,
                                 .asker = h->asker,
                                 .generation = h->generation,
                                 .slot = h->slot,
                                 .deadline_ns = SHMQ_FOREVER},
                      .service = r->in.service};
  if (shmq_cancelled(&in)) atomic_store_explicit(&r->unwanted, true, memory_order_relaxed);
}

static void look(struct alarm *alarm) {
  struct shard *shard = (struct shard *)((char *)alarm - offsetof(struct shard, away_look));
  for (struct session *s = shard->sessions; s; s = s->next)
    for (uint32_t i = 0; s->in_flight && i < s->credits; i++)
      if (s->requests[i].away) {
        look_whether_wanted(&s->requests[i]);
        request_make_way(&s->requests[i]);
      }
  if (shard->away) alarm_set(&shard->alarms, alarm, shmq_after_ns(LOOK_NS));
}

bool request_cancelled(struct request *r) {
  int64_t deadline = r->in.header.deadline_ns;
  if (!r->away) return shmq_cancelled(&r->in);
  return atomic_load_explicit(&r->unwanted, memory_order_relaxed) ||
         (deadline != SHMQ_FOREVER && deadline <= shmq_now_ns());
}

/* ---- going ---- */

void request_send(struct request *r) {
  struct session *s = r->session;
  struct shard *from = s->shard, *to = r->resource->shard;
  r->away = true;
  r->unwanted = false;
  r->post.deliver = arrived;
  s->elsewhere[to->index].visited = true;
  from->away++;
  from->away_look.ring = look;
  if (!from->away_look.set) alarm_set(&from->alarms, &from->away_look, shmq_after_ns(LOOK_NS));
  shard_post(to, &r->post);
}

/* ---- coming back ---- */

static void returned(struct post *post) {
  struct request *r = request_of(post);
  struct answer a = r->answer;
  r->away = false;
  r->session->shard->away--;
  request_answer(r, &a);
}

/* What it points to may be gone by the time it is looked at. */
static bool keep_data(struct request *r, struct answer *a) {
  if (!a->size || a->data == r->memory) return true;
  void *copy = malloc(a->size);
  if (!copy) return false;
  memcpy(copy, a->data, a->size);
  free(r->memory);
  r->memory = copy;
  a->data = copy;
  return true;
}

void request_return(struct request *r, const struct answer *answer) {
  struct answer a = *answer;
  if (a.form == ANSWER_VALUE && !keep_data(r, &a))
    a = (struct answer){.form = ANSWER_STATED,
                        .what = {.status = -ENOMEM,
                                 .error_class = (uint8_t)shmq_class_of(-ENOMEM),
                                 .executed = SHMQ_EXECUTED_YES}};
  r->answer = a;
  request_rest(r, REQUEST_BUSY);
  r->post.deliver = returned;
  shard_post(r->session->shard, &r->post);
}

/* ---- leaving ---- */

int elsewhere_open(struct session *s) {
  struct daemon *d = s->shard->daemon;
  if (d->shard_count == 1) return 0;
  s->elsewhere = calloc(d->shard_count, sizeof *s->elsewhere);
  if (!s->elsewhere) return -ENOMEM;
  pthread_mutex_init(&s->places, NULL);
  for (unsigned i = 0; i < d->shard_count; i++) {
    s->elsewhere[i].session = s;
    s->elsewhere[i].shard = &d->shards[i];
  }
  return 0;
}

void elsewhere_close(struct session *s) { free(s->elsewhere); }

static void leave(struct elsewhere *e);

static void has_left(struct post *post) {
  struct elsewhere *e = (struct elsewhere *)post;
  struct session *s = e->session;
  e->leaving = false;
  s->polls--;
  if (e->again) leave(e);
  session_free_if_over(s);
}

static void leave_here(struct post *post) {
  struct elsewhere *e = (struct elsewhere *)post;
  resources_leave(e->shard, e->session);
  e->post.deliver = has_left;
  shard_post(e->session->shard, &e->post);
}

static void leave(struct elsewhere *e) {
  e->again = e->leaving;
  if (e->leaving) return;
  e->leaving = true;
  e->session->polls++;
  e->post.deliver = leave_here;
  shard_post(e->shard, &e->post);
}

void session_leave_others(struct session *s) {
  for (unsigned i = 0; s->elsewhere && i < s->shard->daemon->shard_count; i++)
    if (s->elsewhere[i].visited) leave(&s->elsewhere[i]);
}
