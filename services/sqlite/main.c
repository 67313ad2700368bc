/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq-sqlite: the one owner of an SQLite database, and a client of it. Arguments, start and end.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "owner.h"

enum { FAILED = 1, USAGE = 2 };

struct arguments {
  shmq_service_options service;
  int64_t timeout_ns;
  bool idempotent;
  uint32_t ready_fd; /* 0: none */
};

static int usage(FILE *to) {
  fputs("usage: shmq-sqlite serve [OPTION]... SERVICE DATABASE\n"
        "       shmq-sqlite query [OPTION]... SERVICE SQL [PARAMETER]...\n"
        "Own an SQLite database and execute what is asked through a shmq service; ask it.\n\n"
        "serve: the service is made if there is none. Write-ahead log, synchronous=FULL: what was answered\n"
        "is on the disk. Requests that arrive together are committed together.\n"
        "      --askers N        most that ask at one time (default 32)\n"
        "  -s, --message-size N  longest message without a block (default 512)\n"
        "      --blocks N        blocks for longer messages (default 64)\n"
        "      --block-size N    longest message at all: of a request, of a row (default 65536)\n"
        "  -m, --mode OCTAL      who may ask (default 0600)\n"
        "      --ready-fd N      write a newline to descriptor N when it can be asked\n\n"
        "query: all statements of SQL are one transaction; ?1, ?2 ... stand for the PARAMETERs.\n"
        "      --timeout SECONDS the request's whole life (default: none)\n"
        "  -i, --idempotent      doing it twice does no harm: the next owner may repeat it\n",
        to);
  return USAGE;
}

static bool number(const char *text, int base, unsigned long max, uint32_t *value) {
  char *end;
  errno = 0;
  unsigned long n = strtoul(text, &end, base);
  bool good = !errno && end != text && !*end && n <= max && *text != '-';
  if (!good) fprintf(stderr, "shmq-sqlite: '%s' is not a number up to %lu\n", text, max);
  *value = (uint32_t)n;
  return good;
}

static bool seconds(const char *text, int64_t *ns) {
  char *end;
  double s = strtod(text, &end);
  bool good = end != text && !*end && s >= 0 && s < 1e9;
  if (!good) fprintf(stderr, "shmq-sqlite: '%s' is not a number of seconds\n", text);
  *ns = good ? (int64_t)(s * 1e9) : 0;
  return good;
}

static bool parse(int argc, char **argv, struct arguments *a) {
  enum { ASKERS = 256, BLOCKS, BLOCK_SIZE, TIMEOUT, READY_FD, HELP };
  static const struct option options[] = {
      {"askers", required_argument, NULL, ASKERS},   {"message-size", required_argument, NULL, 's'},
      {"blocks", required_argument, NULL, BLOCKS},   {"block-size", required_argument, NULL, BLOCK_SIZE},
      {"mode", required_argument, NULL, 'm'},        {"timeout", required_argument, NULL, TIMEOUT},
      {"idempotent", no_argument, NULL, 'i'},        {"ready-fd", required_argument, NULL, READY_FD},
      {"help", no_argument, NULL, HELP},
      {NULL, 0, NULL, 0}};
  bool good = true;
  for (int o; (o = getopt_long(argc, argv, "+s:m:i", options, NULL)) != -1;) {
    switch (o) {
    case ASKERS: good &= number(optarg, 10, 500, &a->service.askers); break;
    case 's': good &= number(optarg, 10, SHMQ_MESSAGE_MAX / 2, &a->service.message_bytes); break;
    case BLOCKS: good &= number(optarg, 10, 1 << 20, &a->service.blocks); break;
    case BLOCK_SIZE: good &= number(optarg, 10, SHMQ_BLOCK_MAX / 2, &a->service.block_bytes); break;
    case 'm': good &= number(optarg, 8, 0777, &a->service.mode); break;
    case TIMEOUT: good &= seconds(optarg, &a->timeout_ns); break;
    case 'i': a->idempotent = true; break;
    case READY_FD: good &= number(optarg, 10, 1 << 20, &a->ready_fd); break;
    case HELP: usage(stdout); exit(0);
    default: good = false;
    }
  }
  return good;
}

