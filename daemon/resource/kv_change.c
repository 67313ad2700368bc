/* SPDX-License-Identifier: Apache-2.0
 *
 * What changes the map: each request becomes one record, or is refused for what there is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resource/kv.h"

enum { NUMBER_BYTES = 24 };

/* Append the change of an entry. Returns its number or a negative errno; it may be answered by then. */
static int64_t append(struct kv *kv, struct request *r, uint32_t what, const struct kv_entry *e) {
  struct kv_record record = {.what = what, .key_bytes = e->key_bytes};
  struct iovec parts[] = {
      {&record, sizeof record},
      {(void *)(uintptr_t)e->data, e->key_bytes + (what == KV_RECORD_SET ? e->value_bytes : 0)}};
  int64_t number = log_commit_append(&kv->commit, r, kv->ack, NULL, parts, 2);
  if (number > 0) kv->logged += log_frame_bytes(parts[0].iov_len + parts[1].iov_len);
  return number;
}

static void put_entry(struct kv *kv, struct request *r, struct kv_entry *e) {
  int64_t number = append(kv, r, KV_RECORD_SET, e);
  if (number < 0) {
    free(e);
    request_refuse(r, (int)number, NULL);
    return;
  }
  e->version = (uint64_t)number;
  kv_map_put(&kv->map, e);
}

/* May an entry of that size come in the place of `old`? Returns 0 or a negative errno; 1: later. */
static int room_for(struct kv *kv, struct request *r, const struct kv_entry *old, size_t key_bytes,
                    size_t value_bytes) {
  size_t bytes = sizeof(struct kv_record) + key_bytes + value_bytes;
  size_t after = kv->map.bytes + kv_entry_bytes(key_bytes, value_bytes);
  if (old) after -= kv_entry_bytes(old->key_bytes, old->value_bytes);
  if (log_frame_bytes(bytes) > LOG_BATCH_MAX) return -EMSGSIZE;
  if (after > (uint64_t)section_number(kv->base.section, "max_bytes")) return -EDQUOT;
  if (log_commit_room(&kv->commit, bytes)) return 0;
  log_commit_put_off(&kv->commit, r);
  return 1;
}

/* An entry to come in the place of `old`, its value still to be written. NULL: the request was put off or refused. */
static struct kv_entry *entry_for(struct kv *kv, struct request *r, const struct kv_entry *old,
                                  const char *key, size_t key_bytes, size_t value_bytes) {
  int rc = room_for(kv, r, old, key_bytes, value_bytes);
  struct kv_entry *e = rc ? NULL : kv_entry_new(key, key_bytes, value_bytes);
  if (!e && rc <= 0) request_refuse(r, rc ? rc : -ENOMEM, NULL);
  return e;
}

static int check_version(const struct kv_entry *e, uint64_t expected) {
  if (!expected) return e ? -EEXIST : 0;
  return !e ? -ENOENT : e->version == expected ? 0 : -ESTALE;
}

static void serve_put(struct request *r) {
  struct kv *kv = kv_of_request(r);
  char key[SHMQ_KV_KEY_MAX];
  size_t n = kv_take_key(r, (size_t)request_arg(r, 0), key);
  if (!n) return;
  size_t value_bytes = r->in.size - n;
  const struct kv_entry *old = kv_map_find(&kv->map, key, n);
  int rc = r->in.header.op == SHMQ_KV_CAS ? check_version(old, request_arg(r, 1)) : 0;
  if (rc) {
    kv_answer_conflict(r, old, rc);
    return;
  }
  struct kv_entry *e = entry_for(kv, r, old, key, n, value_bytes);
  if (!e) return;
  memcpy(kv_entry_value(e), (char *)r->in.data + n, value_bytes);
  put_entry(kv, r, e);
}

/* The whole value is a decimal number; where there is none, 0. */
static int number_in(struct kv_entry *e, int64_t *number) {
  char text[NUMBER_BYTES], *end;
  *number = 0;
  if (!e) return 0;
  if (e->value_bytes >= sizeof text) return -EINVAL;
  memcpy(text, kv_entry_value(e), e->value_bytes);
  text[e->value_bytes] = 0;
  char first = text[text[0] == '-'];
  if (first < '0' || first > '9') return -EINVAL;
  errno = 0;
  *number = strtoll(text, &end, 10);
  return errno ? -ERANGE : end == text + e->value_bytes ? 0 : -EINVAL;
}

static void serve_add(struct request *r) {
  struct kv *kv = kv_of_request(r);
  char key[SHMQ_KV_KEY_MAX], text[NUMBER_BYTES];
  int64_t sum;
  size_t n = kv_take_key(r, r->in.size, key);
  if (!n) return;
  struct kv_entry *old = kv_map_find(&kv->map, key, n);
  int rc = number_in(old, &sum);
  if (!rc && __builtin_add_overflow(sum, (int64_t)request_arg(r, 0), &sum)) rc = -ERANGE;
  if (rc) {
    kv_answer_conflict(r, old, rc);
    return;
  }
  size_t digits = (size_t)snprintf(text, sizeof text, "%" PRId64, sum);
  struct kv_entry *e = entry_for(kv, r, old, key, n, digits);
  if (!e) return;
  memcpy(kv_entry_value(e), text, digits);
  r->scratch[KV_VALUE1] = (uint64_t)sum;
  put_entry(kv, r, e);
}

static void serve_delete(struct request *r) {
  struct kv *kv = kv_of_request(r);
  char key[SHMQ_KV_KEY_MAX];
  size_t n = kv_take_key(r, r->in.size, key);
  if (!n) return;
  struct kv_entry *e = kv_map_find(&kv->map, key, n);
  uint64_t expected = request_arg(r, 1);
  if (!e || (expected && e->version != expected)) {
    kv_answer_conflict(r, e, e ? -ESTALE : -ENOENT);
    return;
  }
  if (!log_commit_room(&kv->commit, sizeof(struct kv_record) + n)) {
    log_commit_put_off(&kv->commit, r);
    return;
  }
  int64_t number = append(kv, r, KV_RECORD_DELETE, e);
  if (number < 0) {
    request_refuse(r, (int)number, NULL);
    return;
  }
  kv->deleted = (uint64_t)number;
  kv_map_remove(&kv->map, e);
}

void kv_serve_change(struct request *r) {
  struct kv *kv = kv_of_request(r);
  r->scratch[KV_VALUE1] = r->scratch[KV_SIZE] = 0;
  if (log_commit_repeated(&kv->commit, r, kv->ack)) return;
  switch (r->in.header.op) {
  case SHMQ_KV_ADD: serve_add(r); return;
  case SHMQ_KV_DELETE: serve_delete(r); return;
  default: serve_put(r);
  }
}
