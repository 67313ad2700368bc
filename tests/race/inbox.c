/* SPDX-License-Identifier: Apache-2.0
 *
 * The inbox of a shard: several threads send to one and are sent their posts back. Nothing is lost, each sender's come
 * in its order, what is in them is seen, and nobody sleeps who was sent something.
 */
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>

#include "inbox.h"
#include "support/check.h"

enum { SENDERS = 3, WINDOW = 4, POSTS = 40000 };

struct side {
  struct inbox inbox;
  sem_t wake; /* in the place of a ring */
};

struct parcel {
  struct post post;
  unsigned sender;
  uint64_t number, doubled; /* `doubled` is the receiver's */
};

static struct side owner, senders[SENDERS];
static uint64_t expected[SENDERS], slept;

static void send_to(struct side *side, struct post *post) {
  if (inbox_put(&side->inbox, post)) sem_post(&side->wake);
}

/* Whoever wakes a sleeper is the only one to do so. */
static struct post *wait_for_posts(struct side *side) {
  struct post *list;
  while (!(list = inbox_take(&side->inbox))) {
    if (!inbox_sleep(&side->inbox)) continue;
    while (sem_wait(&side->wake)) CHECK(errno == EINTR, "sem_wait");
    int left = 0;
    sem_getvalue(&side->wake, &left);
    CHECK(left == 0, "woken more than once");
    __atomic_fetch_add(&slept, 1, __ATOMIC_RELAXED);
  }
  return list;
}

static void receive(struct post *post) {
  struct parcel *p = (struct parcel *)post;
  CHECK(p->number == expected[p->sender], "out of order");
  expected[p->sender]++;
  p->doubled = 2 * p->number;
  send_to(&senders[p->sender], post);
}

static void get_back(struct post *post) {
  const struct parcel *p = (struct parcel *)post;
  CHECK(p->doubled == 2 * p->number, "what the receiver wrote is not seen");
}

static void deliver_all(struct post *list) {
  for (struct post *next; list; list = next) {
    next = list->next;
    list->deliver(list);
  }
}

static void *run_owner(void *unused) {
  (void)unused;
  for (unsigned i = 0; i < SENDERS; i++)
    while (expected[i] < POSTS) deliver_all(wait_for_posts(&owner));
  return NULL;
}

static void *run_sender(void *argument) {
  struct side *self = argument;
  struct parcel parcels[WINDOW], *home[WINDOW];
  unsigned at_home = WINDOW;
  for (unsigned i = 0; i < WINDOW; i++) home[i] = &parcels[i];
  for (uint64_t number = 0; number < POSTS || at_home < WINDOW;) {
    while (at_home && number < POSTS) {
      struct parcel *p = home[--at_home];
      *p = (struct parcel){
          .post.deliver = receive, .sender = (unsigned)(self - senders), .number = number++};
      send_to(&owner, &p->post);
    }
    for (struct post *list = wait_for_posts(self), *next; list; list = next) {
      next = list->next;
      get_back(list);
      home[at_home++] = (struct parcel *)list;
    }
  }
  return NULL;
}

int main(void) {
  pthread_t threads[SENDERS + 1];
  sem_init(&owner.wake, 0, 0);
  for (unsigned i = 0; i < SENDERS; i++) sem_init(&senders[i].wake, 0, 0);
  CHECK(pthread_create(&threads[SENDERS], NULL, run_owner, NULL) == 0, "pthread_create");
  for (unsigned i = 0; i < SENDERS; i++)
    CHECK(pthread_create(&threads[i], NULL, run_sender, &senders[i]) == 0, "pthread_create");
  for (unsigned i = 0; i <= SENDERS; i++) pthread_join(threads[i], NULL);
  for (unsigned i = 0; i < SENDERS; i++) CHECK(expected[i] == POSTS, "lost");
  CHECK(slept > 0, "nobody slept: nothing was shown");
  return 0;
}
