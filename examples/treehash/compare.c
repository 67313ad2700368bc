/* SPDX-License-Identifier: Apache-2.0
 *
 * The truth: sha256sum over the same tree, against the records of the log.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmq/rpc.h>

#include "treehash.h"

enum { ROOM = 64 << 10, HEX = 2 * HASH_BYTES };

struct record {
  char *name;
  char hash[HEX + 1]; /* "" when unreadable */
};

struct records {
  struct record *list;
  size_t count, room;
};

static int add(struct records *r, const char *hash, size_t hash_bytes, const char *name,
               size_t bytes) {
  if (r->count == r->room) {
    size_t room = r->room ? 2 * r->room : 1024;
    struct record *list = realloc(r->list, room * sizeof *list);
    if (!list) return -ENOMEM;
    r->list = list;
    r->room = room;
  }
  struct record *one = &r->list[r->count];
  one->name = strndup(name, bytes);
  if (!one->name) return -ENOMEM;
  memcpy(one->hash, hash, hash_bytes);
  one->hash[hash_bytes] = 0;
  r->count++;
  return 0;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct record *)a)->name, ((const struct record *)b)->name);
}

static void sort(struct records *r) {
  if (r->count) qsort(r->list, r->count, sizeof *r->list, by_name);
}

static void records_free(struct records *r) {
  for (size_t i = 0; i < r->count; i++) free(r->list[i].name);
  free(r->list);
}

/* ---- the log ---- */

static int add_line(struct records *r, struct verdict *v, const char *line, size_t bytes) {
  bool unreadable = bytes > strlen(UNREADABLE) && memcmp(line, UNREADABLE, strlen(UNREADABLE)) == 0;
  const char *gap = memmem(line, bytes, "  ", 2);
  if (!gap || (!unreadable && gap - line != HEX)) return -EBADMSG;
  const char *name = gap + 2;
  size_t name_bytes = bytes - (size_t)(name - line);
  if (unreadable) {
    v->unreadable++;
    fprintf(stderr, "treehash: cannot read %.*s: %s\n", (int)name_bytes, name,
            strerror(atoi(line + strlen(UNREADABLE))));
  }
  return add(r, line, unreadable ? 0 : HEX, name, name_bytes);
}

static int add_entries(struct records *r, struct verdict *v, const char *data, size_t size,
                       uint64_t *next) {
  for (size_t at = 0; at + sizeof(shmq_log_entry) <= size;) {
    shmq_log_entry e;
    memcpy(&e, data + at, sizeof e);
    if (e.number != *next || e.bytes > size - at - sizeof e) return -EBADMSG;
    int rc = add_line(r, v, data + at + sizeof e, e.bytes);
    if (rc) return rc;
    at += (sizeof e + e.bytes + 7) & ~(size_t)7;
    ++*next;
  }
  return 0;
}

static int read_log(const struct treehash *t, struct records *r, struct verdict *v) {
  shmq_client *client;
  shmq_session_options options = {.blocks = 4, .block_bytes = ROOM};
  int rc = shmq_client_connect(&client, t->socket, &options, 0);
  if (rc) return rc;
  int log = shmq_resource(client, "result");
  shmq_ask ask = {.resource = (uint16_t)log, .op = SHMQ_LOG_READ, .room = ROOM};
  uint64_t next = 1;
  rc = log < 0 ? log : 0;
  while (!rc) {
    shmq_result result;
    ask.value[0] = next;
    rc = shmq_call(client, &ask, &result, SHMQ_FOREVER);
    if (!rc) rc = add_entries(r, v, result.data, result.size, &next);
  }
  shmq_client_close(client);
  return rc == -ENODATA ? 0 : rc; /* no such record yet: the end */
}

/* ---- sha256sum ---- */

static int run_sha256sum(const struct treehash *t, const char *output) {
  pid_t pid = fork();
  if (pid == 0) {
    int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || chdir(t->tree)) _exit(1);
    if (t->quiet && (fd = open("/dev/null", O_WRONLY)) >= 0) dup2(fd, STDERR_FILENO);
    execlp("sh", "sh", "-c", "find . -type f -print0 | xargs -0 -r -P2 -n16 sha256sum --",
           (char *)NULL);
    _exit(127);
  }
  int status;
  while (pid > 0 && waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return -errno;
  if (pid < 0 || !WIFEXITED(status) || WEXITSTATUS(status) == 127) return -ECHILD;
  return 0; /* 123: some file could not be read, which the records show */
}

