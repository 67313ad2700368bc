/* SPDX-License-Identifier: Apache-2.0
 *
 * Clients append numbered records to a log, with the disk's acknowledgement, while the worker is killed, and they are.
 * Then everything is killed, and the log is read: each acknowledged record is there under the number that was
 * acknowledged, and no record is there twice.
 *
 * Most clients give their records keys and ask again what they do not know, as another process would in their place.
 * The others give none and ask once: that a record is there once is the daemon's doing alone.
 *
 *   daemon_kill [RECORDS WORKER_KILLS CLIENT_KILLS]
 */
#include <sys/mman.h>

#include "support/shmqd.h"

enum { CLIENTS = 8, KEYED = 6, WINDOW = 16, BLOCK = 1 << 18 };

static struct shmqd d;
static uint64_t records = 40000; /* of all clients */
static int worker_kills = 10, client_kills = 10;

/* What the clients were told, in memory that outlives them. */
static struct told {
  uint64_t progress; /* answers, for the killer to spread its kills */
  uint64_t unknown;  /* answers that said so */
  uint64_t number[]; /* by client and sequence; 0: not acknowledged, UNSURE: executed, perhaps */
} * told;
#define UNSURE UINT64_MAX

static uint64_t share(void) { return records / CLIENTS; }
static uint64_t *told_of(int client, uint64_t sequence) {
  return &told->number[(uint64_t)client * share() + sequence];
}

struct record {
  uint32_t client;
  uint32_t reserved;
  uint64_t sequence;
  char text[48];
};

static struct record record_of(int client, uint64_t sequence) {
  struct record r = {.client = (uint32_t)client, .sequence = sequence};
  snprintf(r.text, sizeof r.text, "record %d/%llu", client, (unsigned long long)sequence);
  return r;
}

/* ---- a client ---- */

static shmq_client *connect_again(void) {
  shmq_client *c;
  for (;;) {
    int rc = shmq_client_connect(&c, d.socket, NULL, 0);
    if (!rc) return c;
    CHECK(rc == -ECONNREFUSED || rc == -ENOENT || rc == -ECONNRESET, "%s", shmq_strerror(rc));
    nap_ms(5);
  }
}

static shmq_future *ask(shmq_client *c, int log, int client, uint64_t sequence) {
  struct record r = record_of(client, sequence);
  shmq_id key = {.queue = (uint32_t)client, .position = sequence};
  memcpy(key.segment, "daemon_kill test", sizeof key.segment);
  bool keyed = client < KEYED;
  struct iovec parts[] = {{&key, sizeof key}, {&r, sizeof r}};
  shmq_ask a = {.resource = (uint16_t)log,
                .op = SHMQ_LOG_APPEND,
                .value = {SHMQ_LOG_ACK_DISK, keyed ? SHMQ_LOG_KEYED : 0},
                .parts = keyed ? parts : parts + 1,
                .part_count = keyed ? 2 : 1};
  shmq_future *f;
  MUST(shmq_request(c, &a, SHMQ_FOREVER, &f));
  return f;
}

/* Is there an end to it? What is not known is asked again if that is safe. */
static bool take_answer(int client, uint64_t sequence, const shmq_result *r) {
  uint64_t *number = told_of(client, sequence);
  __atomic_add_fetch(&told->progress, 1, __ATOMIC_RELAXED);
  if (r->status == 0) {
    *number = r->value[0];
    return true;
  }
  CHECK(r->status == -EOWNERDEAD || r->error_class == SHMQ_CLASS_RESTARTED, "%d/%llu: %s", client,
        (unsigned long long)sequence, shmq_strerror(r->status));
  __atomic_add_fetch(&told->unknown, 1, __ATOMIC_RELAXED);
  if (client < KEYED || r->executed == SHMQ_EXECUTED_NO) return false;
  *number = UNSURE;
  return true;
}

static void append_all(int client) {
  shmq_client *c = connect_again();
  int log = shmq_resource(c, "log");
  CHECK(log > 0, "%s", shmq_strerror(log));
  struct {
    shmq_future *future;
    uint64_t sequence;
  } window[WINDOW] = {{0}};
  uint64_t next = 0;
  for (unsigned at = 0, idle = 0; idle < WINDOW; at = (at + 1) % WINDOW) {
    shmq_result r;
    bool again = false;
    if (window[at].future) {
      shmq_await(window[at].future, &r, SHMQ_FOREVER);
      again = !take_answer(client, window[at].sequence, &r);
      shmq_future_free(window[at].future);
      window[at].future = NULL;
    }
    while (!again && next < share() && *told_of(client, next)) next++;
    if (!again && next < share())
      window[at].sequence = next++;
    else if (!again) {
      idle++;
      continue;
    }
    idle = 0;
    window[at].future = ask(c, log, client, window[at].sequence);
  }
  shmq_client_close(c);
  _exit(0);
}

static pid_t start_client(int client) {
  pid_t pid = fork();
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    append_all(client);
  }
  return pid;
}

/* ---- the killer ---- */

static uint64_t progress(void) { return __atomic_load_n(&told->progress, __ATOMIC_RELAXED); }

