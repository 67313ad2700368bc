/* SPDX-License-Identifier: Apache-2.0 */
#include "base/time.h"
#include "os/process.h"
#include "shmq/shmq.h"

int64_t shmq_now_ns(void) { return shmq__now_ns(); }

int64_t shmq_after_ns(int64_t ns) { return ns <= 0 ? SHMQ_NOWAIT : time_add(shmq__now_ns(), ns); }
