/* SPDX-License-Identifier: Apache-2.0
 *
 *   soak [--seconds N] [--seed S] [--ledger DIR]
 *
 * The supervisor: keeps three workers of each role going, kills or stops one of them every 20 ms or
 * so, and watches how long the dead stay unrecovered. After half of the deaths it acts as a guard
 * does and recovers at once; after the others it leaves that to whoever is in need. The last
 * line is JSON.
 * Exit status: 0 nothing lost, duplicated or leaked; 1 otherwise.
 */
#include "soak.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <shmq/inspect.h>

enum { PER_ROLE = 3, WORKERS = PER_ROLE * ROLE_COUNT, PARTICIPANTS = 64 };
#define MS INT64_C(1000000)

struct slot {
  pid_t pid;
  enum role role;
  uint32_t incarnation;
  int64_t continue_at; /* stopped until then; 0: it runs */
  bool kill_stopped;   /* and ends in its sleep */
};

struct grave { /* a death whose recovery is left to the others */
  int64_t died_ns;
  uint32_t index, generation;
};

struct soak {
  char segment_name[32], ledger_path[256];
  uint64_t random;
  int ledger;
  struct judge *judge;
  shmq_segment *segment;
  shmq_view *view;
  struct slot slots[WORKERS];
  struct grave graves[PARTICIPANTS];
  int grave_count;
  uint32_t incarnations;
  uint64_t kills, stops, recoveries, faults, leaked;
  double worst_guarded_ms, worst_found_ms;
  struct {
    struct control control;
    struct mailbox mailboxes[WORKERS];
  } * shared;
};

static void fault(struct soak *s, const char *what, long detail) {
  s->faults++;
  fprintf(stderr, "FAULT %s (%ld)\n", what, detail);
}

static void worst(double *ms, int64_t since) {
  double now = (double)(shmq_now_ns() - since) / (double)MS;
  if (now > *ms) *ms = now;
}

/* ---- workers ---- */

static void hire(struct soak *s, int i) {
  struct slot *slot = &s->slots[i];
  *slot = (struct slot){.role = (enum role)(i / PER_ROLE), .incarnation = ++s->incarnations};
  memset(&s->shared->mailboxes[i], 0, sizeof s->shared->mailboxes[i]);
  struct job job = {.role = slot->role,
                    .segment = s->segment_name,
                    .incarnation = slot->incarnation,
                    .seed = soak_random(&s->random),
                    .ledger = s->ledger,
                    .mailbox = &s->shared->mailboxes[i],
                    .control = &s->shared->control};
  slot->pid = fork();
  if (slot->pid == 0) {
    uint64_t self = (uint64_t)getpid();
    ledger_write(s->ledger, RECORD_BORN, &self, 1, 0);
    work(&job);
  }
  if (slot->pid < 0) {
    perror("soak: fork");
    exit(1);
  }
}

/* What a killed consumer had in its hands but not yet in the ledger. */
static void search_mailbox(struct soak *s, int i) {
  struct mailbox *box = &s->shared->mailboxes[i];
  uint32_t size;
  memcpy(&size, box->buffer + 8, sizeof size);
  uint64_t id = box->armed ? message_id(box->buffer, size) : 0;
  if (id != 0) ledger_write(s->ledger, RECORD_MAYBE, &id, 1, 0);
}

static bool find_participant(struct soak *s, pid_t pid, struct grave *g) {
  shmq_participant_info info;
  for (uint32_t i = 1; i <= PARTICIPANTS; i++) {
    if (shmq_view_participant(s->view, i, &info) < 0 || info.pid != pid) continue;
    *g = (struct grave){.index = i, .generation = info.generation};
    return true;
  }
  return false;
}

static bool recovered(struct soak *s, const struct grave *g) {
  shmq_participant_info info;
  int rc = shmq_view_participant(s->view, g->index, &info);
  return rc == -ENODATA || (rc == 0 && info.generation != g->generation);
}

static void bury(struct soak *s, int i) {
  struct slot *slot = &s->slots[i];
  struct grave grave;
  uint64_t id = (uint64_t)slot->pid, incarnation = slot->incarnation;
  bool joined = find_participant(s, slot->pid, &grave);
  ledger_write(s->ledger, RECORD_KILLED, &id, 1, 0);
  kill(slot->pid, SIGKILL);
  int status;
  while (waitpid(slot->pid, &status, 0) < 0 && errno == EINTR) continue;
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) fault(s, "a worker had ended", status);
  grave.died_ns = shmq_now_ns();
  search_mailbox(s, i);
  ledger_write(s->ledger, RECORD_BURIED, &incarnation, 1, 0);
  s->kills++;
  if (!joined) return;
  if (soak_random(&s->random) % 2 == 0 || s->grave_count == PARTICIPANTS) {
    int rc = shmq_recover(s->segment);
    if (rc < 0) fault(s, "recover", rc);
    s->recoveries++;
    worst(&s->worst_guarded_ms, grave.died_ns);
  } else {
    s->graves[s->grave_count++] = grave;
  }
}

