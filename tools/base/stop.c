/* SPDX-License-Identifier: Apache-2.0 */
#include "base/stop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include <shmq/shmq.h>

static const int64_t slice_ns = 500000000;
static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNALS = sizeof stop_signals / sizeof *stop_signals };

static volatile sig_atomic_t requested;

static void request(int number) {
  (void)number;
  requested = 1;
}

void stop_catch(void) {
  struct sigaction action = {.sa_handler = request, .sa_flags = (int)SA_RESETHAND};
  for (int i = 0; i < SIGNALS; i++) {
    struct sigaction old;
    sigaction(stop_signals[i], NULL, &old);
    if (old.sa_handler != SIG_IGN) { /* as nohup and shells without job control want it */
      sigaction(stop_signals[i], &action, NULL);
    }
  }
}

void stop_release(void) {
  for (int i = 0; i < SIGNALS; i++) {
    struct sigaction old;
    sigaction(stop_signals[i], NULL, &old);
    if (old.sa_handler == request) {
      signal(stop_signals[i], SIG_DFL);
    }
  }
  signal(SIGPIPE, SIG_DFL);
}

bool stop_requested(void) { return requested != 0; }

int64_t stop_deadline(int64_t timeout_ns) {
  return timeout_ns < 0 ? SHMQ_FOREVER : shmq_after_ns(timeout_ns);
}

int64_t stop_slice(int64_t deadline_ns) {
  if (deadline_ns == SHMQ_NOWAIT) {
    return SHMQ_NOWAIT;
  }
  int64_t slice = shmq_after_ns(slice_ns);
  return slice < deadline_ns ? slice : deadline_ns;
}

bool stop_try_again(int result, int64_t deadline_ns) {
  if (stop_requested() || (result != -ETIMEDOUT && result != -EINTR)) {
    return false;
  }
  return deadline_ns == SHMQ_FOREVER || shmq_now_ns() < deadline_ns;
}

void stop_sleep(int64_t ns) {
  struct timespec left = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  if (!stop_requested()) {
    nanosleep(&left, NULL);
  }
}
