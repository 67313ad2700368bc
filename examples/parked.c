/* SPDX-License-Identifier: Apache-2.0
 *
 * parked: three connections to a server, parked in a queue; eight workers lease one when they need it.
 *
 * The token of a connection lies in the queue while nobody uses it. Who leases it has it alone, and gives it back
 * with nack, which delivers it to the next. The token's bytes are its holder's to write: it says there that it
 * is in the middle of something. So who finds that in a token fresh from the queue knows that the last holder died,
 * and first clears what he left behind. -k kills that many holders.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmq/shmq.h>

enum { CONNECTIONS = 3, WORKERS = 8, QUESTIONS = 50 };

struct token {
  int connection;
  bool in_use;
};

static int connections[CONNECTIONS]; /* the workers' ends, which they inherit */

/* ---- the server: one process for each connection; it doubles numbers ---- */

static int serve(int fd) {
  long number;
  while (recv(fd, &number, sizeof number, 0) == sizeof number) {
    number *= 2;
    if (send(fd, &number, sizeof number, 0) < 0) return 1;
  }
  return 0;
}

static int connect_to_server(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)) return -errno;
  if (fork() == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(pair[0]);
    _exit(serve(pair[1]));
  }
  close(pair[1]);
  return pair[0];
}

/* ---- a worker ---- */

/* An answer that the dead holder had asked for: ask for one's own mark and read up to it. */
static void clear(int fd) {
  long mark = -getpid(), got = 0;
  if (send(fd, &mark, sizeof mark, 0) < 0) return;
  while (got != 2 * mark && recv(fd, &got, sizeof got, 0) > 0) continue;
}

static int ask(int fd, long number, bool die) {
  long answer;
  if (send(fd, &number, sizeof number, 0) < 0) return -errno;
  if (die) kill(getpid(), SIGKILL); /* with the question out and the token held */
  if (recv(fd, &answer, sizeof answer, 0) != sizeof answer) return -errno;
  return answer == 2 * number ? 0 : -EBADMSG; /* somebody else's answer */
}

static int use(shmq *pool, long number, bool die) {
  shmq_message m;
  int rc = shmq_lease(pool, &m, SHMQ_FOREVER);
  if (rc) return rc;
  struct token *token = m.data;
  int fd = connections[token->connection];
  if (token->in_use) clear(fd);
  token->in_use = true;
  rc = ask(fd, number, die);
  token->in_use = false;
  int back = shmq_nack(pool, &m);
  return rc ? rc : back;
}

static int work(const char *segment, int worker, bool die) {
  shmq *pool;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  int rc = shmq_open(&pool, segment, 0);
  for (int i = 0; i < QUESTIONS && !rc; i++) rc = use(pool, 1000L * worker + i, die && i == QUESTIONS / 2);
  if (rc) fprintf(stderr, "parked: worker %d: %s\n", worker, shmq_strerror(rc));
  shmq_close(pool);
  return rc != 0;
}

/* ---- the parent ---- */

static int park_all(const char *segment) {
  shmq *pool;
  shmq_queue_options queue = {.name = "pool", .capacity = CONNECTIONS, .message_bytes = sizeof(struct token)};
  int rc = shmq_create(segment, &(shmq_options){.queues = &queue, .queue_count = 1});
  if (!rc) rc = shmq_open(&pool, segment, 0);
  for (int i = 0; i < CONNECTIONS && !rc; i++) {
    connections[i] = connect_to_server();
    struct token token = {.connection = i};
    rc = connections[i] < 0 ? connections[i] : shmq_put(pool, &token, sizeof token, SHMQ_NOWAIT);
  }
  if (!rc) shmq_close(pool);
  return rc;
}

int main(int argc, char **argv) {
  int kills = argc == 3 && strcmp(argv[1], "-k") == 0 ? atoi(argv[2]) : 0;
  char segment[64];
  pid_t pids[WORKERS];
  int killed = 0, failed = 0, status;
  snprintf(segment, sizeof segment, "parked.%d", (int)getpid());
  int rc = park_all(segment);
  if (rc) return fprintf(stderr, "parked: %s\n", shmq_strerror(rc)), 1;
  for (int i = 0; i < WORKERS; i++)
    if ((pids[i] = fork()) == 0) _exit(work(segment, i, i < kills));
  for (int i = 0; i < WORKERS; i++) {
    waitpid(pids[i], &status, 0);
    killed += WIFSIGNALED(status);
    failed += WIFEXITED(status) && WEXITSTATUS(status) != 0;
  }
  shmq_unlink(segment);
  printf("%d connections, %d workers, %d killed, %d failed\n", CONNECTIONS, WORKERS, killed, failed);
  return failed != 0;
}
