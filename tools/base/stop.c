/* SPDX-License-Identifier: Apache-2.0 */
#include "base/stop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include <shmq/shmq.h>

static const struct itimerspec again_and_again = {.it_value = {.tv_nsec = 20000000},
                                                  .it_interval = {.tv_nsec = 20000000}};
static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNALS = sizeof stop_signals / sizeof *stop_signals, TICK = SIGALRM };

static volatile sig_atomic_t requested;
static timer_t timer;

static void request(int number) {
  int error = errno;
  requested = number;
  timer_settime(timer, 0, &again_and_again, NULL);
  errno = error;
}

/* Its only effect is that a system call ends. */
static void tick(int number) { (void)number; }

static void make_timer(void) {
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = TICK};
  struct sigaction action = {.sa_handler = tick};
  sigset_t set;
  sigaction(TICK, &action, NULL);
  sigemptyset(&set);
  sigaddset(&set, TICK);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  timer_create(CLOCK_MONOTONIC, &event, &timer);
}

void stop_catch(void) {
  struct sigaction action = {.sa_handler = request, .sa_flags = (int)SA_RESETHAND};
  make_timer();
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
int stop_signal(void) { return requested; }

int64_t stop_deadline(int64_t timeout_ns) {
  return timeout_ns < 0 ? SHMQ_FOREVER : shmq_after_ns(timeout_ns);
}

bool stop_try_again(int result) { return result == -EINTR && !stop_requested(); }

void stop_sleep(int64_t ns) {
  struct timespec left = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  if (!stop_requested()) {
    nanosleep(&left, NULL);
  }
}
