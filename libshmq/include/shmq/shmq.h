/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq: message queues in shared memory between processes, any of which may be killed at any
 * instruction. The model in five sentences:
 *
 *   A *segment* is one shared memory object; it holds one or more *queues* and optional *blocks*
 *   for large messages. A process *attaches* to a segment and, on its first put or get, joins it
 *   as a *participant*; a kernel lock, not a word in memory, proves that the participant lives.
 *   Producers put (copying) or reserve and commit (in place). Consumers get (copying) or lease and
 *   ack (in place); a lease that is not acked, because its holder nacked it or died, is delivered
 *   again. Once put or commit has returned 0, the message is delivered, whoever dies afterwards.
 *
 * Conventions, for every call below unless it says otherwise:
 *   Returns   0 or a count on success, a negative errno on failure (see shmq_strerror).
 *   Deadline  absolute CLOCK_MONOTONIC nanoseconds, or SHMQ_NOWAIT, or SHMQ_FOREVER.
 *   Context   a segment attachment and its queue handles belong to one thread at a time; other
 *             threads attach for themselves. After fork the child's first call joins anew, and
 *             messages its parent held are the parent's (-ESTALE). No call is async-signal-safe.
 *   Signals   a call that sleeps returns -EINTR when a handler ran; SA_RESTART does not prevent it.
 *   Crash     a caller killed inside any call leaves nothing that blocks the others for longer
 *             than a bounded look (50 ms at first, 1 s at most), and nothing half-done.
 */
#ifndef SHMQ_SHMQ_H
#define SHMQ_SHMQ_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <shmq/version.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHMQ_API __attribute__((visibility("default")))
#else
#define SHMQ_API
#endif

/* ---- limits ------------------------------------------------------------------------------ */

#define SHMQ_NAME_MAX 200                       /* bytes of SEGMENT in SEGMENT[/QUEUE] */
#define SHMQ_QUEUE_NAME_MAX 47                  /* bytes of QUEUE */
#define SHMQ_CAPACITY_MAX (UINT32_C(1) << 26)   /* cells of one band of a queue */
#define SHMQ_MESSAGE_MAX ((UINT32_C(1) << 22) - 1) /* bytes kept in a cell; more goes in a block */
#define SHMQ_BLOCK_MAX (UINT64_C(1) << 31)      /* bytes of a block */
#define SHMQ_PARTICIPANTS_MAX 1023
#define SHMQ_RINGS_MAX 1024                     /* all bands of all queues of a segment */
#define SHMQ_PRIORITIES_MAX 8
#define SHMQ_BATCH_MAX 64                       /* messages taken or reserved by one step */
#define SHMQ_COMMIT_MAX 16                      /* messages in one shmq_commit_all */
#define SHMQ_ATTEMPTS_MAX 62                    /* the greatest delivery limit */

/* ---- deadlines --------------------------------------------------------------------------- */

#define SHMQ_NOWAIT INT64_C(0)
#define SHMQ_FOREVER INT64_MAX

/* The current time on the clock that deadlines use. Units: ns of CLOCK_MONOTONIC. */
SHMQ_API int64_t shmq_now_ns(void);

/* The deadline `ns` nanoseconds from now; saturates at SHMQ_FOREVER. ns <= 0 is SHMQ_NOWAIT. */
SHMQ_API int64_t shmq_after_ns(int64_t ns);

/* ---- errors ------------------------------------------------------------------------------ */

/* The text of an error code returned by this library, in one line without a full stop.
 * Shape: static, never NULL. Errors: an unknown code gives "unknown error". */
SHMQ_API const char *shmq_strerror(int code);

/* What the last failed create or attach of this thread needed and what there was, for -ENOSPC:
 * Units: bytes for SHMQ_NOSPACE_MEMORY, slots for SHMQ_NOSPACE_PARTICIPANTS.  */
enum shmq_nospace { SHMQ_NOSPACE_NONE, SHMQ_NOSPACE_MEMORY, SHMQ_NOSPACE_PARTICIPANTS };
SHMQ_API enum shmq_nospace shmq_nospace_detail(uint64_t *needed, uint64_t *available);

