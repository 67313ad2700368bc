/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/error.h"
#include "shmq/shmq.h"

const char *shmq_strerror(int code) {
  switch (code > 0 ? -code : code) { /* negative: its range is the greater one */
#define X(name, text) \
  case -(name): return text;
    SHMQ__ERRORS(X)
#undef X
    case 0: return "success";
    default: return "unknown error";
  }
}
