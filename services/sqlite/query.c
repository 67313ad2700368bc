/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq-sqlite query: one request from the command line, its rows printed as the sqlite3 shell prints them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "owner.h"

enum { FAILED = 1, NOT_FOUND = 3, TIMED_OUT = 5, SHUT_DOWN = 6 };

/* ---- the request ---- */

/* What reads back as it was written is a number; everything else is text. */
static void put_parameter(struct sql_buffer *b, const char *text) {
  char back[64], *end;
  errno = 0;
  long long integer = strtoll(text, &end, 10);
  snprintf(back, sizeof back, "%lld", integer);
  if (errno == 0 && strcmp(back, text) == 0) {
    sql_put_integer(b, integer);
    return;
  }
  double real = strtod(text, &end);
  bool number = *text && *end == 0 && strspn(text, "+-.0123456789eE") == strlen(text);
  if (number && text[0] != '0' && strchr(text, '.'))
    sql_put_value(b, &(struct sql_value){.type = SQLITE_FLOAT, .real = real});
  else
    sql_put_text(b, text);
}

static void put_request(struct sql_buffer *b, int count, char **arguments) {
  sql_put_record(b, SQL_STATEMENT, (uint32_t)count);
  sql_put_text(b, arguments[0]);
  for (int i = 1; i < count; i++) put_parameter(b, arguments[i]);
}

/* ---- the answer ---- */

static void print_value(const struct sql_value *v) {
  char text[64];
  switch (v->type) {
  case SQLITE_INTEGER: printf("%" PRId64, v->integer); break;
  case SQLITE_FLOAT: fputs(sqlite3_snprintf(sizeof text, text, "%!.15g", v->real), stdout); break;
  case SQLITE_NULL: break;
  default: fwrite(v->data, 1, v->size, stdout);
  }
}

static void print_part(const shmq_result *result) {
  const unsigned char *data = result->data;
  struct sql_reader reader = {.at = data, .end = data + result->size};
  enum sql_kind kind;
  uint32_t count;
  while (sql_next_record(&reader, &kind, &count)) {
    struct sql_value value;
    for (uint32_t i = 0; i < count && sql_next_value(&reader, &value); i++) {
      if (kind != SQL_ROW) continue;
      if (i) putchar('|');
      print_value(&value);
    }
    if (kind == SQL_ROW) putchar('\n');
  }
}

static int print_error(const char *service, const shmq_result *r) {
  const char *what = *r->text ? r->text : shmq_strerror(r->status);
  fflush(stdout);
  fprintf(stderr, "shmq-sqlite: %s: %s", service, what);
  if (r->status == -EMSGSIZE && !*r->text)
    fputs(" for this service, see --block-size of serve", stderr);
  if (*r->domain) fprintf(stderr, " (%s %d)", r->domain, r->code);
  if (r->executed == SHMQ_EXECUTED_UNKNOWN) fputs("; it may have been executed", stderr);
  fputc('\n', stderr);
  return r->status == -ETIMEDOUT ? TIMED_OUT : r->status == -EPIPE ? SHUT_DOWN : FAILED;
}

static int ask(const char *service, shmq_client *client, const shmq_ask *ask, int64_t deadline) {
  shmq_future *future;
  shmq_result result = {.domain = "", .text = ""};
  result.status = shmq_request(client, ask, deadline, &future);
  if (result.status) return print_error(service, &result);
  do {
    do {
      shmq_await(future, &result, SHMQ_FOREVER);
    } while (result.status == -EINTR);
    if (!result.status) print_part(&result);
  } while (!result.status && result.more);
  int status = result.status ? print_error(service, &result) : 0;
  shmq_future_free(future);
  return status ? status : fflush(stdout) ? FAILED : 0;
}

int query(const char *service, int64_t timeout_ns, bool idempotent, int count, char **arguments) {
  shmq_client *client;
  struct sql_buffer request = {0};
  int rc = shmq_client_open(&client, service, 0);
  if (rc) {
    fprintf(stderr, "shmq-sqlite: %s: %s\n", service, shmq_strerror(rc));
    return rc == -ENOENT ? NOT_FOUND : FAILED;
  }
  put_request(&request, count, arguments);
  struct iovec part = {.iov_base = request.data, .iov_len = request.size};
  shmq_ask what = {.op = SQL_BATCH,
                   .flags = idempotent ? SHMQ_ASK_IDEMPOTENT : 0,
                   .parts = &part,
                   .part_count = 1};
  int64_t deadline = timeout_ns < 0 ? SHMQ_FOREVER : shmq_after_ns(timeout_ns);
  int status = request.failed ? FAILED : ask(service, client, &what, deadline);
  sql_buffer_free(&request);
  shmq_client_close(client);
  return status;
}
