/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of shmq ask: ask.c finds the resource and the operation, an ask_KIND.c does what can be asked of a kind.
 */
#ifndef TOOLS_ASK_H
#define TOOLS_ASK_H

#include <shmq/resource.h>
#include <stdbool.h>

#include "base/flags.h"
#include "base/json.h"

struct ask_options {
  const char *socket, *file;
  struct bytes delimiter;
  int64_t timeout_ns;
  uint64_t ack;
  bool json;
};
extern struct ask_options ask_options;

struct asking {
  shmq_client *client;
  const char *name; /* of the resource */
  uint16_t resource;
  size_t room; /* longest payload of a request or an answer */
  shmq_future *future;
  shmq_result result;
};

/* Ask; the answer is in a->result until the next ask. Complains. Returns a status. */
int ask(struct asking *a, shmq_ask *what);
/* The same with one text, which may be NULL. */
int ask_about(struct asking *a, uint16_t op, const char *text, uint64_t first, uint64_t second,
              size_t room);
/* A list in pieces: each answer holds entries, each a struct and its text, padded to 8 bytes; value[0] is where the next
 * piece begins, 0 behind the last. */
struct ask_list {
  uint16_t op;
  size_t entry_bytes; /* of the struct */
  size_t length_at;   /* where in it the text's length stands, 32 bits */
  void (*print)(struct json *json, const void *entry, const char *text, uint32_t bytes);
};
/* Print all of it. Returns a status. */
int ask_all(struct asking *a, const struct ask_list *list);
/* Write the bytes, and a delimiter if wanted. Returns a status. */
int ask_print(const void *data, size_t size, bool delimit);
/* --file, or standard input. Returns a descriptor or -1 with errno. */
int ask_open_input(void);

struct ask_operation {
  const char *name;
  int least, most;                                     /* arguments behind the name; most -1: any number */
  int (*run)(struct asking *asking, char **arguments); /* absent ones are NULL */
};

/* Each ended by one without a name. */
extern const struct ask_operation ask_dir_operations[], ask_log_operations[], ask_kv_operations[],
    ask_pool_operations[], ask_timer_operations[], ask_stream_operations[], ask_process_operations[];

#endif
