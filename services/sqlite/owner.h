/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq-sqlite from inside. One process and one thread own the database:
 *
 *   database     a connection, how it is set up, and its prepared statements
 *   run          the statements of one request on a connection, rows into a buffer, in as many goes as it takes
 *   request      requests that arrived together, executed in one transaction and committed together
 *   answer       what has been executed goes back, whole or in parts, at the speed of who asked
 *   gather       which requests make a group
 *   owner        the loop
 */
#ifndef SHMQ_SQLITE_OWNER_H
#define SHMQ_SQLITE_OWNER_H

#include <signal.h>
#include <sqlite3.h>

#include <shmq/rpc.h>

#include "format.h"

enum {
  STATEMENTS_MAX = 64,  /* prepared ones kept by a connection */
  READERS_MAX = 8,      /* long answers under way at once */
  GROUP_MAX = 256,      /* requests that share a transaction */
  SLOTS_MAX = 512,      /* more than a service has */
  HELD_MAX = 64 << 20   /* bytes of an answer to a request that also writes */
};

/* ---- database.c, statements.c ---- */

struct statement {
  char *sql;          /* and what follows it in the request's text */
  size_t size, used;  /* of it; how much of that this statement is */
  sqlite3_stmt *stmt; /* NULL: a comment, a lone ; */
  uint64_t touched;
  bool own;           /* prepared when transactions were allowed: no request may have it */
};

struct connection {
  sqlite3 *db;
  struct statement statements[STATEMENTS_MAX];
  uint64_t clock;
  bool own;                /* transactions are ours, not a request's */
  shmq_incoming *current;  /* whose request is being executed */
};

/* What went wrong, as it will be answered. status 0: nothing. */
struct failure {
  int status, code;
  uint8_t error_class, executed;
  char text[256];
};

extern volatile sig_atomic_t stopping;

/* Errors: SQLite's result codes, 0 for success. */
int connection_open(struct connection *c, const char *path, bool writing);
void connection_close(struct connection *c);
/* One of our own statements: a transaction's begin and end. */
int connection_do(struct connection *c, const char *sql);
/* The connection's last error, put into words. */
void failure_of(struct failure *f, struct connection *c, int code);
void failure_set(struct failure *f, int code, const char *text);

int statement_get(struct connection *c, const char *sql, size_t size, struct statement **out);
void statement_release(struct statement *s);
void statements_free(struct connection *c);

/* ---- run.c ---- */

enum run_state { RUN_MORE, RUN_DONE, RUN_FAILED };

struct run {
  struct connection *connection;
  enum sql_op op;
  struct sql_reader reader;    /* what is left of the request */
  const char *rest;            /* what is left of the text of one statement or several */
  size_t rest_size;
  uint32_t parameters;         /* that nobody has used yet */
  struct statement *statement; /* the current one, NULL between two */
  bool named;                  /* its columns' names were written */
  struct failure failure;
};
void run_begin(struct run *run, struct connection *c, uint16_t op, const void *data, size_t size);
/* Would it change nothing? Prepares every statement; false also where one cannot be prepared yet. */
bool run_only_reads(struct run *run);
/* Go on until the buffer holds more than `enough` bytes. */
enum run_state run_some(struct run *run, struct sql_buffer *to, size_t enough);
void run_end(struct run *run);

/* ---- request.c ---- */

struct request {
  shmq_incoming incoming;
  void *data; /* a copy: the asker could change the original */
  struct sql_buffer answer;
  size_t sent;
  uint64_t value[2];
  struct failure failure;
  bool written;              /* it was not only read */
  bool is_long;              /* a reader connection is to read it */
  struct connection *reader; /* that does */
  struct run run;
  bool run_done;
  struct request *next;
};

struct owner {
  const char *path;
  shmq_service *service;
  struct connection writer, readers[READERS_MAX];
  bool reader_taken[READERS_MAX];
  bool writing;        /* a transaction is open */
  size_t part;         /* most bytes of one message's payload */
  struct request *group[GROUP_MAX];
  struct request *waiting; /* whose answers could not be sent wholly yet */
  uint16_t expected[SLOTS_MAX]; /* of each asker: requests just answered and not followed by others yet */
  unsigned expected_sum;
  int64_t expected_until_ns;
};

int request_take(struct request **out, const shmq_incoming *incoming);
void request_free(struct request *r);
/* The first n of the group, and those that arrive meanwhile. Returns how many there were. */
int execute_group(struct owner *o, int n);

/* ---- answer.c ---- */

extern const char row_too_long[];

/* Send what can be sent now. Returns 1 when the request is done with, 0 when there is more. */
int answer_some(struct owner *o, struct request *r, bool *progress);
/* Can it be sent? Text can be cut anywhere, a record nowhere. */
bool answer_fits(const struct owner *o, const struct request *r);
/* Give it up with an error. What was written is committed all the same. */
void answer_error(struct owner *o, struct request *r, int status);

/* ---- gather.c ---- */

/* Add what is there to the n requests of the group; wait for one if there is none. Returns how many, or an error. */
int gather(struct owner *o, int n, int64_t deadline_ns);
/* Its asker may ask again at once. */
void gather_answered(struct owner *o, const struct request *r);
void gather_committed(struct owner *o, int64_t took_ns);

/* ---- owner.c, query.c ---- */

int owner_run(struct owner *o);
int query(const char *service, int64_t timeout_ns, bool idempotent, int count, char **arguments);

#endif
