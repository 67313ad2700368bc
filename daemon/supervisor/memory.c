/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/memory.h"

static uint32_t bounded(uint32_t wanted, const struct section *settings, const char *fallback,
                        const char *most) {
  int64_t value = wanted ? wanted : section_number(settings, fallback);
  int64_t max = section_number(settings, most);
  return (uint32_t)(value < max ? value : max);
}

static uint32_t power_of_two(uint32_t n) {
  uint32_t p = 1;
  while (p < n) p <<= 1;
  return p;
}

int session_memory(const struct section *settings, const shmq_session_options *wanted,
                   uint32_t *credits, int *fd) {
  shmq_service_options o = {
      .credits = power_of_two(bounded(wanted->credits, settings, "credits", "max_credits")),
      .blocks = bounded(wanted->blocks, settings, "blocks", "max_blocks"),
      .block_bytes = bounded(wanted->block_bytes, settings, "block_bytes", "max_block_bytes"),
      .mode = 0666, /* who has the descriptor may open it: nobody can find it by name */
      .redeliver = SHMQ_REDELIVER_ALWAYS,
      .single = 1};
  o.aside = o.credits; /* whatever waits, its queue goes on */
  *credits = o.credits;
  return shmq_service_create_memfd(&o, fd);
}
