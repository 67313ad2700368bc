/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests that are kept while others come and go: they must not stop the queue, however many go by, and each is
 * answered once, whoever dies.
 */
#include "support/cases.h"
#include "support/service.h"

enum { CREDITS = 8, MANY = 10000, BLOCK = 4096 };

static int fd;
static shmq_client *client;
static shmq_service *service;
static const char *ring = "requests.always";
static shmq_incoming in, kept[CREDITS];
static shmq_result r;

static int make(enum shmq_redeliver redeliver, uint32_t aside, uint32_t single) {
  shmq_service_options o = {.askers = single ? 1 : 2,
                            .credits = CREDITS,
                            .capacity = CREDITS,
                            .blocks = 16,
                            .block_bytes = BLOCK,
                            .redeliver = redeliver,
                            .aside = aside,
                            .single = single};
  int memory = -1;
  MUST(shmq_service_create_memfd(&o, &memory));
  return memory;
}

static void open_server(void) {
  MUST(shmq_service_open_fd(&service, fd, SHMQ_NEVER_WAIT | SHMQ_GROUP_ANSWERS));
  MUST(shmq_recover(shmq_service_segment(service)));
}

static void begin_with(enum shmq_redeliver redeliver, uint32_t aside, uint32_t single) {
  fd = make(redeliver, aside, single);
  client = asker(fd);
  open_server();
}
static void begin(void) { begin_with(SHMQ_REDELIVER_ALWAYS, CREDITS, 1); }
static void end(void) {
  shmq_client_close(client);
  shmq_service_close(service);
  close(fd);
}

/* Half of them travel in a cell, half in a block. */
static shmq_future *ask_with(uint64_t n) {
  char text[32];
  struct iovec part = {text, (size_t)snprintf(text, sizeof text, "request %llu", (unsigned long long)n)};
  shmq_ask a = {.op = OP_ECHO, .value = {n, 0}, .parts = &part, .part_count = 1, .room = n % 2 ? 2000 : 64};
  shmq_future *f = NULL;
  MUST(shmq_request(client, &a, PATIENCE, &f));
  return f;
}

static void check_payload(const shmq_incoming *i) {
  char text[32];
  int n = snprintf(text, sizeof text, "request %llu", (unsigned long long)i->header.value[0]);
  CHECK((size_t)n == i->size && memcmp(text, i->data, i->size) == 0, "%.*s", (int)i->size,
        (char *)i->data);
}

static void answer(shmq_incoming *i) {
  uint64_t value[2] = {i->header.value[0] + 1, 0};
  check_payload(i);
  if (i->header.value[0] % 3) {
    EXPECT(shmq_reply_value(i, value, i->data, i->size), 0);
    return;
  }
  memset(i->data, 'x', i->room);
  EXPECT(shmq_reply_in_place(i, value, i->room), 0);
}

static void answered(shmq_future *f, uint64_t n) {
  (void)shmq_service_flush(service);
  EXPECT(shmq_await(f, &r, PATIENCE), 0);
  EXPECT(r.value[0], n + 1);
  if (n % 3)
    CHECK(r.size > 8 && memcmp(r.data, "request ", 8) == 0);
  else
    CHECK(r.size >= 64 && ((char *)r.data)[r.size - 1] == 'x');
  shmq_future_free(f);
}

static void keep(shmq_incoming *to) {
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reply_later(&in, to), 0);
}

/* Others come and go. */
static void pass(uint64_t from, uint64_t n) {
  for (uint64_t i = from; i < from + n; i++) {
    shmq_future *f = ask_with(i);
    EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
    answer(&in);
    answered(f, i);
  }
}

static uint64_t leased(const char *queue) {
  shmq_view *view;
  shmq_queue_info info;
  MUST(shmq_view_open_fd(&view, fd));
  for (uint32_t i = 0;; i++) {
    MUST(shmq_view_queue(view, i, &info));
    if (strncmp(info.name, queue, strlen(queue)) == 0) break;
  }
  shmq_view_close(view);
  return info.leased;
}

