/* SPDX-License-Identifier: Apache-2.0
 *
 * What does the daemon's work without a daemon: the references of its figures.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stddef.h>

#include "window.h"

/* Random reads of 4 KiB by fio, 32 under way. A window_fn on a struct fio: reads a second. */
struct fio {
  const char *path;
  int direct;
};
bool fio_window(void *fio, double seconds, struct window *out);

/* Durable records by so many processes, each for itself. Window functions on a struct writers: records a second. */
struct writers {
  const char *dir;
  int processes;
  size_t bytes;
};
/* write and fdatasync at the end of one file that all append to. */
bool fdatasync_window(void *writers, double seconds, struct window *out);
/* INSERT into one SQLite database, journal_mode WAL, synchronous FULL. */
bool sqlite_window(void *writers, double seconds, struct window *out);

#endif
