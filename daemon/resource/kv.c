/* SPDX-License-Identifier: Apache-2.0
 *
 * An ordered map. A change is made in memory and its record appended in the same step; the answer waits until the
 * record is as safe as configured. So does a read that saw a change which is not yet: what an answer says
 * was there is there after any crash.
 */
#include "resource/kv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct param params[] = {
    RIGHTS_PARAM,
    SHARD_PARAM,
    {"path", PARAM_PATH, NULL, 0, 0, NULL,
     "the directory of its log and its snapshot; made if it is not there", PARAM_FIXED},
    {"ack", PARAM_CHOICE, "disk", 0, 0, "memory|kernel|disk",
     "where a change must be before it is answered: disk survives a power cut, kernel the daemon's death",
     PARAM_FIXED},
    {"segment_bytes", PARAM_BYTES, "16M", 2 << 20, INT64_C(1) << 40, NULL,
     "size of a file of its log; each is zero-written before use", PARAM_FIXED},
    {"snapshot_bytes", PARAM_BYTES, "64M", 1 << 16, INT64_C(1) << 40, NULL,
     "take a snapshot when so much has been logged since the last", PARAM_LIVE},
    {"max_bytes", PARAM_BYTES, "256M", 1 << 16, INT64_C(1) << 40, NULL,
     "memory of all keys and values", PARAM_LIVE},
    {0},
};

static struct kv *kv_of_commit(struct log_commit *c) {
  return (struct kv *)((char *)c - offsetof(struct kv, commit));
}

/* ---- what the log says ---- */

static int forget(struct log_commit *commit) {
  struct kv *kv = kv_of_commit(commit);
  kv->snapshot.spoilt = true;
  kv_map_clear(&kv->map);
  kv->deleted = kv->logged = 0;
  return kv_snapshot_load(kv);
}

static int replay_set(struct kv *kv, const struct kv_record *record, const char *key,
                      size_t value_bytes, uint64_t number) {
  struct kv_entry *e = kv_entry_new(key, record->key_bytes, value_bytes);
  if (!e) return -ENOMEM;
  memcpy(kv_entry_value(e), key + record->key_bytes, value_bytes);
  e->version = number;
  kv_map_put(&kv->map, e);
  return 0;
}

static int replay(struct log_commit *commit, const struct log_frame *frame) {
  struct kv *kv = kv_of_commit(commit);
  struct kv_record record;
  if (frame->number < kv->start) return 0;
  if (frame->bytes < sizeof record) return -EBADMSG;
  kv->logged += log_frame_bytes(frame->bytes);
  memcpy(&record, frame + 1, sizeof record);
  const char *key = (const char *)(frame + 1) + sizeof record;
  size_t left = frame->bytes - sizeof record;
  if (record.key_bytes > left || record.key_bytes > SHMQ_KV_KEY_MAX) return -EBADMSG;
  if (record.what == KV_RECORD_SET)
    return replay_set(kv, &record, key, left - record.key_bytes, frame->number);
  if (record.what != KV_RECORD_DELETE) return -EBADMSG;
  struct kv_entry *e = kv_map_find(&kv->map, key, record.key_bytes);
  if (e) kv_map_remove(&kv->map, e);
  kv->deleted = frame->number;
  return 0;
}

/* ---- answers ---- */

static bool changes(const struct request *r) {
  uint16_t op = r->in.header.op;
  return op >= SHMQ_KV_PUT && op <= SHMQ_KV_DELETE;
}

/* The change was made before the worker died that took the request first. */
static void answer_repeated(struct request *r) {
  if (r->in.header.op == SHMQ_KV_ADD)
    request_fail(r, -EOWNERDEAD, SHMQ_EXECUTED_YES, "it was added; the sum was not kept");
  else
    request_value(r, r->scratch[COMMIT_NUMBER], 0, NULL, 0);
}

static void acknowledged(struct request *r) {
  int64_t size = (int64_t)r->scratch[KV_SIZE];
  if (size < 0)
    request_refuse(r, (int)size, NULL);
  else if (changes(r) && r->scratch[COMMIT_REPEATED])
    answer_repeated(r);
  else if (changes(r))
    request_value(r, r->scratch[COMMIT_NUMBER], r->scratch[KV_VALUE1], NULL, 0);
  else if (r->memory)
    request_value(r, r->scratch[KV_VALUE0], r->scratch[KV_VALUE1], r->memory, (size_t)size);
  else
    request_in_place(r, r->scratch[KV_VALUE0], r->scratch[KV_VALUE1], (size_t)size);
}

