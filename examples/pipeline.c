/* SPDX-License-Identifier: Apache-2.0
 *
 * pipeline [-k KILLS] FOLDER FILE...: compress files with zstd into FOLDER, in three stages of processes.
 *
 *   paths --> read --> contents --> compress (one a CPU) --> packed --> write --> written
 *
 * A file may have about a megabyte. Each step takes from one queue and puts into the next with shmq_commit_all: both or neither, whoever is
 * killed. So every file comes out exactly once. A worker that dies is replaced; -k kills some on purpose.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include <shmq/shmq.h>

/* BLOCKS is what both inner queues hold at most, so nobody ever waits for a block that cannot come. */
enum { BLOCK_BYTES = 1 << 20, BLOCKS = 16, WORKERS_MAX = 64, PATH_BYTES = 1024 };

/* What travels: the path, and the contents behind it. */
struct item {
  char path[PATH_BYTES];
  int32_t error; /* what went wrong with this file; it travels on, too */
  uint64_t size;
  unsigned char bytes[];
};

struct stage {
  const char *from, *to;
  /* How much room the result needs at most; make it in that room; how much it is. */
  size_t (*room)(const struct item *in);
  void (*work)(const struct item *in, struct item *out, size_t room, const char *folder);
};

/* ---- what the stages do ---- */

static size_t file_bytes(const struct item *in) {
  struct stat s;
  return stat(in->path, &s) ? 0 : (size_t)s.st_size;
}

static void read_file(const struct item *in, struct item *out, size_t room, const char *folder) {
  (void)folder;
  int fd = open(in->path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) out->error = errno;
  while (fd >= 0 && out->size < room) {
    ssize_t n = read(fd, out->bytes + out->size, room - out->size);
    if (n < 0) out->error = errno;
    if (n <= 0) break;
    out->size += (size_t)n;
  }
  if (fd >= 0) close(fd);
}

static size_t compressed_bytes(const struct item *in) { return ZSTD_compressBound(in->size); }

static void compress_item(const struct item *in, struct item *out, size_t room, const char *folder) {
  (void)folder;
  size_t n = ZSTD_compress(out->bytes, room, in->bytes, in->size, 3);
  if (ZSTD_isError(n))
    out->error = EIO;
  else
    out->size = n;
}

static size_t no_bytes(const struct item *in) { return (void)in, 0; }

/* Under another name first: a file is there wholly or not at all, and writing it twice does no harm. */
static void write_file(const struct item *in, struct item *out, size_t room, const char *folder) {
  char target[2 * PATH_BYTES], temporary[2 * PATH_BYTES + 8];
  const char *slash = strrchr(in->path, '/');
  snprintf(target, sizeof target, "%s/%s.zst", folder, slash ? slash + 1 : in->path);
  snprintf(temporary, sizeof temporary, "%s.part", target);
  (void)room;
  FILE *f = fopen(temporary, "wb");
  bool good = f && fwrite(in->bytes, 1, in->size, f) == in->size;
  if (f && fclose(f)) good = false;
  if (!good || rename(temporary, target)) out->error = errno;
}

static const struct stage stages[] = {{"paths", "contents", file_bytes, read_file},
                                      {"contents", "packed", compressed_bytes, compress_item},
                                      {"packed", "written", no_bytes, write_file}};
enum { STAGES = sizeof stages / sizeof stages[0] };

/* ---- a worker ---- */

/* Take one, make one, and let both count at once. */
static int step(const struct stage *s, shmq *from, shmq *to, const char *folder) {
  shmq_message taken, made;
  int rc = shmq_lease(from, &taken, SHMQ_FOREVER);
  if (rc) return rc;
  const struct item *in = taken.data;
  size_t room = in->error ? 0 : s->room(in);
  int error = in->error ? in->error : room > BLOCK_BYTES - sizeof *in ? EFBIG : 0;
  if (error) room = 0;
  rc = shmq_reserve(to, sizeof *in + room, &made, SHMQ_FOREVER);
  if (rc) return rc;
  struct item *out = made.data;
  memcpy(out->path, in->path, sizeof out->path);
  out->error = error;
  out->size = 0;
  if (!error) s->work(in, out, room, folder);
  made.size = sizeof *out + out->size;
  return shmq_commit_all((shmq_step[]){{from, &taken}, {to, &made}}, 2);
}

