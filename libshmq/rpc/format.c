/* SPDX-License-Identifier: Apache-2.0
 *
 * The geometry of a service, and the classes of errors.
 */
#include "rpc/format.h"

#include <stdlib.h>

static const char *const requests_names[] = {
    [SHMQ_REDELIVER_IDEMPOTENT] = "requests",
    [SHMQ_REDELIVER_ALWAYS] = "requests.always",
    [SHMQ_REDELIVER_NEVER] = "requests.never",
};
enum { REDELIVERS = sizeof requests_names / sizeof requests_names[0] };

const char *shmq__requests_name(enum shmq_redeliver redeliver) { return requests_names[redeliver]; }

int shmq__open_requests(shmq **out, shmq_segment *segment, unsigned flags,
                        enum shmq_redeliver *redeliver) {
  for (unsigned i = 0; i < REDELIVERS; i++) {
    int rc = shmq_open_in(out, segment, requests_names[i], flags);
    *redeliver = (enum shmq_redeliver)i;
    if (rc != -ENOENT) return rc;
  }
  return -ENOTTY;
}

/* ---- creation ---- */

struct geometry {
  shmq_options segment;
  shmq_queue_options *queues; /* malloced, 1 + 2 * askers, and one for what is put aside */
  char (*names)[SHMQ_QUEUE_NAME_MAX + 1];
};

static uint32_t or_default(uint32_t value, uint32_t fallback) { return value ? value : fallback; }

static bool sensible(const shmq_service_options *o) {
  return o->askers <= ASKERS_MAX && o->credits <= CREDITS_MAX && o->redeliver < REDELIVERS &&
         o->aside <= CREDITS_MAX && o->message_bytes <= SHMQ_MESSAGE_MAX - SHMQ_RPC_HEADER_BYTES &&
         o->block_bytes <= SHMQ_BLOCK_MAX - SHMQ_RPC_HEADER_BYTES &&
         (!o->single || o->askers <= 1) && o->participants <= SHMQ_PARTICIPANTS_MAX;
}

static void plan_queues(struct geometry *g, const shmq_service_options *o, uint32_t askers) {
  uint32_t credits = or_default(o->credits, CREDITS_DEFAULT);
  uint32_t cell = or_default(o->message_bytes, PAYLOAD_DEFAULT) + SHMQ_RPC_HEADER_BYTES;
  uint32_t single = o->single ? SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER : 0;
  uint64_t wanted = (uint64_t)askers * credits;

  g->queues[0] = (shmq_queue_options){
      .name = shmq__requests_name((enum shmq_redeliver)o->redeliver),
      .capacity = or_default(o->capacity, wanted < 65536 ? (uint32_t)wanted : 65536),
      .message_bytes = cell,
      .flags = single};
  for (uint32_t i = 0; i < askers; i++) {
    char *reply = g->names[2 * i], *cancel = g->names[2 * i + 1];
    shmq__slot_name(reply, "reply", i);
    shmq__slot_name(cancel, "cancel", i);
    g->queues[1 + 2 * i] = (shmq_queue_options){.name = reply,
                                                .capacity = REPLIES_PER_CREDIT * credits,
                                                .message_bytes = cell,
                                                .flags = single | SHMQ_SINGLE_CONSUMER};
    g->queues[2 + 2 * i] =
        (shmq_queue_options){.name = cancel,
                             .capacity = CANCELS_PER_CREDIT * credits,
                             .message_bytes = sizeof(shmq__cancel),
                             .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};
  }
  if (o->aside == 0) return;
  uint32_t cells = ASIDE_CELLS * o->aside;
  g->queues[1 + 2 * askers] =
      (shmq_queue_options){.name = ASIDE_NAME,
                           .capacity = cells < ASIDE_CELLS_MIN ? ASIDE_CELLS_MIN : cells,
                           .message_bytes = cell,
                           .flags = SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER};
}

static void geometry_free(struct geometry *g) {
  free(g->queues);
  free(g->names);
}

