/* SPDX-License-Identifier: Apache-2.0
 *
 * fio as the reference for reads: io_uring with registered buffers and a registered file, one job on one CPU.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first number behind `key` behind "read", in fio's JSON. 0: none. */
static double iops_of(const char *json) {
  const char *at = strstr(json, "\"read\"");
  at = at ? strstr(at, "\"iops\"") : NULL;
  at = at ? strchr(at, ':') : NULL;
  return at ? strtod(at + 1, NULL) : 0;
}

static size_t output_of(const char *command, char *text, size_t room) {
  FILE *f = popen(command, "re");
  size_t n = f ? fread(text, 1, room - 1, f) : 0;
  text[n] = 0;
  return f && pclose(f) == 0 ? n : 0;
}

bool fio_window(void *what, double seconds, struct window *out) {
  const struct fio *f = what;
  static char json[1 << 16];
  char command[1024];
  snprintf(
      command, sizeof command,
      "fio --name=read --filename='%s' --rw=randread --bs=4k --ioengine=io_uring --iodepth=32 "
      "--fixedbufs=1 --registerfiles=1 --direct=%d --invalidate=0 --norandommap=1 --randrepeat=0 "
      "--time_based=1 --runtime=%dms --cpus_allowed=%d --output-format=json 2>/dev/null",
      f->path, f->direct, (int)(seconds * 1000), placement_cpu(0));
  if (output_of(command, json, sizeof json) == 0) return false;
  out->value = iops_of(json);
  return out->value > 0;
}