/* ---- segments: create, unlink ------------------------------------------------------------- */

/* Queue flags. */
#define SHMQ_SINGLE_PRODUCER 1u /* one participant may put: -EBUSY for a second while it lives */
#define SHMQ_SINGLE_CONSUMER 2u /* one participant may take */
#define SHMQ_TIMED 4u           /* messages may carry not-before and expiry times */

/* What a put does when the queue is full. Each dropped message is counted. */
enum shmq_full_policy {
  SHMQ_FULL_BLOCK,       /* wait for room until the deadline (default) */
  SHMQ_FULL_FAIL,        /* -EAGAIN at once, whatever the deadline */
  SHMQ_FULL_DROP_OLDEST, /* the oldest undelivered message makes room; not with SINGLE_CONSUMER */
  SHMQ_FULL_DROP_NEWEST  /* the message being put is dropped and put returns 0 */
};

typedef struct shmq_queue_options {
  const char *name;          /* unique in the segment; NULL is "main" */
  uint32_t capacity;         /* cells of each band, rounded up to a power of two, >= 2; 0: 1024 */
  uint32_t message_bytes;    /* longest message kept in a cell; 0: 1024 */
  uint32_t flags;            /* SHMQ_SINGLE_PRODUCER | SHMQ_SINGLE_CONSUMER | SHMQ_TIMED */
  uint32_t priorities;       /* bands, 1 to 8; 0: 1. Band priorities-1 is served first */
  uint32_t max_attempts;     /* deliveries before a message is dead; 0: no limit; needs dead_letter */
  const char *dead_letter;   /* queue of this segment that gets dead messages, expired ones too */
  int64_t ttl_ns;            /* expiry of messages that state none; 0: never. Implies TIMED */
  uint32_t full_policy;      /* enum shmq_full_policy */
  uint32_t reserved[5];      /* zero */
} shmq_queue_options;

typedef struct shmq_options {
  uint32_t mode;             /* permissions as for open(2), the umask not applied; 0: 0600 */
  uint32_t participants;     /* most that may be joined at once; 0: 64 */
  uint32_t blocks;           /* number of blocks for messages longer than a cell; 0: none */
  uint32_t block_bytes;      /* bytes of each, rounded up to 64; 0: 65536 when blocks > 0 */
  const shmq_queue_options *queues; /* queue_count of them; NULL: one queue with the defaults */
  uint32_t queue_count;
  uint32_t reserved[7];      /* zero */
} shmq_options;

/* Create the named segment with all its queues; nothing is attached.
 * Shape: name is SEGMENT: 1 to SHMQ_NAME_MAX bytes, no slash, not starting with a dot. NULL options
 *   are all defaults. Memory is reserved in full, so that no later access can fail.
 * Errors: -EINVAL a name or option out of range, -EEXIST a live segment of that name, -EACCES,
 *   -ENOSPC no room in /dev/shm (shmq_nospace_detail), -ENAMETOOLONG.
 * Crash: a creator that dies leaves a segment without its magic word; the next create takes it
 *   over, and openers report -ENOENT, or -EBADMSG when it had its memory already.
 *   Source: 2-queue "Segment" in docs/design/queue.md. */
SHMQ_API int shmq_create(const char *name, const shmq_options *options);

/* The same in an anonymous memfd sealed against shrinking and growing; *fd is O_CLOEXEC and the
 * caller's to close or pass on. */
SHMQ_API int shmq_create_memfd(const shmq_options *options, int *fd);

/* Bytes that a segment with these options occupies. Returns the size or a negative errno. */
SHMQ_API int64_t shmq_segment_bytes(const shmq_options *options);

/* Remove the name. Who is attached goes on; the memory is freed with the last attachment.
 * Errors: -ENOENT, -EACCES, -EINVAL. */
SHMQ_API int shmq_unlink(const char *name);

/* ---- attach ------------------------------------------------------------------------------ */