/* Answer a read when what it saw is safe: everything up to the change of that number. */
static void answer_read(struct request *r, uint64_t seen, uint64_t value0, uint64_t value1,
                        int64_t size) {
  struct kv *kv = kv_of_request(r);
  r->scratch[KV_VALUE0] = value0;
  r->scratch[KV_VALUE1] = value1;
  r->scratch[KV_SIZE] = (uint64_t)size;
  log_commit_wait(&kv->commit, r, kv->ack, seen, false);
}

void kv_answer_conflict(struct request *r, const struct kv_entry *e, int status) {
  answer_read(r, e ? e->version : kv_of_request(r)->deleted, 0, 0, status);
}

/* ---- get ---- */

size_t kv_take_key(struct request *r, size_t bytes, char key[SHMQ_KV_KEY_MAX]) {
  int rc = bytes == 0 || bytes > r->in.size ? -EINVAL : bytes > SHMQ_KV_KEY_MAX ? -ENAMETOOLONG : 0;
  if (rc) {
    request_refuse(r, rc, NULL);
    return 0;
  }
  memcpy(key, r->in.data, bytes);
  return bytes;
}

static void serve_get(struct request *r) {
  struct kv *kv = kv_of_request(r);
  char key[SHMQ_KV_KEY_MAX];
  size_t n = kv_take_key(r, r->in.size, key);
  if (!n) return;
  struct kv_entry *e = kv_map_find(&kv->map, key, n);
  if (!e) {
    kv_answer_conflict(r, NULL, -ENOENT);
    return;
  }
  void *to = r->in.data;
  if (e->value_bytes > r->in.room)
    to = r->memory = malloc(e->value_bytes);
  else
    request_begin(r); /* the key is overwritten by its value */
  if (!to) {
    request_refuse(r, -ENOMEM, NULL);
    return;
  }
  memcpy(to, kv_entry_value(e), e->value_bytes);
  answer_read(r, e->version, e->version, e->value_bytes, e->value_bytes);
}

/* ---- scan ---- */

static size_t write_entry(const struct kv_entry *e, char *to, size_t room) {
  shmq_kv_entry head = {e->version, e->key_bytes, e->value_bytes};
  size_t data = (size_t)e->key_bytes + e->value_bytes;
  size_t bytes = sizeof head + ((data + 7) & ~(size_t)7);
  if (bytes > room) return 0;
  memcpy(to, &head, sizeof head);
  memcpy(to + sizeof head, e->data, data);
  memset(to + sizeof head + data, 0, bytes - sizeof head - data);
  return bytes;
}

static bool begins_with(const struct kv_entry *e, const char *prefix, size_t bytes) {
  return e->key_bytes >= bytes && memcmp(e->key, prefix, bytes) == 0;
}

static void serve_scan(struct request *r) {
  struct kv *kv = kv_of_request(r);
  char prefix[SHMQ_KV_KEY_MAX], last[SHMQ_KV_KEY_MAX];
  size_t size = r->in.size, n = request_arg(r, 0) < size ? (size_t)request_arg(r, 0) : size;
  size_t last_bytes = size - n, filled = 0;
  if (request_arg(r, 0) > size || n > sizeof prefix || last_bytes > sizeof last) {
    request_refuse(r, -EINVAL, NULL);
    return;
  }
  memcpy(prefix, r->in.data, n);
  memcpy(last, (char *)r->in.data + n, last_bytes);
  request_begin(r); /* what is asked is overwritten by what there is */
  struct kv_entry *e = last_bytes ? kv_map_from(&kv->map, last, last_bytes, true)
                                  : kv_map_from(&kv->map, prefix, n, false);
  uint64_t seen = kv->deleted, count = 0;
  for (size_t bytes; e && begins_with(e, prefix, n); e = kv_map_next(e), count++) {
    bytes = write_entry(e, (char *)r->in.data + filled, r->in.room - filled);
    if (!bytes) break;
    filled += bytes;
    if (e->version > seen) seen = e->version;
  }
  bool more = e && begins_with(e, prefix, n);
  if (more && !filled)
    request_refuse(r, -EMSGSIZE, NULL);
  else
    answer_read(r, seen, more, count, (int64_t)filled);
}