/* Kills are spread over the work and not over the time: the machine may be slow. */
static bool is_time(int done, int wanted) {
  return done < wanted && progress() >= records * (uint64_t)(done + 1) / (uint64_t)(wanted + 1);
}

static bool kill_worker(void) {
  pid_t pid = shmqd_worker(&d);
  return pid > 0 && kill(pid, SIGKILL) == 0;
}

static void run(void) {
  pid_t pids[CLIENTS];
  int alive = CLIENTS, killed_workers = 0, killed_clients = 0, victim = 0;
  for (int i = 0; i < CLIENTS; i++) pids[i] = start_client(i);
  while (alive) {
    if (is_time(killed_workers, worker_kills) && kill_worker()) killed_workers++;
    if (is_time(killed_clients, client_kills)) {
      if (pids[victim] && kill(pids[victim], SIGKILL) == 0) killed_clients++;
      victim = (victim + 1) % KEYED;
    }
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    for (int i = 0; pid > 0 && i < CLIENTS; i++) {
      if (pids[i] != pid) continue;
      CHECK(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL,
            "client %d: %x", i, (unsigned)status);
      pids[i] = WIFEXITED(status) ? 0 : start_client(i);
      alive -= WIFEXITED(status);
    }
    if (pid <= 0) nap_ms(1);
  }
  CHECK(killed_workers == worker_kills, "%d workers were killed", killed_workers);
  CHECK(killed_clients == client_kills || client_kills > 0, "%d clients were killed",
        killed_clients);
  printf("%llu answers, %llu of them UNKNOWN; %d workers and %d clients were killed\n",
         (unsigned long long)progress(), (unsigned long long)told->unknown, killed_workers,
         killed_clients);
}

/* ---- what there is ---- */

static void check_record(const shmq_log_entry *e, const struct record *r, uint8_t *seen) {
  CHECK(e->bytes == sizeof *r && r->client < CLIENTS && r->sequence < share(), "number %llu",
        (unsigned long long)e->number);
  struct record wanted = record_of((int)r->client, r->sequence);
  CHECK(memcmp(r, &wanted, sizeof wanted) == 0, "number %llu", (unsigned long long)e->number);
  uint64_t i = r->client * share() + r->sequence;
  CHECK(!seen[i], "%u/%llu is there twice", r->client, (unsigned long long)r->sequence);
  seen[i] = 1;
  uint64_t number = told->number[i];
  CHECK(number == e->number || number == UNSURE || number == 0, "%u/%llu: told %llu, is %llu",
        r->client, (unsigned long long)r->sequence, (unsigned long long)number,
        (unsigned long long)e->number);
}

static uint64_t read_some(shmq_client *c, int log, uint64_t number, uint8_t *seen) {
  shmq_result r;
  EXPECT(shmqd_ask(c, log, SHMQ_LOG_READ, number, 0, NULL, 0, BLOCK - 4096, &r), 0);
  for (size_t at = 0; at < r.size;) {
    shmq_log_entry e;
    struct record record;
    memcpy(&e, (char *)r.data + at, sizeof e);
    CHECK(e.number == number, "%llu, not %llu", (unsigned long long)e.number,
          (unsigned long long)number);
    memcpy(&record, (char *)r.data + at + sizeof e, sizeof record);
    check_record(&e, &record, seen);
    at += (sizeof e + e.bytes + 7) & ~(size_t)7;
    number++;
  }
  return number;
}

static void verify(void) {
  shmq_client *c;
  shmq_result r;
  uint8_t *seen = calloc(records, 1);
  const shmq_session_options o = {.blocks = 4, .block_bytes = BLOCK};
  MUST(shmq_client_connect(&c, d.socket, &o, 0));
  int log = shmq_resource(c, "log");
  EXPECT(shmqd_ask(c, log, SHMQ_LOG_STATUS, 0, 0, NULL, 0, 0, &r), 0);
  uint64_t number = r.value[0], end = r.value[1];
  while (number < end) number = read_some(c, log, number, seen);
  for (uint64_t i = 0; i < records; i++)
    CHECK(seen[i] || told->number[i] == UNSURE,
          "%llu/%llu was acknowledged as %llu and is not there", (unsigned long long)(i / share()),
          (unsigned long long)(i % share()), (unsigned long long)told->number[i]);
  shmq_client_close(c);
  free(seen);
  printf("%llu records are in the log\n", (unsigned long long)(end - 1));
}

int main(int argc, char **argv) {
  if (argc == 4) {
    records = strtoull(argv[1], NULL, 10);
    worker_kills = atoi(argv[2]);
    client_kills = atoi(argv[3]);
  }
  records -= records % CLIENTS;
  told = mmap(NULL, sizeof *told + records * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
              -1, 0);
  CHECK(told != MAP_FAILED, "memory");
  shmqd_new_with(&d, "[daemon]\nrestart_first=10ms\nrestart_most=20ms\nrestart_failures=0\n");
  run();
  shmqd_kill_all(&d);
  shmqd_start(&d);
  verify();
  EXPECT(shmqd_stop(&d, SIGTERM), 0);
  shmqd_remove(&d);
  return 0;
}