typedef struct shmq_segment shmq_segment; /* an attachment: at most one participant */
typedef struct shmq shmq;                 /* a queue seen through an attachment */

/* Attach to a segment by name or by descriptor (a memfd; the descriptor stays the caller's).
 * Errors: -ENOENT, -EACCES, -EINVAL a bad name, -EPROTO another layout version, -EBADMSG damaged,
 *   -ETIMEDOUT its creator is alive but has not finished for a second, -EMFILE, -ENOMEM. */
SHMQ_API int shmq_attach(shmq_segment **out, const char *name);
SHMQ_API int shmq_attach_fd(shmq_segment **out, int fd);

/* Leave and unmap: leases still held are returned for redelivery, reservations are aborted, roles
 * are given up. NULL is allowed. All queue handles opened in it must have been closed. */
SHMQ_API void shmq_detach(shmq_segment *segment);

/* Join as a participant now, rather than at the first put or get.
 * Shape: role and label, both optional, are copied and cut at 15 and 31 bytes, shown by the tools.
 * Errors: -ENOSPC every slot is held by a living participant (shmq_nospace_detail), -EROFS. */
SHMQ_API int shmq_join_segment(shmq_segment *segment, const char *role, const char *label);

/* Record the CPU this participant is pinned to, for the tools; -1 for none. Called by shmq-pin. */
SHMQ_API void shmq_set_cpu(shmq_segment *segment, int cpu);

/* This participant's index (1 to participants) and generation, or -ENOTCONN before the join. The
 * pair names a participant for as long as the segment exists. */
SHMQ_API int shmq_participant(const shmq_segment *segment, uint32_t *generation);

/* Is participant `index` of generation `generation` alive? Proved by the kernel lock.
 * Returns: 1 alive, 0 dead or left or replaced, negative errno. Looking never disturbs it. */
SHMQ_API int shmq_participant_alive(shmq_segment *segment, int index, uint32_t generation);

/* Recover every dead participant of the segment now. Returns how many were recovered.
 * Progress: O(cells of the segment) for each dead participant; lock-free. */
SHMQ_API int shmq_recover(shmq_segment *segment);

/* The 16 bytes that name this segment for ever. */
SHMQ_API void shmq_segment_uuid(const shmq_segment *segment, uint8_t uuid[16]);

/* Where the segment is mapped, for binding it to a NUMA node (shmq-pin does). */
SHMQ_API void *shmq_segment_memory(shmq_segment *segment, size_t *bytes);

/* Open flags. */
#define SHMQ_SPIN 1u    /* wait by spinning only, never sleep: for pinned cores of one's own */
#define SHMQ_NOSPIN 2u  /* sleep without polling: for many waiters on few cores */

/* Open a queue of an attached segment; queue NULL is the segment's first.
 * Errors: -ENOENT no such queue, -ENOMEM, -EINVAL. */
SHMQ_API int shmq_open_in(shmq **out, shmq_segment *segment, const char *queue, unsigned flags);

/* Attach and open in one step; name is SEGMENT or SEGMENT/QUEUE. The attachment goes
 * with the last handle that is open in it. Errors: as shmq_attach and shmq_open_in. */
SHMQ_API int shmq_open(shmq **out, const char *name, unsigned flags);

/* Close a handle: what it holds is given back as by shmq_detach, or passes to another handle of the same
 * queue in the same attachment while there is one. NULL is allowed. */
SHMQ_API void shmq_close(shmq *queue);

/* The attachment a handle belongs to, to open more queues of the same segment in it. */
SHMQ_API shmq_segment *shmq_segment_of(shmq *queue);

/* ---- messages ---------------------------------------------------------------------------- */

/* The identity of a message: unique for ever, kept by redelivery. */
typedef struct shmq_id {
  uint8_t segment[16]; /* uuid */
  uint32_t queue;      /* index of the queue in the segment | band << 16 */
  uint32_t reserved;
  uint64_t position;   /* in the queue; wraps after 2^48 */
} shmq_id;

