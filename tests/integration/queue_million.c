/* SPDX-License-Identifier: Apache-2.0
 *
 * Processes that put and processes that get, with nothing but the public calls: messages of sizes log-uniform
 * from 0 to 1 MiB, none lost, none twice, none out of its producer's order, no byte wrong.
 *
 *   queue_million PRODUCERS CONSUMERS MESSAGES [SEED]
 */
#include <math.h>
#include <sys/mman.h>

#include "support/check.h"

enum { LONGEST = 1 << 20, CELL = 1024, STRIDE = 4096, PRODUCERS_MAX = 16 };

/* What a message of at least this size begins with, and repeats every STRIDE bytes. Shorter ones are cut. */
struct stamp {
  uint64_t sequence;
  uint32_t producer, size;
};

static char name[64];
static int producers, consumers;
static uint64_t messages; /* of each producer */
static uint64_t seed;

/* Counts of what arrived, by all consumers: per producer how many, how many bytes, and the sum of a hash of
 * all sequence numbers, which tells a loss and a doubling that would cancel each other. */
static struct tally {
  _Atomic uint64_t count, bytes, sum;
} *tallies;

static uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= UINT64_C(0xbf58476d1ce4e5b9);
  x ^= x >> 27;
  x *= UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}
/* Log-uniform from 0: exp(u * ln(LONGEST + 1)) - 1. The receiver computes it too. */
static uint32_t size_of(uint32_t producer, uint64_t sequence) {
  double u = (double)(mix(seed + sequence * PRODUCERS_MAX + producer) >> 11) / 9007199254740992.0;
  return (uint32_t)(exp(u * log(LONGEST + 1.0)) - 1.0);
}

static uint32_t stamped(uint32_t size) { return size < sizeof(struct stamp) ? size : (uint32_t)sizeof(struct stamp); }

static void produce(void *argument) {
  uint32_t me = *(uint32_t *)argument;
  static unsigned char data[LONGEST];
  shmq *q;
  memset(data, (int)me + 1, sizeof data);
  EXPECT(shmq_open(&q, name, 0), 0);
  for (uint64_t i = 0; i < messages; i++) {
    struct stamp stamp = {.sequence = i, .producer = me, .size = size_of(me, i)};
    memcpy(data, &stamp, sizeof stamp);
    for (uint32_t at = STRIDE; at + sizeof stamp <= stamp.size; at += STRIDE)
      memcpy(data + at, &stamp, sizeof stamp);
    EXPECT(shmq_put(q, data, stamp.size, SHMQ_FOREVER), 0);
  }
  shmq_close(q);
}

/* A message too short for a whole stamp says nothing of itself but its size: it is its producer's next one,
 * which only one producer and one consumer can tell. */
static void consume(void *argument) {
  (void)argument;
  shmq *q;
  uint64_t next[PRODUCERS_MAX] = {0};
  bool alone = producers == 1 && consumers == 1;
  EXPECT(shmq_open(&q, name, 0), 0);
  for (;;) {
    shmq_message m;
    int rc = shmq_lease(q, &m, SHMQ_FOREVER);
    if (rc == -EPIPE) break;
    EXPECT(rc, 0);
    struct stamp stamp = {.sequence = next[0], .size = (uint32_t)m.size};
    bool whole = m.size >= sizeof stamp;
    memcpy(&stamp, m.data, stamped((uint32_t)m.size) == sizeof stamp ? sizeof stamp : 0);
    CHECK(stamp.size == m.size && stamp.producer < (uint32_t)producers, "a message that nobody put");
    for (uint32_t at = STRIDE; at + sizeof stamp <= m.size; at += STRIDE)
      CHECK(memcmp((char *)m.data + at, &stamp, sizeof stamp) == 0, "a wrong byte at %u", at);
    if (m.size > sizeof stamp)
      CHECK(((unsigned char *)m.data)[m.size - 1] == stamp.producer + 1 || (m.size % STRIDE) <= sizeof stamp,
            "a wrong byte at the end");
    struct tally *tally = &tallies[whole || alone ? stamp.producer : PRODUCERS_MAX];
    if (whole || alone) {
      CHECK(stamp.size == size_of(stamp.producer, stamp.sequence), "size of %lu", stamp.sequence);
      CHECK(alone ? stamp.sequence == next[0] : stamp.sequence >= next[stamp.producer],
            "%lu of %u after %lu", stamp.sequence, stamp.producer, next[stamp.producer]);
      next[stamp.producer] = stamp.sequence + 1;
      tally->sum += mix(stamp.sequence);
    }
    tally->count++;
    tally->bytes += m.size;
    EXPECT(shmq_ack(q, &m), 0);
  }
  shmq_close(q);
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: queue_million PRODUCERS CONSUMERS MESSAGES [SEED]\n");
    return 2;
  }
  producers = atoi(argv[1]);
  consumers = atoi(argv[2]);
  messages = strtoull(argv[3], NULL, 10) / (uint64_t)producers;
  seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
  CHECK(producers >= 1 && producers < PRODUCERS_MAX && consumers >= 1 && consumers < PRODUCERS_MAX);
  snprintf(name, sizeof name, "t-million-%d", getpid());
  tallies = mmap(NULL, (PRODUCERS_MAX + 1) * sizeof *tallies, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  shmq_queue_options queue = {.capacity = 1024, .message_bytes = CELL};
  shmq_options o = {.queues = &queue, .queue_count = 1, .blocks = 16, .block_bytes = LONGEST};
  EXPECT(shmq_create(name, &o), 0);
  pid_t putting[PRODUCERS_MAX], getting[PRODUCERS_MAX];
  uint32_t numbers[PRODUCERS_MAX];
  for (int i = 0; i < consumers; i++) getting[i] = child(consume, NULL);
  for (int i = 0; i < producers; i++) {
    numbers[i] = (uint32_t)i;
    putting[i] = child(produce, &numbers[i]);
  }
  int failed = 0;
  for (int i = 0; i < producers; i++) failed |= ended(putting[i]);
  shmq *q;
  EXPECT(shmq_open(&q, name, 0), 0);
  EXPECT(shmq_unlink(name), 0);
  EXPECT(shmq_shutdown(q), 0);
  for (int i = 0; i < consumers; i++) failed |= ended(getting[i]);
  CHECK(!failed);
  EXPECT(shmq_join(q, SHMQ_NOWAIT), 0);
  shmq_close(q);

  uint64_t count = 0, bytes = 0, expected_bytes = 0, small = 0;
  bool alone = producers == 1 && consumers == 1;
  for (int p = 0; p < producers; p++) {
    uint64_t own = 0, sum = 0;
    for (uint64_t i = 0; i < messages; i++) {
      uint32_t size = size_of((uint32_t)p, i);
      bool tells = alone || size >= sizeof(struct stamp);
      expected_bytes += size;
      own += tells;
      small += !tells;
      sum += tells ? mix(i) : 0;
    }
    CHECK(tallies[p].count == own, "%lu of %lu from producer %d", tallies[p].count, own, p);
    CHECK(tallies[p].sum == sum, "a loss and a doubling from producer %d", p);
    count += own;
    bytes += tallies[p].bytes;
  }
  CHECK(tallies[PRODUCERS_MAX].count == small, "%lu of %lu small ones", tallies[PRODUCERS_MAX].count, small);
  bytes += tallies[PRODUCERS_MAX].bytes;
  CHECK(bytes == expected_bytes, "%lu bytes of %lu", bytes, expected_bytes);
  printf("messages=%lu bytes=%lu lost=0 duplicated=0 reordered=0\n", count + small, bytes);
  return 0;
}
