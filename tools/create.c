/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq create: a segment and its queues.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/report.h"
#include "base/view.h"
#include "command.h"

/* What one queue may be given: as flags (the first queue) or as keys of --queue. */
struct wishes {
  const char *name;
  const char *dead_letter;
  uint64_t capacity, message_size, priorities, max_attempts, when_full;
  int64_t ttl_ns;
  bool single_producer, single_consumer, timed;
};

static struct {
  struct wishes first;
  uint64_t blocks, block_size, participants, mode;
  struct texts queues;
} options;

static const struct flag flags[] = {
    NUMBER_FLAG("capacity", 'c', &options.first.capacity, "N", 2, SHMQ_CAPACITY_MAX,
                "messages the queue holds, rounded up to a power of two (default 1024)"),
    SIZE_FLAG("message-size", 's', &options.first.message_size, "BYTES", 1, SHMQ_MESSAGE_MAX,
              "longest message without a block (default 1024)"),
    NUMBER_FLAG("blocks", 0, &options.blocks, "N", 0, UINT32_MAX,
                "blocks for longer messages (default 0)"),
    SIZE_FLAG("block-size", 0, &options.block_size, "BYTES", 1, SHMQ_BLOCK_MAX,
              "size of each block (default 64K)"),
    SET_FLAG("single-producer", 0, &options.first.single_producer,
             "one process at a time may put: faster"),
    SET_FLAG("single-consumer", 0, &options.first.single_consumer,
             "one process at a time may take: faster"),
    MODE_FLAG("mode", 'm', &options.mode, "OCTAL",
              "permissions, the umask not applied (default 0600)"),
    NUMBER_FLAG("participants", 0, &options.participants, "N", 1, SHMQ_PARTICIPANTS_MAX,
                "most that use it at one time (default 64)"),
    NUMBER_FLAG("priorities", 0, &options.first.priorities, "N", 1, SHMQ_PRIORITIES_MAX,
                "priorities 0 to N-1, the highest is served first"),
    NUMBER_FLAG("max-attempts", 0, &options.first.max_attempts, "N", 1, SHMQ_ATTEMPTS_MAX,
                "after N failed deliveries a message goes to the queue NAME/dead"),
    DURATION_FLAG("ttl", 0, &options.first.ttl_ns, "DUR", 1,
                  "messages expire after DUR; implies --timed"),
    SET_FLAG("timed", 0, &options.first.timed, "messages may carry a delay and a time to live"),
    CHOICE_FLAG("when-full", 0, &options.first.when_full, "POLICY", full_policies,
                "block, fail, drop-oldest or drop-newest (default block)"),
    LIST_FLAG("queue", 'q', &options.queues, "QUEUE[:KEY=VALUE,...]",
              "one more queue in the segment; may be repeated"),
    END_OF_FLAGS,
};

/* ---- --queue QUEUE[:KEY=VALUE,...] ---- */

static bool key_is(const char *key, size_t length, const char *name) {
  return strlen(name) == length && strncmp(key, name, length) == 0;
}

/* The flag that a key names, aimed at the wishes of another queue than the first. */
static bool aim(const char *key, size_t length, struct wishes *wishes, struct flag *aimed) {
  for (const struct flag *flag = flags; flag->name != NULL; flag++) {
    uintptr_t offset = (uintptr_t)flag->value - (uintptr_t)&options.first;
    if (key_is(key, length, flag->name) && offset < sizeof options.first) {
      *aimed = *flag;
      aimed->value = (char *)wishes + offset;
      return true;
    }
  }
  *aimed = (struct flag){.name = "dead-letter", .kind = FLAG_TEXT, .value = &wishes->dead_letter};
  return key_is(key, length, "dead-letter");
}

/* One KEY=VALUE, or KEY alone for what is on or off. */
static int read_wish(char *pair, struct wishes *wishes) {
  char *value = strchr(pair, '=');
  size_t length = value != NULL ? (size_t)(value - pair) : strlen(pair);
  struct flag flag;
  if (!aim(pair, length, wishes, &flag)) {
    return usage("--queue %s: there is no key '%s'", wishes->name, pair);
  }
  if ((flag.kind == FLAG_SET) != (value == NULL)) {
    return usage("--queue %s: %s takes %s value", wishes->name, flag.name,
                 flag.kind == FLAG_SET ? "no" : "a");
  }
  const char *fault = flag_store(&flag, value != NULL ? value + 1 : NULL);
  return fault == NULL ? STATUS_OK
                       : usage("--queue %s: %s '%s' %s", wishes->name, flag.name, value + 1, fault);
}

/* The text is cut up in place; it is argv's and lives as long as the program. */
static int read_queue(char *text, struct wishes *wishes) {
  char *pairs = strchr(text, ':');
  if (pairs != NULL) {
    *pairs++ = '\0';
  }
  *wishes = (struct wishes){.name = text,
                            .capacity = options.first.capacity,
                            .message_size = options.first.message_size};
  struct address address;
  const char *fault =
      *text == '\0' || strchr(text, '/') != NULL || strlen(text) > SHMQ_QUEUE_NAME_MAX
          ? "is no queue name: 1 to 47 bytes without a slash"
          : parse_address(text, &address);
  if (fault != NULL) {
    return usage("--queue '%.60s' %s", text, fault);
  }
  int status = STATUS_OK;
  for (char *pair; status == STATUS_OK && (pair = strsep(&pairs, ",")) != NULL;) {
    status = read_wish(pair, wishes);
  }
  return status;
}

/* ---- all queues ---- */

static struct wishes wishes[TEXTS_MAX + 2];
static uint32_t wish_count;

static const struct wishes *find_wishes(const char *name) {
  for (uint32_t i = 0; i < wish_count; i++) {
    if (strcmp(wishes[i].name, name) == 0) {
      return &wishes[i];
    }
  }
  return NULL;
}