/* A name with a newline, a return or a backslash stands escaped, in a line that begins with one. */
static size_t unescape(char *name) {
  char *to = name;
  for (const char *from = name; *from; from++) {
    if (*from != '\\' || !from[1]) {
      *to++ = *from;
      continue;
    }
    from++;
    *to++ = *from == 'n' ? '\n' : *from == 'r' ? '\r' : *from;
  }
  *to = 0;
  return (size_t)(to - name);
}

static int add_sum(struct records *r, char *line, size_t bytes) {
  bool escaped = *line == '\\';
  if (escaped) {
    line++;
    bytes--;
  }
  if (bytes < HEX + 4 || memcmp(line + HEX, "  ./", 4) != 0) return -EBADMSG;
  char *name = line + HEX + 4;
  size_t name_bytes = escaped ? unescape(name) : bytes - HEX - 4;
  return add(r, line, HEX, name, name_bytes);
}

static int read_sums(const char *path, struct records *r) {
  FILE *file = fopen(path, "re");
  char *line = NULL;
  size_t room = 0;
  ssize_t n;
  int rc = file ? 0 : -errno;
  while (!rc && (n = getline(&line, &room, file)) > 0) {
    if (line[n - 1] == '\n') line[--n] = 0;
    rc = add_sum(r, line, (size_t)n);
  }
  free(line);
  if (file) fclose(file);
  return rc;
}

/* ---- the comparison ---- */

/* Remove repeated names from the sorted list, and count them. */
static uint64_t remove_duplicates(struct records *r) {
  size_t kept = 0;
  uint64_t duplicates = 0;
  for (size_t i = 0; i < r->count; i++) {
    if (kept && strcmp(r->list[kept - 1].name, r->list[i].name) == 0) {
      free(r->list[i].name);
      duplicates++;
    } else {
      r->list[kept++] = r->list[i];
    }
  }
  r->count = kept;
  return duplicates;
}

static void differ(const char *what, const char *name) {
  fprintf(stderr, "treehash: %s: %s\n", what, name);
}

static void merge(const struct records *ours, const struct records *truth, struct verdict *v) {
  size_t i = 0, k = 0;
  while (i < ours->count || k < truth->count) {
    int order = i == ours->count    ? 1
                : k == truth->count ? -1
                                    : strcmp(ours->list[i].name, truth->list[k].name);
    if (order > 0) {
      differ("missing", truth->list[k++].name);
      v->missing++;
    } else if (order < 0) {
      if (*ours->list[i].hash) {
        differ("not known to sha256sum", ours->list[i].name);
        v->mismatched++;
      }
      i++;
    } else {
      if (strcmp(ours->list[i].hash, truth->list[k].hash) != 0) {
        differ("mismatched", ours->list[i].name);
        v->mismatched++;
      }
      i++;
      k++;
    }
  }
}

static uint64_t bytes_of(const struct treehash *t, const struct records *r) {
  int tree = open(t->tree, O_PATH | O_DIRECTORY | O_CLOEXEC);
  uint64_t bytes = 0;
  struct stat st;
  for (size_t i = 0; i < r->count; i++)
    if (*r->list[i].hash && fstatat(tree, r->list[i].name, &st, AT_SYMLINK_NOFOLLOW) == 0)
      bytes += (uint64_t)st.st_size;
  if (tree >= 0) close(tree);
  return bytes;
}

int compare(const struct treehash *t, struct verdict *v) {
  struct records ours = {0}, truth = {0};
  char output[PATH_MAX];
  snprintf(output, sizeof output, "%s/sha256sum", t->run);
  *v = (struct verdict){0};
  int rc = read_log(t, &ours, v);
  int64_t begun = shmq_now_ns();
  if (!rc) rc = run_sha256sum(t, output);
  v->sha256sum_seconds = (double)(shmq_now_ns() - begun) / 1e9;
  if (!rc) rc = read_sums(output, &truth);
  if (!rc) {
    sort(&ours);
    sort(&truth);
    v->duplicate = remove_duplicates(&ours);
    v->files = ours.count;
    v->bytes = bytes_of(t, &ours);
    merge(&ours, &truth, v);
  }
  records_free(&ours);
  records_free(&truth);
  return rc;
}
