/* SPDX-License-Identifier: Apache-2.0
 *
 * What a hostile client does to shmqd. Each attack runs in a process of its own, which may end as it likes.
 */
#ifndef TEST_ATTACK_H
#define TEST_ATTACK_H

#include "support/shmqd.h"

struct attack {
  const char *name;
  void (*run)(const struct shmqd *d, unsigned *seed);
};

extern const struct attack attacks[]; /* ended by one without a name */

static inline uint32_t dice(unsigned *seed, uint32_t sides) {
  return (uint32_t)rand_r(seed) % sides;
}
static inline uint64_t any_bits(unsigned *seed) {
  uint64_t bits =
      (uint64_t)rand_r(seed) << 33 ^ (uint64_t)rand_r(seed) << 11 ^ (uint64_t)rand_r(seed);
  return bits >> dice(seed, 64);
}

/* A session, or none where a quota is used up just now. */
shmq_client *attack_connect(const struct shmqd *d, const shmq_session_options *options);
/* A number that means something as often as not: of a victim's resource, which others do not use. */
uint16_t attack_resource(shmq_client *c, unsigned *seed);

/* handshake.c */
void attack_handshake(const struct shmqd *d, unsigned *seed);
void attack_greeting(const struct shmqd *d, unsigned *seed);
void attack_descriptors(const struct shmqd *d, unsigned *seed);
void attack_quotas(const struct shmqd *d, unsigned *seed);
/* memory.c */
void attack_headers(const struct shmqd *d, unsigned *seed);
void attack_scribble(const struct shmqd *d, unsigned *seed);
void attack_punch(const struct shmqd *d, unsigned *seed);
void attack_bell(const struct shmqd *d, unsigned *seed);
void attack_locks(const struct shmqd *d, unsigned *seed);

#endif
