/* SPDX-License-Identifier: Apache-2.0
 *
 * A valid segment, two callers, and a third who changes words between their calls. The input says which
 * segment, who is next and what it does.
 */
#include <unistd.h>

#include "check.h"
#include "guard.h"
#include "world.h"

enum { STEPS_MAX = 200, PATIENCE_NS = 20000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void play(struct caller *callers, const shmq_segment *damaged, struct input *in) {
  for (int step = 0; step < STEPS_MAX && !input_over(in); step++) {
    uint32_t who = input_below(in, 16);
    if (who < 10)
      (void)caller_call(&callers[who < 8 ? 0 : 1], in);
    else
      world_scribble(damaged, in);
    if (callers[0].segment) guard_poison(callers[0].segment);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct input in = input_of(data, size);
  struct caller callers[2] = {{.patience_ns = PATIENCE_NS}, {.patience_ns = PATIENCE_NS}};
  shmq_segment *damaged = NULL;
  int fd = world_create(input_u8(&in));
  check(caller_open(&callers[0], fd) == 0 && caller_open(&callers[1], fd) == 0 &&
            shmq_attach_fd(&damaged, fd) == 0,
        "a new segment cannot be attached");
  play(callers, damaged, &in);
  world_view(fd);
  caller_close(&callers[0]);
  check_result("shmq_recover", shmq_recover(damaged));
  caller_close(&callers[1]);
  shmq_detach(damaged);
  close(fd);
  return 0;
}
