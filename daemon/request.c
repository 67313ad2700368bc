/* SPDX-License-Identifier: Apache-2.0
 *
 * A request's struct, one for each credit, and its one answer.
 */
#include <stdlib.h>
#include <string.h>

#include "session.h"
#include "shard.h"

enum { TAKE_MOST = 8 };

int requests_open(struct session *s) {
  s->requests = calloc(s->credits, sizeof *s->requests);
  if (!s->requests) return -ENOMEM;
  for (uint32_t i = 0; i < s->credits; i++) {
    s->requests[i].next = s->free_requests;
    s->free_requests = &s->requests[i];
  }
  return 0;
}

void requests_close(struct session *s) {
  for (uint32_t i = 0; s->requests && i < s->credits; i++) free(s->requests[i].memory);
  free(s->requests);
}

/* The first n of the free ones. */
static void move_to_taken(struct session *s, int n) {
  struct request **end = &s->taken;
  for (; n > 0; n--) {
    struct request *r = s->free_requests;
    s->free_requests = r->next;
    r->session = s;
    r->resource = NULL;
    r->next = NULL;
    r->memory = NULL;
    *end = r;
    end = &r->next;
  }
}

/* A group is taken at once: the lines in which its requests lie, and its answers go, come from the client's CPU side
 * by side and not one after the other. */
int requests_take(struct session *s, unsigned most) {
  shmq_incoming *in[TAKE_MOST];
  struct request *r = s->free_requests;
  int n = most < TAKE_MOST ? (int)most : TAKE_MOST;
  for (int i = 0; i < n; i++, r = r->next) in[i] = &r->in;
  int rc = shmq_serve_batch(s->service, in, n, SHMQ_NOWAIT);
  if (rc < 0) return rc == -EAGAIN ? 0 : rc;
  s->shard->takes++;
  move_to_taken(s, rc);
  return rc;
}

void request_free(struct request *r) {
  struct session *s = r->session;
  free(r->memory);
  r->memory = NULL;
  r->next = s->free_requests;
  s->free_requests = r;
}

/* An answered request. A client whose reply queue is full has not kept to its credits, or has damaged
 * its memory: there is nobody to tell. */
static void answered(struct request *r, int rc) {
  struct session *s = r->session;
  atomic_store_explicit(&r->rest, REQUEST_BUSY, memory_order_relaxed);
  request_free(r);
  s->in_flight--;
  s->answered = true;
  session_answered(s);
  if (rc == -EAGAIN || rc == -EBADMSG) {
    session_end(s, "its reply queue is full or damaged");
    return;
  }
  if (s->shut && !s->in_flight)
    session_end(s, "its queue was shut");
  else if (s->state == SESSION_OPEN && !s->shut)
    session_make_hot(s); /* a credit is back, and who has an answer often asks again at once */
  else
    session_free_if_over(s);
}

static bool is_gone(struct request *r) { return r->session->state == SESSION_ENDING; }

void request_value(struct request *r, uint64_t value0, uint64_t value1, const void *data,
                   size_t size) {
  uint64_t value[2] = {value0, value1};
  if (r->away)
    request_return(
        r, &(struct answer){
               .form = ANSWER_VALUE, .what.value = {value0, value1}, .data = data, .size = size});
  else
    answered(r, is_gone(r) ? 0 : shmq_reply_value(&r->in, value, data, size));
}

void request_in_place(struct request *r, uint64_t value0, uint64_t value1, size_t size) {
  uint64_t value[2] = {value0, value1};
  if (r->away)
    request_return(
        r, &(struct answer){.form = ANSWER_IN_PLACE, .what.value = {value0, value1}, .size = size});
  else
    answered(r, is_gone(r) ? 0 : shmq_reply_in_place(&r->in, value, size));
}

void request_error(struct request *r, int status, const char *text) {
  if (r->away)
    request_return(
        r, &(struct answer){.form = ANSWER_ERROR, .what = {.status = status, .text = text}});
  else
    answered(r, is_gone(r) ? 0 : shmq_reply_error(&r->in, status, NULL, 0, text));
}

static void answer_stated(struct request *r, const shmq_answer *what) {
  if (r->away)
    request_return(r, &(struct answer){.form = ANSWER_STATED, .what = *what});
  else
    answered(r, is_gone(r) ? 0 : shmq_reply_answer(&r->in, what));
}

void request_fail(struct request *r, int status, enum shmq_executed executed, const char *text) {
  answer_stated(r, &(shmq_answer){.status = status,
                                  .error_class = (uint8_t)shmq_class_of(status),
                                  .executed = (uint8_t)executed,
                                  .text = text});
}

void request_died(struct request *r, int status, const char *text) {
  answer_stated(r, &(shmq_answer){.status = status,
                                  .error_class = SHMQ_CLASS_PEER_DIED,
                                  .executed = SHMQ_EXECUTED_UNKNOWN,
                                  .text = text});
}

void request_restarted(struct request *r, int status, enum shmq_executed executed,
                       const char *text) {
  answer_stated(r, &(shmq_answer){.status = status,
                                  .error_class = SHMQ_CLASS_RESTARTED,
                                  .executed = (uint8_t)executed,
                                  .text = text});
}

void request_answer(struct request *r, const struct answer *a) {
  switch (a->form) {
  case ANSWER_VALUE: request_value(r, a->what.value[0], a->what.value[1], a->data, a->size); return;
  case ANSWER_IN_PLACE: request_in_place(r, a->what.value[0], a->what.value[1], a->size); return;
  case ANSWER_ERROR: request_error(r, a->what.status, a->what.text); return;
  case ANSWER_STATED: answer_stated(r, &a->what); return;
  }
}

/* ---- what is kept for long ---- */

/* A session's queue is a ring: requests that rest are put aside before it comes round to them (aside.c of the library).
 * Only the session's shard moves them, but others may be where their resource is. */
static void lock_places(struct session *s) {
  if (s->elsewhere) pthread_mutex_lock(&s->places);
}

static void unlock_places(struct session *s) {
  if (s->elsewhere) pthread_mutex_unlock(&s->places);
}

void request_make_way(struct request *r) {
  lock_places(r->session);
  /* An error is the client's doing, who has written to what is not his: he loses this request, at most. */
  if (atomic_load_explicit(&r->rest, memory_order_relaxed)) (void)shmq_make_way(&r->in);
  unlock_places(r->session);
}

void requests_make_way(struct session *s) {
  s->unlooked = 0;
  for (uint32_t i = 0; s->in_flight && i < s->credits; i++)
    if (atomic_load_explicit(&s->requests[i].rest, memory_order_relaxed))
      request_make_way(&s->requests[i]);
}

void request_rest(struct request *r, enum request_rest rest) {
  if (r->away) lock_places(r->session);
  atomic_store_explicit(&r->rest, rest, memory_order_relaxed);
  if (r->away)
    unlock_places(r->session);
  else if (rest)
    request_make_way(r);
}

/* ---- what a worker that died had begun ---- */

void request_begin(struct request *r) {
  if (r->away) lock_places(r->session);
  shmq_begin(&r->in);
  if (r->away) unlock_places(r->session);
}

bool request_begun(const struct request *r) {
  return r->in.attempts > 1 && r->in.header.flags & SHMQ_ASK_BEGUN;
}

int request_text(const struct request *r, char *to, size_t room) {
  size_t n = r->in.size;
  if (n >= room) return -ENAMETOOLONG;
  memcpy(to, r->in.data, n);
  to[n] = 0;
  return strlen(to) == n ? (int)n : -EINVAL;
}
