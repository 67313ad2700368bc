/* SPDX-License-Identifier: Apache-2.0
 *
 * sqlite-inserts: N processes insert one row each time, through the owner or through libsqlite3.
 *
 *   sqlite-inserts owner SERVICE N SECONDS [DEPTH [FOLDER]]
 *   sqlite-inserts direct DATABASE N SECONDS
 *
 * Through the owner each process has DEPTH inserts in flight, 1 by default. Prints how many inserts were
 * acknowledged, how often the owner died meanwhile, and inserts per second.
 * With a FOLDER, process I appends the number of each acknowledged row to FOLDER/I.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmq/rpc.h>

#include "format.h"

enum { PROCESSES_MAX = 64, DEPTH_MAX = 16 };

struct tally {
  _Alignas(64) uint64_t acknowledged, died, failed;
};

struct plan {
  bool direct;
  const char *where, *folder;
  int depth;
  int64_t end_ns;
  struct tally *tally;
};

static const char insert_sql[] =
    "INSERT INTO rows VALUES (?1, ?2, 'a row of a usual length, as rows go')";

/* ---- through the owner ---- */

static int note(int fd, uint64_t row) {
  char line[32];
  int n = snprintf(line, sizeof line, "%llu\n", (unsigned long long)row);
  return fd < 0 || write(fd, line, (size_t)n) == n ? 0 : -errno;
}

struct inserter {
  shmq_client *client;
  int process, fd;
  uint64_t next_row;
  struct insertion {
    shmq_future *future; /* NULL: none in flight */
    uint64_t row;
  } insertions[DEPTH_MAX];
};

static int send_insert(struct inserter *self, struct insertion *one) {
  struct sql_buffer request = {0};
  one->row = self->next_row++;
  sql_put_record(&request, SQL_STATEMENT, 3);
  sql_put_text(&request, insert_sql);
  sql_put_integer(&request, self->process);
  sql_put_integer(&request, (int64_t)one->row);
  struct iovec part = {.iov_base = request.data, .iov_len = request.size};
  shmq_ask ask = {.op = SQL_BATCH, .parts = &part, .part_count = 1};
  int rc = shmq_request(self->client, &ask, SHMQ_FOREVER, &one->future);
  sql_buffer_free(&request);
  return rc;
}

static int take_answer(struct inserter *self, struct insertion *one, struct tally *tally) {
  shmq_result result;
  int rc = shmq_await(one->future, &result, SHMQ_FOREVER);
  shmq_future_free(one->future);
  one->future = NULL;
  if (rc == 0) {
    rc = note(self->fd, one->row);
    tally->acknowledged++;
  } else if (rc == -EOWNERDEAD) { /* done or not: the next row has another number */
    tally->died++;
    rc = 0;
  }
  return rc;
}

/* The oldest answer makes room for the next insert, until the time is over and all are answered. */
static int keep_inserting(struct inserter *self, const struct plan *plan, struct tally *tally) {
  int rc = 0;
  for (int i = 0, idle = 0; rc == 0 && idle < plan->depth; i = (i + 1) % plan->depth) {
    struct insertion *one = &self->insertions[i];
    if (one->future) rc = take_answer(self, one, tally);
    bool more = rc == 0 && shmq_now_ns() < plan->end_ns;
    if (more) rc = send_insert(self, one);
    idle = more ? 0 : idle + 1;
  }
  return rc;
}

static int insert_through_owner(const struct plan *plan, int process, struct tally *tally) {
  struct inserter self = {.process = process, .fd = -1};
  char path[4096];
  if (plan->folder) {
    snprintf(path, sizeof path, "%s/%d", plan->folder, process);
    self.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  }
  /* There may be more of us than processors: who waits for the disk leaves them to the others. */
  int rc = shmq_client_open(&self.client, plan->where, SHMQ_NOSPIN);
  if (rc == 0) rc = keep_inserting(&self, plan, tally);
  if (rc) fprintf(stderr, "sqlite-inserts: %s\n", shmq_strerror(rc));
  return rc ? 1 : 0;
}

/* ---- through libsqlite3 ---- */

static int insert_direct(const struct plan *plan, int process, struct tally *tally) {
  sqlite3 *db;
  sqlite3_stmt *stmt = NULL;
  int code = sqlite3_open(plan->where, &db);
  sqlite3_busy_timeout(db, 60000);
  if (!code) code = sqlite3_exec(db, "PRAGMA synchronous = FULL", NULL, NULL, NULL);
  if (!code) code = sqlite3_prepare_v2(db, insert_sql, -1, &stmt, NULL);
  for (int64_t row = 0; !code && shmq_now_ns() < plan->end_ns; row++) {
    sqlite3_bind_int(stmt, 1, process);
    sqlite3_bind_int64(stmt, 2, row);
    code = sqlite3_step(stmt);
    sqlite3_reset(stmt);
    if (code == SQLITE_DONE) tally->acknowledged++;
    if (code == SQLITE_BUSY) tally->failed++;
    if (code == SQLITE_DONE || code == SQLITE_BUSY) code = SQLITE_OK;
  }
  if (code) fprintf(stderr, "sqlite-inserts: %s\n", sqlite3_errmsg(db));
  sqlite3_finalize(stmt);
  sqlite3_close(db);
  return code ? 1 : 0;
}

/* ---- all of them ---- */

static int run(const struct plan *plan, int n) {
  int64_t begun = shmq_now_ns();
  for (int i = 0; i < n; i++) {
    pid_t pid = fork();
    if (pid < 0) return perror("sqlite-inserts"), 1;
    if (pid == 0)
      _exit(plan->direct ? insert_direct(plan, i, &plan->tally[i])
                         : insert_through_owner(plan, i, &plan->tally[i]));
  }
  int failed = 0, status;
  while (wait(&status) > 0) failed |= status != 0 && !WIFSIGNALED(status);
  struct tally sum = {0};
  for (int i = 0; i < n; i++) {
    sum.acknowledged += plan->tally[i].acknowledged;
    sum.died += plan->tally[i].died;
    sum.failed += plan->tally[i].failed;
  }
  double seconds = (double)(shmq_now_ns() - begun) / 1e9;
  printf("acknowledged=%llu died=%llu busy=%llu per_second=%.0f\n",
         (unsigned long long)sum.acknowledged, (unsigned long long)sum.died,
         (unsigned long long)sum.failed, (double)sum.acknowledged / seconds);
  return failed;
}

int main(int argc, char **argv) {
  int n = argc > 4 ? atoi(argv[3]) : 0;
  double seconds = argc > 4 ? atof(argv[4]) : 0;
  int depth = argc > 5 ? atoi(argv[5]) : 1;
  bool direct = argc > 4 && strcmp(argv[1], "direct") == 0;
  if (n < 1 || n > PROCESSES_MAX || seconds <= 0 || depth < 1 || depth > DEPTH_MAX ||
      (!direct && strcmp(argv[1], "owner") != 0)) {
    fputs("usage: sqlite-inserts owner|direct SERVICE|DATABASE N SECONDS [DEPTH [FOLDER]]\n",
          stderr);
    return 2;
  }
  struct plan plan = {
      .direct = direct, .where = argv[2], .folder = argc > 6 ? argv[6] : NULL, .depth = depth};
  plan.tally = mmap(NULL, PROCESSES_MAX * sizeof *plan.tally, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (plan.tally == MAP_FAILED) return perror("sqlite-inserts"), 1;
  plan.end_ns = shmq_after_ns((int64_t)(seconds * 1e9));
  return run(&plan, n);
}