static void visit_graves(struct soak *s) {
  for (int i = 0; i < s->grave_count;) {
    if (!recovered(s, &s->graves[i])) {
      i++;
      continue;
    }
    worst(&s->worst_found_ms, s->graves[i].died_ns);
    s->recoveries++;
    s->graves[i] = s->graves[--s->grave_count];
  }
}

/* ---- the supervisor's loop ---- */

static void strike(struct soak *s) {
  int i = (int)(soak_random(&s->random) % WORKERS);
  struct slot *slot = &s->slots[i];
  uint64_t way = soak_random(&s->random) % 16;
  if (slot->continue_at != 0) return;
  if (way < 12) {
    bury(s, i);
    hire(s, i);
    return;
  }
  kill(slot->pid, SIGSTOP);
  slot->continue_at = shmq_now_ns() + (int64_t)(1 + soak_random(&s->random) % 60) * MS;
  slot->kill_stopped = way == 15;
  s->stops++;
}

static void continue_stopped(struct soak *s, bool all) {
  for (int i = 0; i < WORKERS; i++) {
    struct slot *slot = &s->slots[i];
    if (slot->continue_at == 0 || (!all && slot->continue_at > shmq_now_ns())) continue;
    slot->continue_at = 0;
    if (slot->kill_stopped) {
      bury(s, i);
      hire(s, i);
    } else {
      kill(slot->pid, SIGCONT);
    }
  }
}

static void look_for_deserters(struct soak *s) {
  int status;
  for (int i = 0; i < WORKERS; i++) {
    if (waitpid(s->slots[i].pid, &status, WNOHANG) != s->slots[i].pid) continue;
    fault(s, "a worker ended by itself", status);
    hire(s, i);
  }
}

static void storm(struct soak *s, int64_t end) {
  struct timespec tick = {.tv_nsec = MS / 2};
  int64_t strike_at = 0, read_at = 0;
  while (shmq_now_ns() < end && s->faults == 0) {
    int64_t now = shmq_now_ns();
    continue_stopped(s, false);
    visit_graves(s);
    if (now >= strike_at) {
      strike(s);
      strike_at = now + (int64_t)(soak_random(&s->random) % 30) * MS;
    }
    if (now >= read_at) {
      judge_read(s->judge);
      look_for_deserters(s);
      read_at = now + 50 * MS;
    }
    nanosleep(&tick, NULL);
  }
}

/* ---- the end: everything comes to rest ---- */

static bool await_end(struct soak *s, int from, int to, int64_t deadline) {
  struct timespec tick = {.tv_nsec = MS};
  for (int i = from; i < to; i++) {
    int status, got;
    while ((got = waitpid(s->slots[i].pid, &status, WNOHANG)) == 0 && shmq_now_ns() < deadline) {
      judge_read(s->judge);
      nanosleep(&tick, NULL);
    }
    if (got == s->slots[i].pid && status == 0) continue;
    fault(s, got == 0 ? "a worker does not end" : "a worker ended badly", i);
    if (got == 0) bury(s, i);
  }
  return s->faults == 0;
}

static bool empty(struct soak *s) {
  shmq_queue_info info;
  for (uint32_t q = 0; q < 3; q++)
    if (shmq_view_queue(s->view, q, &info) < 0 || info.depth + info.leased + info.reserved > 0)
      return false;
  return true;
}

static void calm(struct soak *s) {
  struct timespec tick = {.tv_nsec = MS};
  int64_t deadline = shmq_after_ns(20000 * MS);
  continue_stopped(s, true);
  s->shared->control.stop_producing = 1;
  await_end(s, 0, PER_ROLE, deadline);
  while (!empty(s) && shmq_now_ns() < deadline) {
    judge_read(s->judge);
    visit_graves(s);
    nanosleep(&tick, NULL);
  }
  if (!empty(s)) fault(s, "messages are left that nobody gets", 0);
  s->shared->control.stop = 1;
  await_end(s, PER_ROLE, WORKERS, shmq_after_ns(20000 * MS));
  shmq_recover(s->segment);
  visit_graves(s);
}

