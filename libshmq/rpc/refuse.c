/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that are not executed. Their askers are told; under SHMQ_NEVER_WAIT one whose reply queue is full is told
 * later, by the calls of shmq_serve that follow, and its request stays leased until then: should this server die,
 * the next one refuses it anew.
 */
#include <stdlib.h>

#include "rpc/service.h"

/* Of its answer nobody outside knows, so nobody would send it: it is not kept back. */
static int tell(shmq_incoming *in, int status, uint8_t executed) {
  shmq_service *s = in->service;
  shmq_answer answer = {
      .status = status, .error_class = (uint8_t)shmq_class_of(status), .executed = executed};
  int rc = shmq_reply_answer(in, &answer);
  (void)shmq_service_flush(s);
  return rc;
}

void shmq__forget(shmq_incoming *in) {
  shmq__request_end(in);
  in->state = INCOMING_DONE;
}

void shmq__refuse(shmq_incoming *in, int status, uint8_t executed) {
  shmq_service *s = in->service;
  if (tell(in, status, executed) != -EAGAIN) return;
  struct refusal *r = malloc(sizeof *r);
  if (!r) {
    shmq__forget(in);
    return;
  }
  *r = (struct refusal){
      .next = s->refusals, .incoming = *in, .status = status, .executed = executed};
  s->refusals = r;
}

static bool is_settled(struct refusal *r) {
  shmq_incoming *in = &r->incoming;
  if (shmq__asker_alive(in->service, &in->header, false))
    return tell(in, r->status, r->executed) != -EAGAIN;
  shmq__forget(in);
  return true;
}

void shmq__refuse_again(shmq_service *s) {
  for (struct refusal **at = &s->refusals, *r; (r = *at);) {
    if (is_settled(r)) {
      *at = r->next;
      free(r);
    } else {
      at = &r->next;
    }
  }
}

void shmq__refusals_free(shmq_service *s) {
  for (struct refusal *r = s->refusals, *next; r; r = next) {
    next = r->next;
    free(r);
  }
}
