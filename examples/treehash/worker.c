/* SPDX-License-Identifier: Apache-2.0
 *
 * A worker: it leases names, has a window of files under way, hashes their contents where the daemon put
 * them, appends the result to the log and acks the name when the log has it.
 *
 * It may be killed anywhere. A name that it had not acked is delivered again, with the same identity;
 * the append carries that identity as its key, so the log has each name once.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <shmq/pin.h>
#include <shmq/rpc.h>

#include "treehash.h"

enum {
  WINDOW = 16,            /* files under way */
  ARENA_BYTES = 64 << 10, /* of each; longer ones are read in pieces */
  PIECES = 4              /* of a long file at once */
};

enum stage { IDLE, READING, APPENDING };

struct file {
  enum stage stage;
  shmq_message name; /* leased */
  shmq_future *future;
  uint64_t bytes;
  uint32_t epoch; /* of the daemon's worker that was asked for the contents */
};

struct worker {
  shmq_client *client;
  shmq *names;
  uint16_t tree, log;
  EVP_MD_CTX *sha;
  struct worker_stats *stats;
  const struct treehash *t;
  struct file files[WINDOW]; /* a ring, oldest first */
  unsigned first, count;
};

/* ---- requests ---- */

static int ask(struct worker *w, uint16_t op, uint64_t v0, uint64_t v1, const struct iovec *part,
               size_t room, shmq_future **future) {
  shmq_ask a = {.resource = w->tree,
                .op = op,
                .flags = SHMQ_ASK_IDEMPOTENT,
                .value = {v0, v1},
                .parts = part,
                .part_count = part ? 1 : 0,
                .room = room};
  return shmq_request(w->client, &a, SHMQ_FOREVER, future);
}

static int ask_contents(struct worker *w, struct file *f) {
  struct iovec path = {.iov_base = f->name.data, .iov_len = f->name.size};
  f->stage = READING;
  f->epoch = shmq_client_epoch(w->client);
  return ask(w, SHMQ_DIR_GET, 0, 0, &path, ARENA_BYTES, &f->future);
}

static int append(struct worker *w, struct file *f, const char *result) {
  shmq_id id;
  shmq_message_id(w->names, &f->name, &id);
  struct iovec parts[] = {{.iov_base = &id, .iov_len = sizeof id},
                          {.iov_base = (void *)(uintptr_t)result, .iov_len = strlen(result)},
                          {.iov_base = (void *)(uintptr_t) "  ", .iov_len = 2},
                          {.iov_base = f->name.data, .iov_len = f->name.size}};
  shmq_ask a = {.resource = w->log,
                .op = SHMQ_LOG_APPEND,
                .flags = SHMQ_ASK_IDEMPOTENT,
                .value = {w->t->ack, SHMQ_LOG_KEYED},
                .parts = parts,
                .part_count = 4};
  f->stage = APPENDING;
  return shmq_request(w->client, &a, SHMQ_FOREVER, &f->future);
}

/* ---- hashing ---- */

static void hex(char *to, const unsigned char *digest) {
  static const char digits[] = "0123456789abcdef";
  for (int i = 0; i < HASH_BYTES; i++) {
    *to++ = digits[digest[i] >> 4];
    *to++ = digits[digest[i] & 15];
  }
  *to = 0;
}

/* Has the daemon's worker died since? Then so have its handles, and its errors say nothing of the file. */
static bool is_outlived(const struct worker *w, const struct file *f) {
  return shmq_client_epoch(w->client) != f->epoch;
}

/* The rest of a file that did not fit, PIECES reads ahead of the hashing. Ends at a short piece. */
static int hash_rest(struct worker *w, struct file *f, uint64_t handle) {
  shmq_future *pieces[PIECES] = {NULL};
  uint64_t asked = f->bytes;
  int rc = 0;
  bool end = false;
  for (unsigned i = 0; !rc && !end; i++) {
    if (is_outlived(w, f)) rc = -ESTALE;
    for (; !rc && asked < f->bytes + (uint64_t)PIECES * ARENA_BYTES; asked += ARENA_BYTES)
      rc = ask(w, SHMQ_DIR_READ, handle, asked, NULL, ARENA_BYTES,
               &pieces[asked / ARENA_BYTES % PIECES]);
    if (rc) break;
    shmq_future **piece = &pieces[f->bytes / ARENA_BYTES % PIECES];
    shmq_result r;
    rc = shmq_await(*piece, &r, SHMQ_FOREVER);
    if (!rc) {
      EVP_DigestUpdate(w->sha, r.data, r.size);
      f->bytes += r.size;
      end = r.size < ARENA_BYTES;
    }
    shmq_future_free(*piece);
    *piece = NULL;
  }
  for (int i = 0; i < PIECES; i++) shmq_future_free(pieces[i]);
  shmq_ask close_it = {.resource = w->tree, .op = SHMQ_DIR_CLOSE, .value = {handle, 0}};
  int closed = shmq_cast(w->client, &close_it, SHMQ_FOREVER);
  return rc ? rc : closed;
}

