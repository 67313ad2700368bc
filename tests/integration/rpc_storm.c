/* SPDX-License-Identifier: Apache-2.0
 *
 * Askers and servers that are killed all the time: every call ends in exactly one of value, error, death
 * or deadline, and no answer reaches the wrong asker: it carries who asked, and for what.
 *   rpc_storm [SECONDS]
 */
#include <stdatomic.h>
#include <sys/mman.h>

#include "support/service.h"

enum { ASKERS = 8, SERVERS = 3, KILL_MS = 50 };

struct tally {
  _Atomic uint64_t values, died, expired, other, wrong;
};
static struct tally *tally;

static void ask_for_ever(int fd) {
  shmq_client *c = asker(fd);
  uint64_t me = (uint64_t)getpid() << 32;
  shmq_result r;
  for (uint64_t n = 1;; n++) {
    shmq_ask a = {
        .op = OP_ECHO, .value = {me | n, ~(me | n)}, .flags = n % 2 ? SHMQ_ASK_IDEMPOTENT : 0};
    int rc = shmq_call(c, &a, &r, shmq_after_ns(2000 * MILLISECOND));
    if (rc == 0 && (r.value[0] != (me | n) + 1 || r.value[1] != ~(me | n))) tally->wrong++;
    if (rc == 0)
      tally->values++;
    else if (rc == -EOWNERDEAD && r.executed == SHMQ_EXECUTED_UNKNOWN && n % 2 == 0)
      tally->died++;
    else if (rc == -ETIMEDOUT)
      tally->expired++;
    else {
      fprintf(stderr, "a call ended with %s\n", shmq_strerror(rc));
      tally->other++;
    }
  }
}

static pid_t start(int fd, int which) {
  pid_t pid = fork();
  if (pid) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (which < ASKERS)
    ask_for_ever(fd);
  else
    serve_for_ever(fd);
  _exit(1);
}

int main(int argc, char **argv) {
  int seconds = argc > 1 ? atoi(argv[1]) : 5;
  shmq_service_options o = {.askers = ASKERS, .credits = 8, .participants = 200};
  pid_t pids[ASKERS + SERVERS];
  unsigned seed = 1;
  int fd, kills = 0;
  MUST(shmq_service_create_memfd(&o, &fd));
  tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  for (int i = 0; i < ASKERS + SERVERS; i++) pids[i] = start(fd, i);

  int64_t end = shmq_after_ns(seconds * 1000 * MILLISECOND);
  for (; shmq_now_ns() < end; kills++) {
    nap_ms(KILL_MS);
    int victim = (int)((unsigned)rand_r(&seed) % (ASKERS + SERVERS));
    int status;
    kill(pids[victim], SIGKILL);
    waitpid(pids[victim], &status, 0);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) tally->other++;
    pids[victim] = start(fd, victim);
  }
  for (int i = 0; i < ASKERS + SERVERS; i++) stop_server(pids[i]);

  /* What is left serves and asks as on the first day. */
  pid_t server = start_server(fd);
  shmq_client *c = asker(fd);
  shmq_result r;
  int rc = 0;
  for (int i = 0; i < 1000 && rc == 0; i++) rc = ask_value(c, OP_ECHO, 1, &r);
  shmq_client_close(c);
  stop_server(server);
  printf("kills=%d values=%llu died=%llu expired=%llu wrong=%llu other=%llu afterwards=%d\n", kills,
         (unsigned long long)tally->values, (unsigned long long)tally->died,
         (unsigned long long)tally->expired, (unsigned long long)tally->wrong,
         (unsigned long long)tally->other, rc);
  return tally->wrong || tally->other || rc || !tally->values ? 1 : 0;
}
