/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that wait for something of a resource's, first come first served. A deadline is answered when it
 * passes. A cancellation rings no bell, so it is looked for now and then, while anybody waits.
 */
#ifndef SHMQD_WAIT_LIST_H
#define SHMQD_WAIT_LIST_H

#include "daemon.h"

struct wait_list {
  struct shard *shard;
  struct request *first, **end;
  unsigned count;
  struct alarm look;
  /* The list is about to answer this one with an error: let go of it. May be NULL. */
  void (*refused)(struct request *r);
};

void wait_list_open(struct wait_list *list, struct shard *shard);
void wait_list_close(struct wait_list *list);
void wait_list_add(struct wait_list *list, struct request *r);
/* Take the first that is still wanted; those before it that are not are answered. NULL: nobody waits. */
struct request *wait_list_take(struct wait_list *list);
void wait_list_remove(struct wait_list *list, struct request *r);
/* Answer all, those of one session, with an error; nothing of them was executed. */
void wait_list_fail(struct wait_list *list, int status, const char *text);
void wait_list_leave(struct wait_list *list, const struct session *session);

#endif