static void only_what_is_put_aside_lets_others_pass(void) {
  shmq_future *f = ask_with(0), *other;
  keep(kept);
  EXPECT(leased("requests"), 0);
  EXPECT(leased("aside"), 1);
  pass(1, 10 * CREDITS);
  answer(kept);
  answered(f, 0);
  EXPECT(leased("aside"), 0);

  end();
  begin_with(SHMQ_REDELIVER_ALWAYS, 0, 1);
  f = ask_with(0);
  keep(kept);
  EXPECT(leased("requests"), 1);
  pass(1, CREDITS - 1);
  shmq_ask a = {.op = OP_ECHO};
  EXPECT(shmq_request(client, &a, SHMQ_NOWAIT, &other), -EAGAIN);
  answer(kept);
  answered(f, 0);
}

/* Seven of eight credits are kept all the time, for lives of all lengths; one for ever. */
static void many_are_kept_and_many_more_pass(void) {
  shmq_future *f[CREDITS];
  uint64_t number[CREDITS], next = 0, seed = 1;
  for (int i = 0; i < CREDITS - 1; i++) {
    f[i] = ask_with(number[i] = next++);
    keep(&kept[i]);
  }
  for (int n = 0; n < MANY; n++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    int i = 1 + (int)((seed >> 33) % (CREDITS - 2));
    answer(&kept[i]);
    answered(f[i], number[i]);
    f[i] = ask_with(number[i] = next++);
    keep(&kept[i]);
    if (n % 16 == 0) pass(next, 3), next += 3;
    EXPECT(leased("requests"), 0);
  }
  for (int i = 0; i < CREDITS - 1; i++) {
    answer(&kept[i]);
    answered(f[i], number[i]);
  }
  EXPECT(leased("aside"), 0);
}

/* Whoever does not say that it will be for long makes way when that shows. */
static void one_that_stands_in_the_way_makes_way(void) {
  shmq_future *f = ask_with(0), *g;
  EXPECT(shmq_serve(service, kept, SHMQ_NOWAIT), 0);
  EXPECT(shmq_make_way(kept), 0);
  pass(1, CREDITS / 2 - 1);
  EXPECT(shmq_make_way(kept), 0);
  EXPECT(leased("aside"), 0);
  g = ask_with(CREDITS / 2);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
  EXPECT(shmq_make_way(kept), 0);
  EXPECT(leased("aside"), 1);
  answer(&in);
  answered(g, CREDITS / 2);
  pass(CREDITS, MANY / 10);
  answer(kept);
  answered(f, 0);
  EXPECT(shmq_make_way(kept), -ESTALE);
}

/* ---- deaths ---- */

static void keep_and_die(void *wanted) {
  int n = *(int *)wanted;
  shmq_service *own;
  shmq_incoming taken[CREDITS];
  MUST(shmq_service_open_fd(&own, fd, SHMQ_NEVER_WAIT));
  MUST(shmq_recover(shmq_service_segment(own)));
  for (int i = 0; i < n; i++) EXPECT(shmq_serve(own, &taken[i], SHMQ_NOWAIT), 0);
  EXPECT(shmq_serve(own, &in, SHMQ_NOWAIT), -EAGAIN);
  for (int i = 0; i < n; i++) {
    check_payload(&taken[i]);
    EXPECT(shmq_reply_later(&taken[i], &kept[i]), 0);
  }
  raise(SIGKILL);
}

/* That they waited is not what servers died of. */
static void the_next_servers_get_what_was_kept(void) {
  enum { KEPT = 6, DEATHS = 10 };
  shmq_future *f[KEPT];
  int n = KEPT, seen = 0;
  shmq_service_close(service);
  for (int i = 0; i < KEPT; i++) f[i] = ask_with((uint64_t)i);
  for (int i = 0; i < DEATHS; i++) EXPECT(WTERMSIG(ended(child(keep_and_die, &n))), SIGKILL);
  open_server();
  for (int i = 0; i < KEPT; i++) {
    EXPECT(shmq_serve(service, &kept[i], SHMQ_NOWAIT), 0);
    EXPECT(kept[i].attempts, 2);
    seen |= 1 << kept[i].header.value[0];
  }
  EXPECT(seen, (1 << KEPT) - 1);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  for (int i = 0; i < KEPT; i++) answer(&kept[i]);
  for (int i = 0; i < KEPT; i++) answered(f[i], (uint64_t)i);
  pass(KEPT, 10 * CREDITS);
}

