/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a snapshot back. It is read and not mapped: a page that the disk does not give would be a signal and not an
 * error. Entries go into the map as they come; if the checksum at the end is not theirs, they go again.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resource/crc32c.h"
#include "resource/kv.h"

enum { BUFFER_BYTES = 256 << 10 };

struct reader {
  int fd;
  off_t offset;  /* of what comes into the buffer next */
  uint64_t left; /* not taken yet */
  uint32_t crc;  /* of what was taken */
  size_t at, filled;
  char buffer[BUFFER_BYTES];
};

static int refill(struct reader *in) {
  ssize_t n = pread(in->fd, in->buffer, sizeof in->buffer, in->offset);
  if (n <= 0) return n ? -errno : -EBADMSG; /* shorter than it was */
  in->offset += n;
  in->filled = (size_t)n;
  in->at = 0;
  return 0;
}

static int take(struct reader *in, void *to, size_t bytes) {
  if (bytes > in->left) return -EBADMSG;
  in->left -= bytes;
  for (size_t done = 0, n; done < bytes; done += n, in->at += n) {
    int rc = in->at == in->filled ? refill(in) : 0;
    if (rc) return rc;
    n = in->filled - in->at < bytes - done ? in->filled - in->at : bytes - done;
    memcpy((char *)to + done, in->buffer + in->at, n);
  }
  in->crc = crc32c(in->crc, to, bytes);
  return 0;
}

static int load_entry(struct kv *kv, struct reader *in) {
  char key[SHMQ_KV_KEY_MAX];
  shmq_kv_entry e;
  int rc = take(in, &e, sizeof e);
  if (rc) return rc;
  if (e.key_bytes > sizeof key || e.value_bytes > in->left) return -EBADMSG;
  if ((rc = take(in, key, e.key_bytes))) return rc;
  struct kv_entry *entry = kv_entry_new(key, e.key_bytes, e.value_bytes);
  if (!entry) return -ENOMEM;
  if ((rc = take(in, kv_entry_value(entry), e.value_bytes))) {
    free(entry);
    return rc;
  }
  entry->version = e.version;
  kv_map_put(&kv->map, entry);
  return 0;
}

static int load(struct kv *kv, struct reader *in) {
  struct kv_snapshot_header h;
  int rc = take(in, &h, sizeof h);
  if (rc) return rc;
  if (h.magic != KV_SNAPSHOT_MAGIC || h.reserved || h.bytes != in->left) return -EBADMSG;
  in->crc = 0;
  for (uint64_t i = 0; i < h.count && !rc; i++) rc = load_entry(kv, in);
  if (!rc && (in->left || h.crc != kv_snapshot_crc(in->crc, &h))) rc = -EBADMSG;
  kv->start = h.start;
  return rc;
}

static int load_file(struct kv *kv, int fd) {
  struct stat st;
  if (fstat(fd, &st)) return -errno;
  struct reader *in = malloc(sizeof *in);
  if (!in) return -ENOMEM;
  in->fd = fd;
  in->offset = 0;
  in->left = (uint64_t)st.st_size;
  in->crc = 0;
  in->at = in->filled = 0;
  int rc = load(kv, in);
  free(in);
  return rc;
}

int kv_snapshot_load(struct kv *kv) {
  int fd = openat(kv->commit.files.directory, KV_SNAPSHOT_NAME, O_RDONLY | O_CLOEXEC);
  kv->start = 0;
  if (fd < 0) return errno == ENOENT ? 0 : -errno;
  int rc = load_file(kv, fd);
  close(fd);
  if (!rc) return 0;
  kv_map_clear(&kv->map);
  say(SAY_ERROR, "[%s] the snapshot %s", kv->commit.label,
      rc == -EBADMSG ? "is damaged" : "cannot be read");
  return rc;
}