/* ---- serve ---- */

/* The kernel's word that we are the only owner, for as long as we live. It is another kind of lock than
 * SQLite's, on a file of its own: closing the database's own file would drop SQLite's. */
static int lock_database(const char *path) {
  char name[4096];
  int n = snprintf(name, sizeof name, "%s-owner", path);
  int fd = n < (int)sizeof name ? open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (fd < 0) {
    fprintf(stderr, "shmq-sqlite: %s-owner: %s\n", path, strerror(errno));
    return FAILED;
  }
  if (flock(fd, LOCK_EX | LOCK_NB)) {
    fprintf(stderr, "shmq-sqlite: %s: another process owns it\n", path);
    return FAILED;
  }
  return 0;
}

static int open_service(struct owner *o, const char *name, const shmq_service_options *options) {
  int rc = shmq_service_open(&o->service, name, SHMQ_NEVER_WAIT);
  if (rc == -ENOENT) {
    rc = shmq_service_create(name, options);
    if (rc == 0 || rc == -EEXIST) rc = shmq_service_open(&o->service, name, SHMQ_NEVER_WAIT);
  }
  return rc;
}

/* The first queue of a service takes the requests; replies are as long. */
static int measure(struct owner *o) {
  shmq *requests;
  int rc = shmq_open_in(&requests, shmq_service_segment(o->service), NULL, 0);
  if (rc) return rc;
  uint64_t limit = shmq_message_limit(requests);
  uint64_t cell = shmq_message_bytes(requests);
  o->part = (size_t)(limit > cell ? limit : cell) - SHMQ_RPC_HEADER_BYTES;
  shmq_close(requests);
  return 0;
}

static void stop(int number_of_signal) {
  (void)number_of_signal;
  stopping = 1;
}

static void catch_signals(void) {
  struct sigaction action = {.sa_handler = stop};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
}

static void tell_ready(uint32_t fd) {
  if (!fd) return;
  if (write((int)fd, "\n", 1) < 0) fprintf(stderr, "shmq-sqlite: --ready-fd: %s\n", strerror(errno));
  close((int)fd);
}

static int serve(const char *name, const char *path, const struct arguments *a) {
  static struct owner o;
  o.path = path;
  int status = lock_database(path);
  if (status) return status;
  catch_signals();
  int code = connection_open(&o.writer, path, true);
  if (code) {
    fprintf(stderr, "shmq-sqlite: %s: %s\n", path,
            o.writer.db ? sqlite3_errmsg(o.writer.db) : sqlite3_errstr(code));
    connection_close(&o.writer);
    return FAILED;
  }
  int rc = open_service(&o, name, &a->service);
  if (!rc) rc = measure(&o);
  if (!rc) tell_ready(a->ready_fd);
  if (!rc) rc = owner_run(&o);
  if (rc) fprintf(stderr, "shmq-sqlite: %s: %s\n", name, shmq_strerror(rc));
  for (int i = 0; i < READERS_MAX; i++) connection_close(&o.readers[i]);
  connection_close(&o.writer);
  shmq_service_close(o.service);
  return rc ? FAILED : 0;
}

int main(int argc, char **argv) {
  struct arguments a = {
      .service = {.message_bytes = 512, .blocks = 64, .block_bytes = 64 << 10, .credits = 16, .aside = 256},
      .timeout_ns = -1};
  const char *command = argc > 1 ? argv[1] : "";
  if (strcmp(command, "--help") == 0) return usage(stdout), 0;
  bool serving = strcmp(command, "serve") == 0;
  if (!serving && strcmp(command, "query") != 0) return usage(stderr);
  argv[1] = argv[0];
  argc--;
  argv++;
  if (!parse(argc, argv, &a)) return USAGE;
  int left = argc - optind;
  if (left < 2 || (serving && left != 2)) return usage(stderr);
  char **rest = argv + optind;
  return serving ? serve(rest[0], rest[1], &a)
                 : query(rest[0], a.timeout_ns, a.idempotent, left - 1, rest + 1);
}