/* It was put there, and nobody has taken it: as a server leaves it that dies in the middle of shmq_reply_later. */
static void forward_and_die(void *unused) {
  shmq_service *own;
  shmq *aside;
  shmq *requests;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, SHMQ_NEVER_WAIT));
  MUST(shmq_serve(own, &in, SHMQ_NOWAIT));
  MUST(shmq_open_in(&aside, shmq_service_segment(own), "aside", 0));
  MUST(shmq_open_in(&requests, shmq_service_segment(own), ring, 0));
  MUST(shmq_forward(requests, &in.message, aside, SHMQ_NOWAIT));
  raise(SIGKILL);
}

static void one_that_was_on_its_way_is_delivered_again(void) {
  shmq_future *f = ask_with(1);
  shmq_service_close(service);
  EXPECT(WTERMSIG(ended(child(forward_and_die, NULL))), SIGKILL);
  open_server();
  uint32_t *word, value;
  EXPECT(shmq_service_event_word(service, &word, &value), 1);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), 0);
  EXPECT(in.attempts, 2);
  answer(&in);
  answered(f, 1);
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
}

/* What servers die of while they execute it is given up all the same. */
static void take_and_die(void *unused) {
  shmq_service *own;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, SHMQ_NEVER_WAIT));
  MUST(shmq_recover(shmq_service_segment(own)));
  MUST(shmq_serve(own, &in, SHMQ_NOWAIT));
  raise(SIGKILL);
}

static void one_that_kills_its_servers_is_given_up(void) {
  int n = 1;
  shmq_future *f = ask_with(1);
  shmq_service_close(service);
  EXPECT(WTERMSIG(ended(child(keep_and_die, &n))), SIGKILL);
  for (int i = 0; i < 2; i++) EXPECT(WTERMSIG(ended(child(take_and_die, NULL))), SIGKILL);
  open_server();
  EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
  (void)shmq_service_flush(service);
  EXPECT(shmq_await(f, &r, PATIENCE), -EOWNERDEAD);
  EXPECT(r.executed, SHMQ_EXECUTED_UNKNOWN);
  shmq_future_free(f);
}

/* As shmq_reply_in_place leaves it, up to where it dies. */
static void answer_in_place_and_die(void *unused) {
  shmq_service *own;
  shmq *aside;
  shmq_message m;
  (void)unused;
  MUST(shmq_service_open_fd(&own, fd, SHMQ_NEVER_WAIT));
  MUST(shmq_recover(shmq_service_segment(own)));
  MUST(shmq_open_in(&aside, shmq_service_segment(own), "aside", 0));
  MUST(shmq_lease(aside, &m, SHMQ_NOWAIT));
  shmq_request_header was;
  memcpy(&was, m.data, sizeof was);
  memcpy((char *)m.data + was.data_offset, "answer", 6);
  shmq_reply_header h = {.magic = SHMQ_RPC_MAGIC,
                         .kind = SHMQ_RPC_REPLY,
                         .id = was.id,
                         .asker = was.asker,
                         .generation = was.generation,
                         .slot = was.slot,
                         .executed = SHMQ_EXECUTED_YES,
                         .data_offset = was.data_offset,
                         .data_bytes = 6};
  memcpy(m.data, &h, sizeof h);
  raise(SIGKILL);
}

static void an_answer_in_its_place_arrives(void) {
  for (uint64_t number = 0; number < 2; number++) {
    int n = 1;
    shmq_future *f = ask_with(number);
    shmq_service_close(service);
    EXPECT(WTERMSIG(ended(child(keep_and_die, &n))), SIGKILL);
    EXPECT(WTERMSIG(ended(child(answer_in_place_and_die, NULL))), SIGKILL);
    open_server();
    EXPECT(shmq_serve(service, &in, SHMQ_NOWAIT), -EAGAIN);
    EXPECT(shmq_await(f, &r, PATIENCE), 0);
    CHECK(r.size == 6 && memcmp(r.data, "answer", 6) == 0);
    shmq_future_free(f);
  }
}

