/* SPDX-License-Identifier: Apache-2.0
 *
 * Progress: a bar on a terminal, a line a second otherwise.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <shmq/shmq.h>

#include "treehash.h"

enum { BAR = 24, TERMINAL_NS = 100000000, PLAIN_NS = 1000000000 };

void progress_begin(struct progress *p, const struct treehash *t) {
  struct winsize size;
  *p = (struct progress){
      .terminal = isatty(STDOUT_FILENO) && !t->quiet, .columns = 80, .begun_ns = shmq_now_ns()};
  if (p->terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
    p->columns = size.ws_col;
  p->shown_ns = p->begun_ns;
}

static uint64_t total_bytes(const struct treehash *t) {
  uint64_t bytes = 0;
  for (unsigned i = 0; i < t->workers; i++)
    bytes += atomic_load_explicit(&t->stats[i].bytes, memory_order_relaxed);
  return bytes;
}

/* Files of each worker, as far as they fit. */
static void add_workers(char *line, size_t room, const struct treehash *t) {
  size_t n = strlen(line);
  for (unsigned i = 0; i < t->workers && n + 12 < room; i++)
    n += (size_t)snprintf(line + n, room - n, " w%u:%llu", i,
                          (unsigned long long)atomic_load(&t->stats[i].files));
}

static void draw_bar(char bar[BAR + 1], uint64_t done, uint64_t total) {
  uint64_t filled = total ? done * BAR / total : 0;
  for (unsigned i = 0; i < BAR; i++) bar[i] = i < filled ? '#' : '.';
  bar[BAR] = 0;
}

void progress_show(struct progress *p, const struct treehash *t, uint64_t done, uint64_t total,
                   bool listed) {
  char line[512], bar[BAR + 1];
  int64_t now = shmq_now_ns();
  if (t->quiet || now - p->shown_ns < (p->terminal ? TERMINAL_NS : PLAIN_NS)) return;
  p->shown_ns = now;
  double seconds = (double)(now - p->begun_ns) / 1e9;
  double mb = (double)total_bytes(t) / 1e6 / seconds;
  draw_bar(bar, done, total);
  snprintf(line, sizeof line, "[%s] %llu/%llu%s files %.0f MB/s", bar, (unsigned long long)done,
           (unsigned long long)total, listed ? "" : "+", mb);
  add_workers(line, sizeof line, t);
  if (p->terminal)
    printf("\r\033[K%.*s", (int)p->columns - 1, line);
  else
    puts(line + BAR + 3);
  fflush(stdout);
}

void progress_say(struct progress *p, const char *format, ...) {
  va_list arguments;
  if (p->terminal) fputs("\r\033[K", stdout);
  va_start(arguments, format);
  vprintf(format, arguments);
  va_end(arguments);
  putchar('\n');
  fflush(stdout);
}

void progress_end(struct progress *p) {
  if (p->terminal) fputs("\r\033[K", stdout);
  fflush(stdout);
}