static int geometry_plan(struct geometry *g, const shmq_service_options *options) {
  static const shmq_service_options defaults;
  const shmq_service_options *o = options ? options : &defaults;
  if (!sensible(o)) return -EINVAL;

  uint32_t askers = o->single ? 1 : or_default(o->askers, ASKERS_DEFAULT);
  uint32_t participants = o->single ? 4 : askers + 32;
  uint32_t count = 1 + 2 * askers + (o->aside > 0);
  g->queues = calloc(count, sizeof *g->queues);
  g->names = calloc(count, sizeof *g->names);
  if (!g->queues || !g->names) {
    geometry_free(g);
    return -ENOMEM;
  }
  plan_queues(g, o, askers);
  g->segment =
      (shmq_options){.mode = o->mode,
                     .participants = or_default(o->participants, participants),
                     .blocks = o->blocks,
                     .block_bytes = o->block_bytes ? o->block_bytes + SHMQ_RPC_HEADER_BYTES : 0,
                     .queues = g->queues,
                     .queue_count = count};
  return 0;
}

int shmq_service_create(const char *name, const shmq_service_options *options) {
  struct geometry g;
  int rc = geometry_plan(&g, options);
  if (rc) return rc;
  rc = shmq_create(name, &g.segment);
  geometry_free(&g);
  return rc;
}

int shmq_service_create_memfd(const shmq_service_options *options, int *fd) {
  struct geometry g;
  int rc = geometry_plan(&g, options);
  if (rc) return rc;
  rc = shmq_create_memfd(&g.segment, fd);
  geometry_free(&g);
  return rc;
}

/* ---- classes ---- */

enum shmq_class shmq_class_of(int status) {
  switch (-status) {
  case 0: return SHMQ_CLASS_OK;
  case EINVAL:
  case EBADF:
  case EMSGSIZE:
  case ENAMETOOLONG:
  case EISDIR:
  case ENOTDIR:
  case EFAULT:
  case ERANGE:
  case EOVERFLOW:
  case EBADMSG: return SHMQ_CLASS_CLIENT;
  case EACCES:
  case EPERM:
  case EROFS:
  case EXDEV:
  case ELOOP: return SHMQ_CLASS_AUTH;
  case ENOENT:
  case ENODEV:
  case ENXIO:
  case ESRCH:
  case ENODATA: return SHMQ_CLASS_NOT_FOUND;
  case EEXIST:
  case ENOTEMPTY:
  case ESTALE: return SHMQ_CLASS_CONFLICT;
  case EAGAIN:
  case EBUSY:
  case ETXTBSY:
  case ENOBUFS: return SHMQ_CLASS_BUSY;
  case EDQUOT:
  case ENOSPC:
  case EMFILE:
  case ENFILE:
  case ENOMEM:
  case EFBIG:
  case EUSERS: return SHMQ_CLASS_QUOTA;
  case ETIMEDOUT: return SHMQ_CLASS_TIMEOUT;
  case ECANCELED: return SHMQ_CLASS_CANCELLED;
  case EIO: return SHMQ_CLASS_IO;
  case EOWNERDEAD:
  case EPIPE:
  case ECONNRESET: return SHMQ_CLASS_PEER_DIED;
  case ERESTART: return SHMQ_CLASS_RESTARTED;
  case EOPNOTSUPP:
  case ENOSYS:
  case ENOTTY: return SHMQ_CLASS_UNSUPPORTED;
  default: return SHMQ_CLASS_INTERNAL;
  }
}

const char *shmq_class_name(enum shmq_class error_class) {
  static const char *const names[] = {
      [SHMQ_CLASS_OK] = "ok",
      [SHMQ_CLASS_CLIENT] = "client",
      [SHMQ_CLASS_AUTH] = "auth",
      [SHMQ_CLASS_NOT_FOUND] = "not-found",
      [SHMQ_CLASS_CONFLICT] = "conflict",
      [SHMQ_CLASS_BUSY] = "busy",
      [SHMQ_CLASS_QUOTA] = "quota",
      [SHMQ_CLASS_TIMEOUT] = "timeout",
      [SHMQ_CLASS_CANCELLED] = "cancelled",
      [SHMQ_CLASS_IO] = "io",
      [SHMQ_CLASS_PEER_DIED] = "peer-died",
      [SHMQ_CLASS_RESTARTED] = "restarted",
      [SHMQ_CLASS_UNSUPPORTED] = "unsupported",
      [SHMQ_CLASS_INTERNAL] = "internal",
  };
  unsigned i = (unsigned)error_class;
  return i < sizeof names / sizeof names[0] ? names[i] : "unknown";
}
