/* SPDX-License-Identifier: Apache-2.0 */
#include "inbox.h"

#include <stddef.h>

static struct post asleep; /* in the place of the newest: nothing is there, and the owner sleeps */

/* The release pairs with the acquire of inbox_take. That takes what several threads have put by one exchange: each
 * exchange of theirs carries on the release of those before it. */
bool inbox_put(struct inbox *i, struct post *p) {
  struct post *newest = atomic_load_explicit(&i->newest, memory_order_relaxed);
  do {
    p->next = newest == &asleep ? NULL : newest;
  } while (!atomic_compare_exchange_weak_explicit(&i->newest, &newest, p, memory_order_release,
                                                  memory_order_relaxed));
  return newest == &asleep;
}

static struct post *oldest_first(struct post *list) {
  struct post *turned = NULL;
  for (struct post *next; list; list = next) {
    next = list->next;
    list->next = turned;
    turned = list;
  }
  return turned;
}

struct post *inbox_take(struct inbox *i) {
  if (!atomic_load_explicit(&i->newest, memory_order_relaxed)) return NULL;
  struct post *list = atomic_exchange_explicit(&i->newest, NULL, memory_order_acquire);
  return list == &asleep ? NULL : oldest_first(list);
}

/* Orders nothing: what the sleeper did before is nobody's business who wakes it. */
bool inbox_sleep(struct inbox *i) {
  struct post *nothing = NULL;
  return atomic_compare_exchange_strong_explicit(&i->newest, &nothing, &asleep,
                                                 memory_order_relaxed, memory_order_relaxed) ||
         nothing == &asleep;
}