/* A message being written (after reserve) or read (after lease) in place.
 * Shape: data points into the segment, aligned to 8 bytes (64 in a block); it is the caller's until
 *   commit, abort, ack, nack or forward, which also clear the struct. size may be lowered
 *   before commit. The other fields are read-only for the caller. */
typedef struct shmq_message {
  void *data;
  size_t size;
  uint64_t position;
  uint32_t attempts;   /* deliveries so far, this one included; 0 in a reservation */
  uint32_t opaque[5];
} shmq_message;

SHMQ_API void shmq_message_id(const shmq *queue, const shmq_message *message, shmq_id *id);

/* Put a copy of one message.
 * Returns: 0: the message will be delivered. Errors: -EAGAIN full and SHMQ_NOWAIT (or policy),
 *   -ETIMEDOUT full until the deadline, -EMSGSIZE longer than a cell and a block, -EPIPE the queue
 *   was shut down, -EBUSY another producer holds a SINGLE_PRODUCER queue, -ENOSPC no participant
 *   slot, -EBADMSG the segment is damaged.
 * Ordering: what happened before put happens before the matching get returns. FIFO per producer.
 * Progress: lock-free; without a system call, an allocation or a clock read when there is room and
 *   nobody sleeps. Crash: delivered wholly or not at all. */
SHMQ_API int shmq_put(shmq *queue, const void *data, size_t size, int64_t deadline_ns);

/* Take one message by copy and ack it. Returns: its size.
 * Errors: -EMSGSIZE it does not fit and stays for the next taker (shmq_message_limit says what always
 *   fits); -EAGAIN, -ETIMEDOUT empty; -EPIPE shut down and empty; -EINTR; -EBUSY; -EBADMSG.
 * Crash: a caller killed before the copy is complete leaves the message to be delivered again. */
SHMQ_API ssize_t shmq_get(shmq *queue, void *data, size_t size, int64_t deadline_ns);

/* Put n messages; get up to n. A step of up to SHMQ_BATCH_MAX costs one claim and one wake-up.
 * Shape: put: iov[i] names the i-th message. get: iov[i] is a buffer on entry and its iov_len the
 *   message's size on return.
 * Returns: how many were put or got, at least 1, or an error when none was. get does not wait for
 *   more than the first, and may leave to the next call what lies in a block. */
SHMQ_API int shmq_put_batch(shmq *queue, const struct iovec *iov, int n, int64_t deadline_ns);
SHMQ_API int shmq_get_batch(shmq *queue, struct iovec *iov, int n, int64_t deadline_ns);

/* What a put may say beyond the payload. Zero-initialise; needs SHMQ_TIMED for the times. */
typedef struct shmq_put_options {
  uint32_t priority;      /* band, 0 to priorities-1; clamped to the highest */
  uint32_t reserved;
  int64_t not_before_ns;  /* CLOCK_MONOTONIC: not delivered earlier; 0: at once */
  int64_t expires_ns;     /* CLOCK_MONOTONIC: dropped, or dead-lettered, later; 0: the queue's ttl */
} shmq_put_options;

/* As shmq_put and shmq_reserve. Errors also: -EOPNOTSUPP times on a queue that is not TIMED. */
SHMQ_API int shmq_put_with(shmq *queue, const void *data, size_t size, const shmq_put_options *options,
                           int64_t deadline_ns);
SHMQ_API int shmq_reserve_with(shmq *queue, size_t size, shmq_message *message,
                               const shmq_put_options *options, int64_t deadline_ns);

/* Reserve room for `size` bytes to be written in place; commit publishes it, abort gives it up.
 * Errors: as shmq_put. A reservation holds up the queue behind it: fill it and commit. */
SHMQ_API int shmq_reserve(shmq *queue, size_t size, shmq_message *message, int64_t deadline_ns);
SHMQ_API int shmq_commit(shmq *queue, shmq_message *message);
SHMQ_API int shmq_abort(shmq *queue, shmq_message *message);

