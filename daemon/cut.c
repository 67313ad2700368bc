/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "cut.h"

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static uintptr_t page_bytes;
static _Thread_local volatile sig_atomic_t pages;

/* Anything else that this signal can mean is fatal, as it would be without us: the access is made again. */
static void touched(int signal_number, siginfo_t *info, void *context) {
  (void)context;
  void *page = (void *)((uintptr_t)info->si_addr & ~(page_bytes - 1));
  if (info->si_code != BUS_ADRERR || mmap(page, page_bytes, PROT_READ | PROT_WRITE,
                                          MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != page)
    signal(signal_number, SIG_DFL);
  else
    pages = pages + 1;
}

void cut_survive(void) {
  struct sigaction action = {.sa_sigaction = touched, .sa_flags = SA_SIGINFO};
  page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
  sigaction(SIGBUS, &action, NULL);
}

unsigned cut_pages(void) { return (unsigned)pages; }