/* Where nothing is executed twice its asker learns it at once, and not from the next server. */
static void an_asker_learns_that_its_keeper_died(void) {
  for (int on_its_way = 0; on_its_way < 2; on_its_way++) {
    int n = 1;
    end();
    fd = make(SHMQ_REDELIVER_NEVER, CREDITS, 0);
    client = asker(fd);
    shmq_future *f = ask_with(1);
    ring = "requests.never";
    EXPECT(WTERMSIG(ended(child(on_its_way ? forward_and_die : keep_and_die, &n))), SIGKILL);
    ring = "requests.always";
    EXPECT(shmq_await(f, &r, PATIENCE), -EOWNERDEAD);
    EXPECT(r.executed, SHMQ_EXECUTED_UNKNOWN);
    shmq_future_free(f);
    open_server();
  }
}

/* ---- several servers ---- */

static void the_other_server_keeps_its_own_in_place(void) {
  end();
  begin_with(SHMQ_REDELIVER_ALWAYS, CREDITS, 0);
  shmq_service *second;
  shmq_future *f = ask_with(0), *g = ask_with(1);
  keep(&kept[0]);
  MUST(shmq_service_open_fd(&second, fd, SHMQ_NEVER_WAIT));
  EXPECT(shmq_serve(second, &in, SHMQ_NOWAIT), 0);
  EXPECT(shmq_reply_later(&in, &kept[1]), 0);
  EXPECT(leased("requests"), 1);
  EXPECT(leased("aside"), 1);
  answer(&kept[1]);
  answered(g, 1);

  g = ask_with(1);
  shmq_service_close(service); /* with one kept: the second takes it over, for it wanted to keep one as well */
  shmq_incoming first, other;
  EXPECT(shmq_serve(second, &kept[0], SHMQ_NOWAIT), 0);
  EXPECT(shmq_serve(second, &kept[1], SHMQ_NOWAIT), 0);
  EXPECT(kept[0].header.value[0], 0);
  EXPECT(shmq_reply_later(&kept[0], &first), 0);
  EXPECT(shmq_reply_later(&kept[1], &other), 0);
  EXPECT(leased("requests"), 0);
  EXPECT(leased("aside"), 2);
  service = second;
  answer(&first);
  answer(&other);
  answered(f, 0);
  answered(g, 1);
}

/* ---- who writes to what is not his ---- */

static void a_hand_in_the_queue_costs_its_owner_the_request(void) {
  shmq *aside;
  shmq_future *f = ask_with(1), *g = ask_with(2);
  EXPECT(shmq_serve(service, &kept[0], SHMQ_NOWAIT), 0);
  EXPECT(shmq_serve(service, &kept[1], SHMQ_NOWAIT), 0);
  MUST(shmq_open_in(&aside, shmq_service_segment(service), "aside", 0));
  EXPECT(shmq_put(aside, "hello", 5, SHMQ_NOWAIT), 0);
  shmq_incoming moved;
  EXPECT(shmq_reply_later(&kept[0], &moved), -EBADMSG);
  shmq_incoming stayed;
  EXPECT(shmq_reply_later(&kept[1], &stayed), 0);
  EXPECT(leased("requests"), 1);
  check_payload(&moved);
  EXPECT(shmq_reply_in_place(&moved, NULL, 6), -EBADMSG);
  answer(&stayed);
  answered(g, 2);
  EXPECT(shmq_poll(f), 0);
  shmq_future_free(f);
  shmq_close(aside);
}

static const struct test_case cases[] = {
    CASE(only_what_is_put_aside_lets_others_pass),
    CASE(many_are_kept_and_many_more_pass),
    CASE(one_that_stands_in_the_way_makes_way),
    CASE(the_next_servers_get_what_was_kept),
    CASE(one_that_was_on_its_way_is_delivered_again),
    CASE(one_that_kills_its_servers_is_given_up),
    CASE(an_answer_in_its_place_arrives),
    CASE(an_asker_learns_that_its_keeper_died),
    CASE(the_other_server_keeps_its_own_in_place),
    CASE(a_hand_in_the_queue_costs_its_owner_the_request),
};

int main(int argc, char **argv) { return RUN_CASES(cases, begin, end, argc, argv); }