static void audit(struct soak *s) {
  shmq_audit a = {0};
  shmq_segment_info info = {0};
  shmq_queue_info q;
  if (shmq_view_audit(s->view, &a) < 0 || shmq_view_segment(s->view, &info) < 0)
    fault(s, "the view fails", 0);
  s->leaked = a.dead_participants + a.held_by_dead + a.leaked_blocks + a.damaged + a.unexplained;
  s->leaked += info.blocks - info.blocks_free + info.participants;
  for (uint32_t i = 0; i < 3; i++)
    if (shmq_view_queue(s->view, i, &q) == 0) s->leaked += q.depth + q.leased + q.reserved;
  if (s->leaked)
    fprintf(
        stderr,
        "FAULT left: dead %u held %lu blocks %lu damaged %lu unexplained %lu, %u of %u blocks free, "
        "%u participants\n",
        a.dead_participants, (unsigned long)a.held_by_dead, (unsigned long)a.leaked_blocks,
        (unsigned long)a.damaged, (unsigned long)a.unexplained, info.blocks_free, info.blocks,
        info.participants);
}

/* ---- main ---- */

static int set_up(struct soak *s, const char *directory) {
  const shmq_queue_options queues[3] = {
      {.name = "raw",
       .capacity = 128,
       .message_bytes = MESSAGE_CELL,
       .max_attempts = 3,
       .dead_letter = "dead"},
      {.name = "done", .capacity = 128, .message_bytes = MESSAGE_CELL},
      {.name = "dead", .capacity = 64, .message_bytes = MESSAGE_CELL},
  };
  const shmq_options options = {.participants = PARTICIPANTS,
                                .blocks = 256,
                                .block_bytes = MESSAGE_MAX,
                                .queues = queues,
                                .queue_count = 3};
  snprintf(s->segment_name, sizeof s->segment_name, "t-soak-%d", (int)getpid());
  snprintf(s->ledger_path, sizeof s->ledger_path, "%s/shmq-soak-%d.ledger", directory,
           (int)getpid());
  int rc = shmq_create(s->segment_name, &options);
  if (rc == 0) rc = shmq_attach(&s->segment, s->segment_name);
  if (rc == 0) rc = shmq_view_open(&s->view, s->segment_name);
  if (rc < 0) {
    fprintf(stderr, "soak: %s\n", shmq_strerror(rc));
    return -1;
  }
  s->ledger = ledger_open(s->ledger_path);
  s->shared =
      mmap(NULL, sizeof *s->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (s->ledger < 0 || s->shared == MAP_FAILED) {
    perror("soak");
    return -1;
  }
  s->judge = judge_open(s->ledger);
  return 0;
}

int main(int argc, char **argv) {
  static const struct option options[] = {{"seconds", required_argument, NULL, 's'},
                                          {"seed", required_argument, NULL, 'r'},
                                          {"ledger", required_argument, NULL, 'l'},
                                          {NULL, 0, NULL, 0}};
  static struct soak s;
  const char *directory = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
  int64_t seconds = 60;
  s.random = (uint64_t)time(NULL);
  for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (c) {
    case 's': seconds = strtol(optarg, NULL, 10); break;
    case 'r': s.random = strtoull(optarg, NULL, 10); break;
    case 'l': directory = optarg; break;
    default: return 2;
    }
  if (seconds <= 0) return 2;
  printf("soak: %ld s, seed %lu\n", (long)seconds, (unsigned long)s.random);
  fflush(stdout);
  if (set_up(&s, directory) != 0) return 1;

  for (int i = 0; i < WORKERS; i++) hire(&s, i);
  storm(&s, shmq_after_ns(seconds * 1000 * MS));
  calm(&s);
  audit(&s);
  struct verdict v = judge_close(s.judge);
  shmq_view_close(s.view);
  shmq_detach(s.segment);
  shmq_unlink(s.segment_name);
  close(s.ledger);

  bool good = v.lost + v.duplicated + v.stale + v.damaged + s.leaked + s.faults == 0;
  if (good)
    unlink(s.ledger_path);
  else
    printf("soak: the ledger is kept: %s\n", s.ledger_path);
  double worst_ms = s.worst_guarded_ms > s.worst_found_ms ? s.worst_guarded_ms : s.worst_found_ms;
  printf(
      "{\"kills\": %lu, \"stops\": %lu, \"messages\": %lu, \"delivered\": %lu, "
      "\"redelivered\": %lu, "
      "\"recoveries\": %lu, \"lost\": %lu, \"duplicated\": %lu, \"leaked\": %lu, \"faults\": %lu, "
      "\"worst_guarded_ms\": %.3f, \"worst_recovery_ms\": %.3f}\n",
      (unsigned long)s.kills, (unsigned long)s.stops, (unsigned long)v.messages,
      (unsigned long)v.delivered, (unsigned long)v.redelivered, (unsigned long)s.recoveries,
      (unsigned long)(v.lost + v.damaged), (unsigned long)(v.duplicated + v.stale),
      (unsigned long)s.leaked, (unsigned long)s.faults, s.worst_guarded_ms, worst_ms);
  return good ? 0 : 1;
}
