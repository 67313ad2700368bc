/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq doctor: what is wrong with a segment, who is to blame and what to do. Looking changes
 * nothing and works when everybody is stopped; --repair does what any participant would do sooner
 * or later.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/report.h"
#include "base/view.h"
#include "command.h"

static struct { bool repair, json; } options;

static const struct flag flags[] = {
    SET_FLAG("repair", 'r', &options.repair,
             "recover what dead participants left behind, then look again"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

struct diagnosis {
  const char *name;
  struct json json;
  uint32_t problems;
  int status; /* of what kept us from looking */
};

/* One finding. A problem makes the exit status 1; a note does not. */
static void find(struct diagnosis *d, bool problem, const char *kind, const char *advice,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

static void find(struct diagnosis *d, bool problem, const char *kind, const char *advice,
                 const char *format, ...) {
  char text[512];
  va_list values;
  va_start(values, format);
  vsnprintf(text, sizeof text, format, values);
  va_end(values);
  d->problems += problem;
  if (options.json) {
    json_open(&d->json, NULL, '{');
    json_bool(&d->json, "problem", problem);
    json_text(&d->json, "kind", kind);
    json_text(&d->json, "text", text);
    json_text(&d->json, "advice", advice);
    json_close(&d->json, '}');
  } else {
    printf("%s: %s: %s\n", d->name, problem ? "problem" : "note", text);
    if (advice != NULL) {
      printf("  what to do: %s\n", advice);
    }
  }
}

/* ---- participants ---- */

static void examine_participant(struct diagnosis *d, const shmq_participant_info *who) {
  char advice[400];
  if (!who->alive) {
    snprintf(advice, sizeof advice,
             "nothing: the next participant that waits recovers it; at once: shmq doctor %s "
             "--repair",
             d->name);
    find(d, true, "dead", advice, "participant %u (pid %d, %s) is dead and not recovered%s",
         who->index, who->pid, who->role,
         who->step_committed ? "; its last step is decided and will be completed" : "");
  } else if (who->stopped) {
    snprintf(advice, sizeof advice,
             "kill -CONT %d lets it go on; shmq evict %s %u --kill ends it and gives back what it "
             "holds",
             who->pid, d->name, who->index);
    find(d, true, "stopped", advice, "participant %u (pid %d, %s) is stopped", who->index, who->pid,
         who->role);
  }
}

static void examine_participants(struct diagnosis *d, shmq_view *view, uint32_t most) {
  for (uint32_t i = 1; i <= most; i++) {
    shmq_participant_info who;
    if (shmq_view_participant(view, i, &who) == 0) {
      examine_participant(d, &who);
    }
  }
}

/* ---- queues ---- */

/* The oldest message that is written but not published holds up all behind it: by design for an
 * instant. Seen in two looks, its owner takes too long. */
static bool oldest_reserved(shmq_view *view, uint32_t index, shmq_cell_info *oldest) {
  uint64_t cursor = 0;
  shmq_cell_info cell;
  while (shmq_view_next(view, index, &cursor, &cell, NULL, 0) == 1) {
    if (cell.state == SHMQ_CELL_RESERVED) {
      *oldest = cell;
      return true;
    }
  }
  return false;
}

static void examine_hold_up(struct diagnosis *d, shmq_view *view, uint32_t index,
                            const shmq_queue_info *queue, const shmq_cell_info *earlier) {
  shmq_cell_info now;
  shmq_participant_info who;
  if (!oldest_reserved(view, index, &now) || now.position != earlier->position ||
      shmq_view_participant(view, now.owner, &who) != 0 || !who.alive) {
    return; /* it moved on, or the owner is dead and has been named */
  }
  char advice[400];
  snprintf(advice, sizeof advice, "look at pid %d; shmq evict %s %u --kill ends it", who.pid,
           d->name, who.index);
  find(d, true, "held-up", advice,
       "queue %s: participant %u (pid %d, %s) has reserved position %" PRIu64
       " and not published it; %" PRIu64 " messages are in the queue",
       queue->name, who.index, who.pid, who.role, now.position, queue->depth);
}

static void note_queue(struct diagnosis *d, shmq_view *view, uint32_t index,
                       const shmq_queue_info *queue) {
  char advice[400];
  bool takes_dead_letters = false;
  shmq_queue_info other;
  for (uint32_t i = 0; shmq_view_queue(view, i, &other) == 0; i++) {
    takes_dead_letters |= other.dead_letter == (int32_t)index;
  }
  if (takes_dead_letters && queue->depth > 0) {
    snprintf(advice, sizeof advice,
             "shmq peek %s/%s shows them with their causes; shmq requeue %s/%s "
             "puts them back",
             d->name, queue->name, d->name, queue->name);
    find(d, false, "dead-letters", advice, "queue %s holds %" PRIu64 " dead letters", queue->name,
         queue->depth);
  }
  if (queue->depth >= queue->capacity && queue->leased == 0 && !takes_dead_letters) {
    find(d, false, "full", "start a consumer, or take the messages out with shmq get",
         "queue %s is full and nobody holds a message of it", queue->name);
  }
  if (queue->shut_down) {
    snprintf(advice, sizeof advice, "shmq reopen %s/%s accepts messages again", d->name,
             queue->name);
    find(d, false, "shut-down", advice, "queue %s is shut down", queue->name);
  }
  if (queue->damaged > 0) {
    snprintf(advice, sizeof advice, "shmq get %s/%s -e saves what can be read; then shmq rm %s",
             d->name, queue->name, d->name);
    find(d, true, "damaged-cells", advice, "queue %s: %" PRIu64 " cells make no sense", queue->name,
         queue->damaged);
  }
}

enum { QUEUES_MAX = SHMQ_RINGS_MAX };
static const struct timespec patience = {.tv_nsec = 100000000};

/* Two looks, a moment apart, at what may not stay. */
static void examine_queues(struct diagnosis *d, shmq_view *view, uint32_t queues) {
  shmq_cell_info *held = calloc(queues, sizeof *held);
  bool *suspect = calloc(queues, sizeof *suspect);
  bool any = false;
  for (uint32_t i = 0; held != NULL && suspect != NULL && i < queues; i++) {
    suspect[i] = oldest_reserved(view, i, &held[i]);
    any |= suspect[i];
  }
  if (any) {
    nanosleep(&patience, NULL);
  }
  shmq_queue_info queue;
  for (uint32_t i = 0; shmq_view_queue(view, i, &queue) == 0; i++) {
    if (any && suspect[i]) {
      examine_hold_up(d, view, i, &queue, &held[i]);
    }
    note_queue(d, view, i, &queue);
  }
  free(held);
  free(suspect);
}

/* ---- the segment ---- */

static void examine_audit(struct diagnosis *d, const shmq_audit *audit) {
  char advice[400];
  snprintf(advice, sizeof advice, "shmq doctor %s --repair", d->name);
  if (audit->held_by_dead > 0) {
    find(d, true, "held-by-dead", advice, "%" PRIu64 " cells and blocks are held by the dead",
         audit->held_by_dead);
  }
  if (audit->leaked_blocks > 0) {
    find(d, true, "leaked-blocks", advice, "%" PRIu64 " blocks belong to nobody",
         audit->leaked_blocks);
  }
  if (audit->unexplained > 0) {
    find(d, true, "unexplained", advice, "%" PRIu64 " cells are held by no participant there is",
         audit->unexplained);
  }
  if (audit->damaged > 0) {
    snprintf(advice, sizeof advice,
             "somebody wrote past his own memory; save what can be read, then shmq rm %s", d->name);
    find(d, true, "damaged", advice, "%" PRIu64 " words make no sense", audit->damaged);
  }
}

static void explain_unreadable(struct diagnosis *d, int error) {
  char advice[400];
  switch (error) {
  case -ENOENT:
    snprintf(advice, sizeof advice, "shmq create %s takes it over; shmq rm %s removes it", d->name,
             d->name);
    find(d, true, "unfinished", advice, "its creator died or is still at work");
    break;
  case -EACCES:
    find(d, true, "no-permission", "ask its owner, or look as root", "it may not be read");
    break;
  case -EPROTO:
    find(d, true, "other-version", "use the shmq that made it, or remove it with shmq rm",
         "it has another layout version");
    break;
  default:
    snprintf(advice, sizeof advice, "nothing can be saved: shmq rm %s", d->name);
    find(d, true, "damaged", advice, "its header makes no sense: %s", shmq_strerror(error));
  }
  d->status = status_of(error);
}

static void examine(struct diagnosis *d) {
  shmq_view *view;
  int rc = shmq_view_open(&view, d->name);
  if (rc != 0) {
    explain_unreadable(d, rc);
    return;
  }
  shmq_segment_info segment;
  shmq_audit audit;
  rc = shmq_view_segment(view, &segment);
  if (rc == 0) {
    examine_participants(d, view, segment.participants_max);
    examine_queues(d, view, segment.queues);
    rc = shmq_view_audit(view, &audit);
  }
  if (rc == 0) {
    examine_audit(d, &audit);
  } else {
    explain_unreadable(d, rc);
  }
  shmq_view_close(view);
}

static int repair(const char *name) {
  shmq_segment *segment;
  int rc = shmq_attach(&segment, name);
  if (rc != 0) {
    return fail(name, rc);
  }
  rc = shmq_recover(segment);
  shmq_detach(segment);
  if (rc < 0) {
    return fail(name, rc);
  }
  if (!options.json) {
    printf("%s: %d dead participants recovered\n", name, rc);
  }
  return STATUS_OK;
}

static int diagnose(const char *name, struct json *json) {
  struct diagnosis d = {.name = name, .json = *json};
  int repaired = options.repair ? repair(name) : STATUS_OK;
  if (options.json) {
    json_open(&d.json, NULL, '{');
    json_text(&d.json, "name", name);
    json_open(&d.json, "findings", '[');
  }
  examine(&d);
  if (options.json) {
    json_close(&d.json, ']');
    json_number(&d.json, "problems", d.problems);
    json_bool(&d.json, "healthy", d.problems == 0);
    json_close(&d.json, '}');
  } else if (d.problems == 0) {
    printf("%s: healthy\n", name);
  }
  *json = d.json;
  int looked = d.status != STATUS_OK ? d.status : d.problems > 0 ? STATUS_FAILED : STATUS_OK;
  return repaired != STATUS_OK ? repaired : looked;
}

struct round {
  struct json json;
  int status;
};

static int diagnose_listed(const char *name, void *context) {
  struct round *round = context;
  int status = diagnose(name, &round->json);
  round->status = round->status == STATUS_OK ? status : round->status;
  return 0;
}

static int run_all(struct round *round) {
  if (options.json) {
    json_open(&round->json, NULL, '[');
  }
  int rc = shmq_list(diagnose_listed, round);
  if (options.json) {
    json_close(&round->json, ']');
  }
  return rc < 0 ? fail("/dev/shm", rc) : round->status;
}

/* A name that is not there at all is not a sick segment. */
static int is_listed(const char *name, void *context) { return strcmp(name, context) == 0; }

static int run_one(const char *name, struct round *round) {
  struct address address;
  int status = check_name(name, false, &address);
  if (status == STATUS_OK && shmq_list(is_listed, address.segment) == 0) {
    status = fail(name, -ENOENT);
  }
  return status != STATUS_OK ? status : diagnose(address.segment, &round->json);
}

static int run(int count, char **arguments) {
  struct round round = {.json = {.out = stdout}};
  int status = count == 1 ? run_one(arguments[0], &round) : run_all(&round);
  if (options.json && (count == 0 || round.json.comma)) {
    json_end(&round.json);
  }
  return status;
}

const struct command doctor_command = {
    .name = "doctor",
    .arguments = "[NAME]",
    .summary = "Find what is wrong with a segment, and say what to do",
    .details =
        "Without a name it examines all segments. Problems (exit status 1): participants that are "
        "dead and not recovered or stopped, messages reserved and not published, leaked blocks, "
        "damage. Notes (exit status 0): dead letters, full queues without consumers, queues that "
        "are shut down.\n\n"
        "--repair recovers what the dead left. It never touches the living: see 'shmq evict'.",
    .flags = flags,
    .most = 1,
    .run = run,
};