/* The contents have come: hash them and append the result. */
static int contents_came(struct worker *w, struct file *f) {
  char text[2 * HASH_BYTES + 1];
  unsigned char digest[HASH_BYTES];
  shmq_result r;
  int rc = shmq_await(f->future, &r, SHMQ_FOREVER);
  bool unreadable = rc != 0;
  uint64_t handle = r.value[1];
  if (!rc) {
    EVP_DigestInit_ex(w->sha, EVP_sha256(), NULL);
    EVP_DigestUpdate(w->sha, r.data, r.size);
    f->bytes = r.size;
    f->epoch = r.epoch;
  }
  shmq_future_free(f->future);
  f->future = NULL;
  if (rc == -EOWNERDEAD || rc == -EBADMSG) return rc;
  if (!rc && handle) rc = hash_rest(w, f, handle);
  if (rc && is_outlived(w, f)) return ask_contents(w, f);
  if (rc && !unreadable) unreadable = true;
  if (unreadable) {
    snprintf(text, sizeof text, UNREADABLE "%d", -rc);
    f->bytes = 0;
  } else {
    EVP_DigestFinal_ex(w->sha, digest, NULL);
    hex(text, digest);
  }
  return append(w, f, text);
}

static int result_logged(struct worker *w, struct file *f) {
  shmq_result r;
  int rc = shmq_await(f->future, &r, SHMQ_FOREVER);
  shmq_future_free(f->future);
  f->future = NULL;
  if (rc) return rc;
  atomic_fetch_add_explicit(&w->stats->files, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&w->stats->bytes, f->bytes, memory_order_relaxed);
  f->stage = IDLE;
  return shmq_ack(w->names, &f->name);
}

/* ---- the window ---- */

static struct file *nth(struct worker *w, unsigned i) { return &w->files[(w->first + i) % WINDOW]; }

/* Take names while there is room; wait for one only when there is nothing else to do. */
static int fill(struct worker *w) {
  while (w->count < WINDOW) {
    struct file *f = nth(w, w->count);
    int rc = shmq_lease(w->names, &f->name, w->count ? SHMQ_NOWAIT : SHMQ_FOREVER);
    if (rc == -EAGAIN || (rc == -EPIPE && w->count)) return 0;
    if (rc) return rc;
    w->count++;
    rc = ask_contents(w, f);
    if (rc) return rc;
  }
  return 0;
}

/* Everything whose contents are there goes on to the log; then the oldest leaves. */
static int advance(struct worker *w) {
  for (unsigned i = 0; i < w->count; i++) {
    struct file *f = nth(w, i);
    if (f->stage != READING || (i > 0 && !shmq_poll(f->future))) continue;
    int rc = contents_came(w, f);
    if (rc) return rc;
  }
  while (w->count) {
    struct file *f = nth(w, 0);
    bool must = w->count == WINDOW || w->count == 1;
    if (f->stage != APPENDING || (!must && !shmq_poll(f->future))) return 0;
    int rc = result_logged(w, f);
    if (rc) return rc;
    w->first = (w->first + 1) % WINDOW;
    w->count--;
  }
  return 0;
}

static int work(struct worker *w) {
  for (;;) {
    int rc = fill(w);
    if (!rc) rc = advance(w);
    if (rc) return rc == -EPIPE ? 0 : rc;
  }
}

/* ---- start ---- */

static void pin_self(struct worker *w, unsigned index) {
  shmq_pin *pin;
  shmq_bound bound;
  if (shmq_pin_open(&pin)) return;
  if (shmq_pin_self(pin, "spread", index, shmq_segment_of(w->names), &bound))
    fprintf(stderr, "treehash: worker %u is not pinned: %s\n", index, shmq_pin_error(pin));
  shmq_pin_close(pin);
}

static int open_all(struct worker *w, unsigned index) {
  char label[32];
  snprintf(label, sizeof label, "treehash %u", index);
  shmq_session_options options = {
      .credits = 64, .blocks = WINDOW + PIECES + 4, .block_bytes = ARENA_BYTES};
  int rc = shmq_client_connect(&w->client, w->t->socket, &options, 0);
  if (!rc) rc = shmq_open(&w->names, w->t->queue, 0);
  if (!rc) rc = shmq_join_segment(shmq_segment_of(w->names), "worker", label);
  if (rc) return rc;
  pin_self(w, index);
  int tree = shmq_resource(w->client, "tree"), log = shmq_resource(w->client, "result");
  w->tree = (uint16_t)tree;
  w->log = (uint16_t)log;
  w->sha = EVP_MD_CTX_new();
  return tree < 0 ? tree : log < 0 ? log : w->sha ? 0 : -ENOMEM;
}

int run_worker(const struct treehash *t, unsigned index) {
  static struct worker w;
  w.t = t;
  w.stats = &t->stats[index];
  int rc = open_all(&w, index);
  if (!rc) rc = work(&w);
  if (rc) fprintf(stderr, "treehash: worker %u: %s\n", index, shmq_strerror(rc));
  EVP_MD_CTX_free(w.sha);
  shmq_close(w.names);
  shmq_client_close(w.client);
  return rc ? 1 : 0;
}