/* Take one message to read in place. It stays the caller's until ack (done) or nack (deliver again).
 * Errors: as shmq_get, without -EMSGSIZE. ack, nack: -ESTALE not the caller's any more. */
SHMQ_API int shmq_lease(shmq *queue, shmq_message *message, int64_t deadline_ns);
SHMQ_API int shmq_ack(shmq *queue, shmq_message *message);
SHMQ_API int shmq_nack(shmq *queue, shmq_message *message);

/* Why a message was given back or declared dead; kept with it on queues that have max_attempts. */
typedef struct shmq_cause {
  int32_t pid;       /* who held it last */
  int32_t status;    /* its wait status (waitpid's), -1 when not known */
  int32_t reason;    /* enum shmq_reason */
  uint32_t attempts; /* deliveries */
  int64_t when_ns;   /* CLOCK_REALTIME */
} shmq_cause;
enum shmq_reason { SHMQ_REASON_NONE, SHMQ_REASON_DIED, SHMQ_REASON_NACKED, SHMQ_REASON_EXPIRED };

/* Nack with a delay and a cause of the caller's (status and pid; NULL: the caller itself).
 * Errors: -EOPNOTSUPP a delay on a queue that is not TIMED. */
SHMQ_API int shmq_nack_with(shmq *queue, shmq_message *message, int64_t delay_ns, const shmq_cause *cause);

/* The cause that a leased message carries, when its queue keeps one: the last failed delivery's, or, on
 * a dead letter queue, the one that killed it. Returns 0, or -ENODATA. */
SHMQ_API int shmq_message_cause(const shmq *queue, const shmq_message *message, shmq_cause *cause);

/* Lease up to n messages in one step, at least one. Returns how many. */
SHMQ_API int shmq_lease_batch(shmq *queue, shmq_message *messages, int n, int64_t deadline_ns);
SHMQ_API int shmq_ack_batch(shmq *queue, shmq_message *messages, int n);

/* ---- several messages as one step --------------------------------------------------------- */

typedef struct shmq_step {
  shmq *queue;           /* all of one attachment */
  shmq_message *message; /* leased: will be acked; reserved: will be committed */
} shmq_step;

/* Ack all leases and commit all reservations as one step: whoever dies, wholly or not at all.
 * Shape: n <= SHMQ_COMMIT_MAX, all queues of one attachment.
 * Errors: -EINVAL mixed attachments, too many, or a message that is neither; -ESTALE.
 * Crash: the store of the redo record's state is the commit; recovery completes what is past it. */
SHMQ_API int shmq_commit_all(const shmq_step *steps, int n);

/* Move a leased message to another queue of the same attachment, as one step and without copying its
 * block. Errors: as shmq_reserve for `to`; the lease is still held then. */
SHMQ_API int shmq_forward(shmq *from, shmq_message *message, shmq *to, int64_t deadline_ns);

/* The same with others as one step: reserve in `to` what a leased message will be there. Its bytes are the twin's, in
 * the same block if it has one, and may still be changed. Commit the twin by an shmq_commit_all that acks `message`, and
 * by nothing else; or shmq_abort it. A message has one twin at a time. Errors: as shmq_forward.
 * Crash: before the commit the message is delivered again, from where it was. */
SHMQ_API int shmq_reserve_forward(shmq *from, const shmq_message *message, shmq *to, shmq_message *twin,
                                  int64_t deadline_ns);

/* ---- state ------------------------------------------------------------------------------- */

/* Refuse puts from now on (-EPIPE); takers get what is left and then -EPIPE. Idempotent. */
SHMQ_API int shmq_shutdown(shmq *queue);
/* Accept puts again. */
SHMQ_API int shmq_reopen(shmq *queue);

/* Wait until every message has been taken (drain), or taken and acked (join).
 * Errors: -ETIMEDOUT, -EAGAIN. Progress: sleeps; looks for dead participants meanwhile. */
SHMQ_API int shmq_drain(shmq *queue, int64_t deadline_ns);
SHMQ_API int shmq_join(shmq *queue, int64_t deadline_ns);

