/* SPDX-License-Identifier: Apache-2.0
 *
 * Durable records without a daemon: each process syncs for itself.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer.h"
#include "sides.h"

enum { PATH = 512, RECORD_MAX = 4096, BUSY_MS = 60000 };

struct shared {
  struct gate gate;
  struct {
    _Alignas(LINES) long records;
    double start, end;
  } side[SIDES_MAX];
};

typedef void write_fn(void *handle, const void *record, size_t bytes);

struct run {
  const struct writers *writers;
  struct shared *shared;
  double seconds;
  void *(*open)(const char *dir);
  write_fn *write;
};

static void writer(void *context, int number) {
  const struct run *r = context;
  char record[RECORD_MAX];
  size_t bytes = r->writers->bytes < RECORD_MAX ? r->writers->bytes : RECORD_MAX;
  void *handle = r->open(r->writers->dir);
  memset(record, 'a' + number, sizeof record);
  r->write(handle, record, bytes);
  gate_pass(&r->shared->gate);
  double start = window_now(), now = start;
  long n = 0;
  for (; now - start < r->seconds; n++, now = window_now()) r->write(handle, record, bytes);
  r->shared->side[number].records = n;
  r->shared->side[number].start = start;
  r->shared->side[number].end = now;
}

static bool run_writers(struct run *r, struct window *out) {
  int n = r->writers->processes;
  r->shared = shared_memory(sizeof *r->shared);
  bool ok = r->shared && sides_run(&r->shared->gate, n, false, writer, r);
  out->value = 0;
  for (int i = 0; ok && i < n; i++)
    out->value +=
        (double)r->shared->side[i].records / (r->shared->side[i].end - r->shared->side[i].start);
  shared_memory_free(r->shared, sizeof *r->shared);
  return ok;
}

static void die(const char *what, const char *why) {
  fprintf(stderr, "bench: %s: %s\n", what, why);
  abort();
}

/* ---- write and fdatasync ---- */

static void *file_open(const char *dir) {
  char path[PATH];
  snprintf(path, sizeof path, "%s/appended", dir);
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) die(path, "cannot be opened");
  return (void *)(intptr_t)fd;
}

static void file_write(void *handle, const void *record, size_t bytes) {
  int fd = (int)(intptr_t)handle;
  if (write(fd, record, bytes) != (ssize_t)bytes || fdatasync(fd) != 0)
    die("appended", "write failed");
}

bool fdatasync_window(void *what, double seconds, struct window *out) {
  struct run r = {.writers = what, .seconds = seconds, .open = file_open, .write = file_write};
  return run_writers(&r, out);
}

/* ---- SQLite ---- */

struct database {
  sqlite3 *db;
  sqlite3_stmt *insert;
};

static void must(sqlite3 *db, int rc) {
  if (rc != SQLITE_OK) die("sqlite", sqlite3_errmsg(db));
}

static void *database_open(const char *dir) {
  char path[PATH];
  struct database *d = calloc(1, sizeof *d);
  if (!d) die("sqlite", "no memory");
  snprintf(path, sizeof path, "%s/records.db", dir);
  must(d->db, sqlite3_open(path, &d->db));
  sqlite3_busy_timeout(d->db, BUSY_MS);
  int rc;
  do { /* who changes the journal's mode beside others is told "busy" at once */
    rc = sqlite3_exec(d->db,
                      "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                      "CREATE TABLE IF NOT EXISTS record(data BLOB)",
                      NULL, NULL, NULL);
  } while (rc == SQLITE_BUSY);
  must(d->db, rc);
  must(d->db, sqlite3_prepare_v2(d->db, "INSERT INTO record VALUES (?)", -1, &d->insert, NULL));
  return d;
}

static void database_write(void *handle, const void *record, size_t bytes) {
  struct database *d = handle;
  must(d->db, sqlite3_bind_blob(d->insert, 1, record, (int)bytes, SQLITE_STATIC));
  if (sqlite3_step(d->insert) != SQLITE_DONE) die("sqlite", sqlite3_errmsg(d->db));
  sqlite3_reset(d->insert);
}

bool sqlite_window(void *what, double seconds, struct window *out) {
  struct run r = {
      .writers = what, .seconds = seconds, .open = database_open, .write = database_write};
  return run_writers(&r, out);
}
