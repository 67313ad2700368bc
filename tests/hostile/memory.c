/* SPDX-License-Identifier: Apache-2.0
 *
 * With a session: its memory written, punched and locked while requests are under way, its doorbell rung in floods.
 */
#include <linux/futex.h>

#include "attack.h"

/* Where our session's memory is, and its descriptor. */
struct mapping {
  char *begin;
  size_t bytes;
  int fd;
};

static struct mapping find_memory(void) {
  struct mapping m = {.fd = -1};
  unsigned long begin, end;
  char line[512], path[64];
  FILE *maps = fopen("/proc/self/maps", "r");
  while (maps && fgets(line, sizeof line, maps))
    if (strstr(line, "memfd:") && strstr(line, "rw-s") &&
        sscanf(line, "%lx-%lx", &begin, &end) == 2)
      m.begin = (char *)begin, m.bytes = end - begin; // NOLINT(performance-no-int-to-ptr)
  if (maps) fclose(maps);
  for (int fd = 3; fd < 64 && m.fd < 0; fd++) {
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, line, sizeof line - 1);
    if (n > 0 && (line[n] = 0, strstr(line, "memfd:"))) m.fd = fd;
  }
  if (!m.begin) _exit(0);
  return m;
}

/* The queue's rules are kept and the request's are not. */
static void put_header(shmq *requests, const shmq_request_header *h, size_t size) {
  shmq_message m;
  if (shmq_reserve(requests, size, &m, SHMQ_NOWAIT)) return;
  memset(m.data, 0, size < 4096 ? size : 4096);
  memcpy(m.data, h, size < sizeof *h ? size : sizeof *h);
  shmq_commit(requests, &m);
}

static shmq *requests_of(shmq_client *c) {
  shmq *requests;
  if (!c || shmq_open_in(&requests, shmq_client_segment(c), "requests.always", 0)) _exit(0);
  return requests;
}

/* Fields that are right by themselves, or nearly, or not at all; ids that are in use already. */
static shmq_request_header any_header(shmq_client *c, unsigned *seed) {
  shmq_request_header h = {.magic = SHMQ_RPC_MAGIC,
                           .kind = SHMQ_RPC_REQUEST,
                           .id = dice(seed, 4),
                           .resource = attack_resource(c, seed),
                           .op = (uint16_t)dice(seed, 16),
                           .flags = (uint16_t)dice(seed, 8),
                           .deadline_ns = dice(seed, 2) ? SHMQ_FOREVER : (int64_t)any_bits(seed),
                           .data_offset = 64,
                           .data_bytes = dice(seed, 65),
                           .value = {any_bits(seed), any_bits(seed)}};
  h.asker = (uint32_t)shmq_participant(shmq_client_segment(c), &h.generation);
  switch (dice(seed, 24)) {
  case 0: h.asker = (uint32_t)any_bits(seed); break;
  case 1: h.generation = (uint32_t)any_bits(seed); break;
  case 2: h.slot = (uint32_t)any_bits(seed); break;
  case 3: h.data_offset = (uint32_t)any_bits(seed); break;
  case 4: h.data_bytes = (uint32_t)any_bits(seed); break;
  case 5: h.magic = (uint32_t)any_bits(seed); break;
  case 6: h.kind = (uint8_t)any_bits(seed); break;
  case 7: h.id = any_bits(seed); break;
  }
  return h;
}

static void send_some(shmq_client *c, shmq *requests, unsigned *seed, int n) {
  for (int i = 0; i < n; i++) {
    shmq_request_header h = any_header(c, seed);
    put_header(requests, &h, dice(seed, 8) ? 128 + dice(seed, 60000) : dice(seed, 130));
  }
}

/* Replies are never taken: more requests than there are credits, and then death or a decent end. */
void attack_headers(const struct shmqd *d, unsigned *seed) {
  shmq_client *c = attack_connect(d, NULL);
  shmq *requests = requests_of(c);
  for (int round = 0; round < 20; round++) {
    send_some(c, requests, seed, 40);
    if (dice(seed, 2)) nap_ms(1);
  }
  if (dice(seed, 2)) raise(SIGKILL);
  shmq_client_close(c);
}

void attack_scribble(const struct shmqd *d, unsigned *seed) {
  shmq_client *c = attack_connect(d, NULL);
  shmq *requests = requests_of(c);
  struct mapping m = find_memory();
  for (int i = 0; i < 20000; i++) {
    size_t at = any_bits(seed) % (m.bytes - 8);
    uint64_t bits = any_bits(seed);
    if (dice(seed, 2)) at %= 32768; /* where the words of the queues are */
    memcpy(m.begin + at, &bits, sizeof bits);
    if (i % 100 == 0) send_some(c, requests, seed, 1);
  }
}

/* The seals forbid to shrink it, and not to take pages out of it. */
void attack_punch(const struct shmqd *d, unsigned *seed) {
  shmq_client *c = attack_connect(d, NULL);
  shmq *requests = requests_of(c);
  struct mapping m = find_memory();
  if (m.fd < 0) return;
  if (ftruncate(m.fd, 0) == 0 || fcntl(m.fd, F_ADD_SEALS, F_SEAL_WRITE) == 0) abort();
  for (int i = 0; i < 300; i++) {
    off_t at = (off_t)(any_bits(seed) % m.bytes) & ~4095L;
    send_some(c, requests, seed, 4);
    (void)!fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 4096L << dice(seed, 8));
    if (i == 250)
      (void)!fallocate(m.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m.bytes);
  }
}

/* Wake-ups for nothing, with the word changed and unchanged. */
void attack_bell(const struct shmqd *d, unsigned *seed) {
  shmq_client *c = attack_connect(d, NULL);
  shmq *requests = requests_of(c);
  uint32_t *word, value;
  if (shmq_event_word(requests, &word, &value) != 0) return;
  for (int i = 0; i < 50000; i++) {
    if (dice(seed, 2)) __atomic_add_fetch(word, 2, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, word, FUTEX_WAKE, dice(seed, 4), NULL, NULL, 0);
    if (i % 1000 == 0) send_some(c, requests, seed, 1);
  }
}

/* Every lock of the segment, those of participants that there are not included. */
void attack_locks(const struct shmqd *d, unsigned *seed) {
  shmq_client *c = attack_connect(d, NULL);
  shmq *requests = requests_of(c);
  struct mapping m = find_memory();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", m.fd);
  int again = open(path, O_RDWR | O_CLOEXEC);
  for (int i = 0; i < 200 && again >= 0; i++) {
    struct flock lock = {.l_type = (short)(dice(seed, 2) ? F_WRLCK : F_RDLCK),
                         .l_start = (off_t)dice(seed, 2048),
                         .l_len = (off_t)dice(seed, 512)};
    fcntl(again, F_OFD_SETLK, &lock);
    send_some(c, requests, seed, 1);
  }
  if (dice(seed, 2)) nap_ms(20);
}