/* ---- the table ---- */

static void serve_status(struct request *r) {
  const struct kv *kv = kv_of_request(r);
  request_value(r, kv->map.count, kv->commit.next - 1, NULL, 0);
}

static const struct operation operations[] = {
    {SHMQ_KV_GET, RIGHT_READ, serve_get},      {SHMQ_KV_PUT, RIGHT_WRITE, kv_serve_change},
    {SHMQ_KV_CAS, RIGHT_WRITE, kv_serve_change},  {SHMQ_KV_ADD, RIGHT_WRITE, kv_serve_change},
    {SHMQ_KV_DELETE, RIGHT_WRITE, kv_serve_change}, {SHMQ_KV_SCAN, RIGHT_READ, serve_scan},
    {SHMQ_KV_STATUS, RIGHT_READ, serve_status}, {0}};

static int kv_admit(const struct resource *resource, const struct operation *o, const char **why) {
  (void)o;
  if (((const struct kv *)resource)->commit.state != LOG_BROKEN) return 0;
  *why = "its log is damaged";
  return -EIO;
}

static void kv_begun(struct request *r) {
  request_restarted(r, -ERESTART, SHMQ_EXECUTED_NO, "the daemon's worker died while this was read");
}

static void kv_turn(struct resource *resource) {
  struct kv *kv = (struct kv *)resource;
  kv_snapshot_turn(kv);
  log_commit_turn(&kv->commit);
}

static bool kv_idle(const struct resource *resource) {
  const struct kv *kv = (const struct kv *)resource;
  return kv->snapshot.state == SNAPSHOT_NONE && log_commit_idle(&kv->commit);
}

static void kv_changed(struct resource *resource) {
  struct kv *kv = (struct kv *)resource;
  kv->snapshot_bytes = (uint64_t)section_number(resource->section, "snapshot_bytes");
}

static void kv_close(struct resource *resource) {
  struct kv *kv = (struct kv *)resource;
  kv_map_clear(&kv->map);
  log_commit_close(&kv->commit);
  free(kv->snapshot.buffer);
}

/* The snapshot and the log must meet: what lies between them would be lost in silence. */
static int check_log(struct kv *kv) {
  const struct log_files *files = &kv->commit.files;
  if (!kv->start || (files->segments[0].first <= kv->start && kv->commit.next >= kv->start))
    return 0;
  say(SAY_ERROR, "[%s] the snapshot is of record %" PRIu64 ", the log goes from %" PRIu64
                 " to %" PRIu64,
      kv->commit.label, kv->start, files->segments[0].first, kv->commit.next);
  return -EBADMSG;
}

static int kv_open(struct resource *resource) {
  static const struct log_commit_user user = {
      .forget = forget, .replay = replay, .acknowledged = acknowledged};
  struct kv *kv = (struct kv *)resource;
  const char *path = section_text(resource->section, "path");
  kv->ack = (enum shmq_log_ack)section_number(resource->section, "ack");
  kv_changed(resource);
  int rc = log_commit_open(&kv->commit, &user, resource, path,
                           (uint64_t)section_number(resource->section, "segment_bytes"), 0);
  if (rc) {
    kv_map_clear(&kv->map);
  } else {
    rc = check_log(kv);
    if (rc) kv_close(resource);
  }
  if (rc) say(SAY_ERROR, "[%s] %s: %s", kv->commit.label, path, strerror(-rc));
  return rc;
}

const struct resource_kind kv_kind = {.section = {"kv", true, params,
                                                  "An ordered map that outlives the daemon", true, NULL},
                                      .bytes = sizeof(struct kv),
                                      .open = kv_open,
                                      .operations = operations,
                                      .admit = kv_admit,
                                      .begun = kv_begun,
                                      .turn = kv_turn,
                                      .idle = kv_idle,
                                      .changed = kv_changed,
                                      .close = kv_close};