/* Messages that a taker could get now: published and not taken, or returned. Exact when nothing
 * moves; without priorities 0 says that there was a moment with none, whatever moves. Progress: wait-free,
 * O(messages) when nothing was returned, else O(cells), and again when overtaken by a taker. */
SHMQ_API int64_t shmq_depth(const shmq *queue);

/* Cells of one band; longest message in a cell; longest message at all. */
SHMQ_API uint32_t shmq_capacity(const shmq *queue);
SHMQ_API uint32_t shmq_message_bytes(const shmq *queue);
SHMQ_API uint64_t shmq_message_limit(const shmq *queue);

/* ---- waiting on several things ------------------------------------------------------------ */

#define SHMQ_READABLE 1u /* a taker would get a message, or -EPIPE */
#define SHMQ_WRITABLE 2u /* a put of a message that fits a cell would not wait */

typedef struct shmq_wait_item {
  shmq *queue;
  uint32_t want;  /* SHMQ_READABLE and/or SHMQ_WRITABLE */
  uint32_t ready; /* set on return */
} shmq_wait_item;

/* Wait until at least one of n items (at most 64) is ready. Returns how many are.
 * Errors: -ETIMEDOUT, -EAGAIN, -EINVAL. The queues may be of different segments. Progress: sleeps in
 * futex_waitv; where the kernel lacks it (before 5.16), in bounded steps. */
SHMQ_API int shmq_wait(shmq_wait_item *items, int n, int64_t deadline_ns);

/* A descriptor that polls readable after the queue became readable, for epoll and the like.
 * Use: fd = shmq_event_fd(q); loop { if (shmq_event_arm(q) == 0) poll(fd); take until -EAGAIN }.
 * Shape: belongs to the handle, closed with it; the same at each call.
 * Context: made of a small io_uring with FUTEX_WAIT; where the kernel has none (before 6.7), of an
 * eventfd and one helper thread with all signals blocked, the only thread this library ever starts. */
SHMQ_API int shmq_event_fd(shmq *queue);
/* Arm the descriptor. Returns: 1 readable now, do not poll; 0 armed; negative errno: -ESTALE it is the parent's,
 * from before a fork; shmq_event_fd makes the child one of its own. Where membarrier is forbidden it becomes readable
 * within a millisecond, message or not. */
SHMQ_API int shmq_event_arm(shmq *queue);
/* For a caller that waits on futexes itself (FUTEX_WAIT in an io_uring, futex_waitv): no descriptor is made.
 * Returns: 1 readable now, do not sleep; 0 sleep until *word is woken or is not *value: 32 bits, shared;
 * -EOPNOTSUPP: membarrier is forbidden here, use shmq_event_fd.
 * Shape: *word lives as long as the queue is open; it is for the kernel, not to be read or written. */
SHMQ_API int shmq_event_word(shmq *queue, uint32_t **word, uint32_t *value);

/* ---- guarding ---------------------------------------------------------------------------- */

/* One participant may guard a segment: it recovers the dead at once, moves dead letters, expires messages that nobody
 * takes, and wakes takers when a delayed message is due. shmqd does. While a guard lives, sleepers do
 * not wake up to look for the dead (but once in 64 s, in case the guard dies too).
 *
 * Become the guard if there is none, and do what is to be done now.
 * Returns: how many participants were recovered; *next_ns (CLOCK_MONOTONIC) is when to call again, SHMQ_FOREVER:
 *   not before somebody joins or dies. Errors: -EBUSY somebody else guards it; as shmq_join_segment. */
SHMQ_API int shmq_guard(shmq_segment *segment, int64_t *next_ns);

/* A descriptor that polls readable when somebody has joined since it was armed: then look whom to watch (pidfds
 * tell a death at once). Belongs to the attachment. shmq_guard_arm: 0, or a negative errno. */
SHMQ_API int shmq_guard_fd(shmq_segment *segment);
SHMQ_API int shmq_guard_arm(shmq_segment *segment);

#ifdef __cplusplus
}
#endif
#endif