static int work(const char *segment, const struct stage *s, const char *folder) {
  shmq_segment *attached;
  shmq *from, *to;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  int rc = shmq_attach(&attached, segment);
  if (!rc) rc = shmq_open_in(&from, attached, s->from, 0);
  if (!rc) rc = shmq_open_in(&to, attached, s->to, 0);
  while (!rc) rc = step(s, from, to, folder);
  return rc == -EPIPE ? 0 : 1; /* shut down: the end */
}

/* ---- the parent ---- */

struct line {
  const char *segment, *folder;
  pid_t worker[WORKERS_MAX];
  int workers;
};

/* Worker 0 reads, worker 1 writes, the others compress. */
static const struct stage *stage_of(int worker) { return &stages[worker == 0 ? 0 : worker == 1 ? 2 : 1]; }

static void start(struct line *l, int worker) {
  l->worker[worker] = fork();
  if (l->worker[worker] == 0) _exit(work(l->segment, stage_of(worker), l->folder));
}

static void replace_dead(struct line *l) {
  for (int i = 0; i < l->workers; i++)
    if (waitpid(l->worker[i], NULL, WNOHANG) == l->worker[i]) start(l, i);
}

/* Everything in, everything out. Returns how many files failed, or a negative errno. */
static int run(struct line *l, shmq *paths, shmq *written, int n, char **files, int kills) {
  int given = 0, failed = 0, rc = 0;
  for (int done = 0; done < n && !rc;) {
    struct item item = {.error = 0};
    while (given < n && !rc) {
      snprintf(item.path, sizeof item.path, "%s", files[given]);
      rc = shmq_put(paths, &item, sizeof item, SHMQ_NOWAIT);
      if (!rc) given++;
    }
    ssize_t size = shmq_get(written, &item, sizeof item, shmq_after_ns(20000000));
    replace_dead(l);
    rc = size < 0 && size != -ETIMEDOUT ? (int)size : rc == -EAGAIN ? 0 : rc;
    if (size < 0) continue;
    done++;
    failed += item.error != 0;
    printf("%s%s%s\n", item.path, item.error ? ": " : "", item.error ? strerror(item.error) : "");
    if (kills > 0) kill(l->worker[kills-- % l->workers], SIGKILL);
  }
  return rc ? rc : failed;
}

static int open_both(const char *segment, shmq_segment **attached, shmq **paths, shmq **written) {
  shmq_queue_options queues[] = {{.name = "paths", .capacity = 64, .message_bytes = sizeof(struct item)},
                                 {.name = "contents", .capacity = 8, .message_bytes = 64},
                                 {.name = "packed", .capacity = 8, .message_bytes = 64},
                                 {.name = "written", .capacity = 64, .message_bytes = sizeof(struct item)}};
  shmq_options options = {
      .blocks = BLOCKS, .block_bytes = BLOCK_BYTES, .queues = queues, .queue_count = 4, .participants = 160};
  int rc = shmq_create(segment, &options);
  if (!rc) rc = shmq_attach(attached, segment);
  if (!rc) rc = shmq_open_in(paths, *attached, "paths", 0);
  if (!rc) rc = shmq_open_in(written, *attached, "written", 0);
  return rc;
}

int main(int argc, char **argv) {
  int kills = 0, first = 1;
  if (argc > 2 && strcmp(argv[1], "-k") == 0) kills = atoi(argv[2]), first = 3;
  if (argc < first + 2) return fputs("usage: pipeline [-k KILLS] FOLDER FILE...\n", stderr), 2;

  char segment[64];
  shmq_segment *attached;
  shmq *paths, *written;
  long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  struct line line = {.segment = segment,
                      .folder = argv[first],
                      .workers = 2 + (int)(cpus < WORKERS_MAX - 2 ? cpus : WORKERS_MAX - 2)};
  snprintf(segment, sizeof segment, "pipeline.%d", (int)getpid());
  int rc = open_both(segment, &attached, &paths, &written);
  if (!rc) {
    for (int i = 0; i < line.workers; i++) start(&line, i);
    rc = run(&line, paths, written, argc - first - 1, argv + first + 1, kills);
    for (int i = 0; i < line.workers; i++) kill(line.worker[i], SIGTERM);
    while (wait(NULL) > 0) continue;
    shmq_detach((shmq_close(paths), shmq_close(written), attached));
  }
  shmq_unlink(segment);
  if (rc < 0) fprintf(stderr, "pipeline: %s\n", shmq_strerror(rc));
  return rc != 0;
}
