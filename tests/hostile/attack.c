/* SPDX-License-Identifier: Apache-2.0 */
#include "attack.h"

const struct attack attacks[] = {{"handshake", attack_handshake},
                                 {"greeting", attack_greeting},
                                 {"descriptors", attack_descriptors},
                                 {"quotas", attack_quotas},
                                 {"headers", attack_headers},
                                 {"scribble", attack_scribble},
                                 {"punch", attack_punch},
                                 {"bell", attack_bell},
                                 {"locks", attack_locks},
                                 {NULL, NULL}};

shmq_client *attack_connect(const struct shmqd *d, const shmq_session_options *options) {
  shmq_client *c;
  return shmq_client_connect(&c, d->socket, options, 0) == 0 ? c : NULL;
}

uint16_t attack_resource(shmq_client *c, unsigned *seed) {
  static uint16_t numbers[8];
  static const char *const names[] = {"victim-tree", "victim-log", "victim-pool", "victim-timer",
                                      "victim-kv"};
  if (!numbers[0])
    for (int i = 0; i < 5; i++) {
      int number = shmq_resource(c, names[i]);
      numbers[i] = number > 0 ? (uint16_t)number : UINT16_MAX;
    }
  uint32_t which = dice(seed, 8);
  return which < 5 ? numbers[which] : which == 5 ? (uint16_t)(any_bits(seed) | 0x100) : 0;
}