/* A queue with a limit of deliveries needs somewhere to put what is beyond it: "dead" unless it
 * says. */
static void add_dead_letter_queue(void) {
  bool wanted = false;
  for (uint32_t i = 0; i < wish_count; i++) {
    if (wishes[i].max_attempts > 0 && wishes[i].dead_letter == NULL) {
      wishes[i].dead_letter = "dead";
      wanted = true;
    }
  }
  if (wanted && find_wishes("dead") == NULL) {
    wishes[wish_count++] = (struct wishes){.name = "dead",
                                           .capacity = options.first.capacity,
                                           .message_size = options.first.message_size};
  }
}

static uint64_t message_size(const struct wishes *queue) {
  return queue->message_size > 0 ? queue->message_size : 1024;
}

static int check_dead_letters(const struct wishes *queue, const struct wishes *dead) {
  if (dead->single_producer) {
    return usage("the dead-letter queue '%s' cannot have a single producer", dead->name);
  }
  if (message_size(dead) < message_size(queue)) {
    return usage("the dead-letter queue '%s' takes shorter messages than '%s'", dead->name,
                 queue->name);
  }
  return STATUS_OK;
}

static int check_wishes(const struct wishes *queue) {
  if (find_wishes(queue->name) != queue) {
    return usage("two queues are called '%s'", queue->name);
  }
  if (queue->when_full == SHMQ_FULL_DROP_OLDEST && queue->single_consumer) {
    return usage("queue '%s': drop-oldest takes messages itself, so it does not go with "
                 "single-consumer",
                 queue->name);
  }
  if (queue->dead_letter == NULL) {
    return STATUS_OK;
  }
  if (queue->max_attempts == 0) {
    return usage("queue '%s' has a dead-letter queue but no max-attempts", queue->name);
  }
  const struct wishes *dead = find_wishes(queue->dead_letter);
  if (dead == NULL || dead == queue) {
    return usage("the dead-letter queue '%s' of '%s' is not another queue of this segment",
                 queue->dead_letter, queue->name);
  }
  return check_dead_letters(queue, dead);
}

static int collect_queues(void) {
  wishes[0] = options.first;
  wishes[0].name = "main";
  wish_count = 1;
  for (size_t i = 0; i < options.queues.count; i++) {
    int status = read_queue((char *)options.queues.items[i], &wishes[wish_count++]);
    if (status != STATUS_OK) {
      return status;
    }
  }
  add_dead_letter_queue();
  for (uint32_t i = 0; i < wish_count; i++) {
    int status = check_wishes(&wishes[i]);
    if (status != STATUS_OK) {
      return status;
    }
  }
  return STATUS_OK;
}

static shmq_queue_options queue_options(const struct wishes *wish) {
  return (shmq_queue_options){
      .name = wish->name,
      .capacity = (uint32_t)wish->capacity,
      .message_bytes = (uint32_t)wish->message_size,
      .flags = (wish->single_producer ? SHMQ_SINGLE_PRODUCER : 0) |
               (wish->single_consumer ? SHMQ_SINGLE_CONSUMER : 0) |
               (wish->timed || wish->ttl_ns > 0 ? SHMQ_TIMED : 0),
      .priorities = (uint32_t)wish->priorities,
      .max_attempts = (uint32_t)wish->max_attempts,
      .dead_letter = wish->dead_letter,
      .ttl_ns = wish->ttl_ns,
      .full_policy = (uint32_t)wish->when_full,
  };
}

static int run(int count, char **arguments) {
  (void)count;
  struct address address;
  int status = check_name(arguments[0], false, &address);
  if (status == STATUS_OK && options.block_size > 0 && options.blocks == 0) {
    status = usage("--block-size without --blocks");
  }
  if (status == STATUS_OK) {
    status = collect_queues();
  }
  if (status != STATUS_OK) {
    return status;
  }
  shmq_queue_options queues[TEXTS_MAX + 2];
  for (uint32_t i = 0; i < wish_count; i++) {
    queues[i] = queue_options(&wishes[i]);
  }
  shmq_options segment = {.mode = (uint32_t)options.mode,
                          .participants = (uint32_t)options.participants,
                          .blocks = (uint32_t)options.blocks,
                          .block_bytes = (uint32_t)options.block_size,
                          .queues = queues,
                          .queue_count = wish_count};
  int rc = shmq_create(address.segment, &segment);
  if (rc == -EINVAL) {
    return usage("%s: these flags do not go together, or ask for more than a segment can hold",
                 address.segment);
  }
  return rc == 0 ? STATUS_OK : fail(address.segment, rc);
}

const struct command create_command = {
    .name = "create",
    .arguments = "NAME",
    .summary = "Make a segment with a queue",
    .details =
        "The memory is reserved in full, so no later put fails for lack of it. The first queue is "
        "called main and has the properties that the flags say; NAME alone means it.\n\n"
        "--queue adds a queue, used as NAME/QUEUE. Its keys are capacity, message-size, "
        "priorities, max-attempts, dead-letter, ttl, when-full, and, without a value, "
        "single-producer, single-consumer and timed. Capacity and message-size are as for the "
        "first queue unless stated. Queues of one segment share its participants and blocks, and "
        "messages move between them as one step.\n\n"
        "With --max-attempts the segment gets a queue called dead, unless --queue describes it.",
    .examples = "  shmq create jobs\n"
                "  shmq create jobs --capacity 65536 --message-size 4K --mode 0660\n"
                "  shmq create img --blocks 32 --block-size 4M --queue small:capacity=16\n"
                "  shmq create mail --max-attempts 5 --queue dead:capacity=100",
    .flags = flags,
    .least = 1,
    .most = 1,
    .run = run,
};
