/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq ask: what can be done with a stream and with a process, which are asked alike.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "base/parse.h"
#include "base/report.h"

_Static_assert((int)SHMQ_STREAM_ASK == (int)SHMQ_PROCESS_ASK, "both are asked alike");

static int ask_frame(struct asking *a, struct iovec *parts, int count) {
  shmq_ask what = {
      .op = SHMQ_STREAM_ASK, .parts = parts, .part_count = count, .room = a->room};
  int status = ask(a, &what);
  return status == STATUS_OK ? ask_print(a->result.data, a->result.size, false) : status;
}

static int peer_line(struct asking *a, char **arguments) {
  struct iovec parts[2] = {{arguments[0], strlen(arguments[0])}, {(char[]){'\n'}, 1}};
  return ask_frame(a, parts, 2);
}

/* The words as an array of bulk strings. */
static int stream_command(struct asking *a, char **arguments) {
  char *text = NULL;
  size_t size = 0, count = 0;
  while (arguments[count] != NULL) {
    count++;
  }
  FILE *out = open_memstream(&text, &size);
  if (out == NULL) {
    return STATUS_FAILED;
  }
  fprintf(out, "*%zu\r\n", count);
  for (size_t i = 0; i < count; i++) {
    fprintf(out, "$%zu\r\n%s\r\n", strlen(arguments[i]), arguments[i]);
  }
  fclose(out);
  struct iovec part = {text, size};
  int status = ask_frame(a, &part, 1);
  free(text);
  return status;
}

static int print_status(struct asking *a, uint16_t op) {
  int status = ask_about(a, op, NULL, 0, 0, a->room);
  return status == STATUS_OK ? ask_print(a->result.data, a->result.size, false) : status;
}

static int stream_status(struct asking *a, char **arguments) {
  (void)arguments;
  return print_status(a, SHMQ_STREAM_STATUS);
}

static int process_status(struct asking *a, char **arguments) {
  (void)arguments;
  return print_status(a, SHMQ_PROCESS_STATUS);
}

static int process_signal(struct asking *a, char **arguments) {
  uint64_t number, which = 0;
  const char *fault = parse_number(arguments[0], 1, 64, &number);
  if (fault == NULL && arguments[1] != NULL) {
    fault = parse_number(arguments[1], 0, UINT32_MAX, &which);
  }
  if (fault != NULL) {
    return usage("a signal or the number of a process %s", fault);
  }
  int status = ask_about(a, SHMQ_PROCESS_SIGNAL, NULL, which, number, 0);
  if (status == STATUS_OK) {
    printf("%" PRIu64 "\n", a->result.value[0]);
  }
  return status;
}

const struct ask_operation ask_stream_operations[] = {
    {"line", 1, 1, peer_line},
    {"command", 1, -1, stream_command},
    {"status", 0, 0, stream_status},
    {0},
};

const struct ask_operation ask_process_operations[] = {
    {"line", 1, 1, peer_line},
    {"signal", 1, 2, process_signal},
    {"status", 0, 0, process_status},
    {0},
};
