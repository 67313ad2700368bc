/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading a file through the daemon: 4 KiB at random from 64 MiB. The client runs on the first CPU and the daemon on
 * the second. Each page holds its number and then noise, and every answer is looked at.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"
#include "peer.h"

enum { PAGE = 4096, PAGES = 16384, DEPTH = 32 };

struct reader {
  struct load load;
  char path[300];
  int fd; /* for pread */
};

static void die(const char *what) {
  perror(what);
  abort();
}

static void make_file(const char *path) {
  static uint64_t page[PAGE / sizeof(uint64_t)], state;
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) die(path);
  for (uint64_t i = 0; i < PAGES; i++) {
    page[0] = i;
    for (unsigned k = 1; k < PAGE / sizeof i; k++) page[k] = load_random(&state);
    if (write(fd, page, PAGE) != PAGE) die(path);
  }
  if (fsync(fd) != 0)
    die(path); /* what is dirty cannot be read with O_DIRECT at the disk's own speed */
  close(fd);
}

static void check_page(const void *data, size_t size, uint64_t page) {
  uint64_t number;
  memcpy(&number, data, sizeof number);
  if (size >= PAGE && number == page) return;
  fprintf(stderr, "bench: page %lu came when %lu was due\n", (unsigned long)number,
          (unsigned long)page);
  abort();
}

static void prepare(struct load *l) {
  l->prepared = load_random(&l->state) % PAGES;
  l->ask.value[1] = l->prepared * PAGE;
}

static void check(const struct load *l, const shmq_result *result, uint64_t prepared) {
  (void)l;
  check_page(result->data, result->size, prepared);
}

static uint64_t open_file(shmq_client *client, int tree, uint64_t flags) {
  static char name[] = "file";
  struct iovec part = {name, sizeof name - 1};
  shmq_ask ask = {.resource = (uint16_t)tree,
                  .op = SHMQ_DIR_OPEN,
                  .value = {flags, 0},
                  .parts = &part,
                  .part_count = 1};
  shmq_result result;
  if (shmq_call(client, &ask, &result, SHMQ_FOREVER) < 0) {
    fprintf(stderr, "bench: open: %s\n", shmq_strerror(result.status));
    abort();
  }
  return result.value[0];
}

static void reader_open(struct reader *r, const struct bench_daemon *d, unsigned depth,
                        bool direct) {
  shmq_client *client = bench_connect(d, DEPTH, SHMQ_SPIN);
  int tree = shmq_resource(client, "tree");
  r->load = (struct load){.client = client,
                          .depth = depth,
                          .prepare = prepare,
                          .check = check,
                          .ask = {.resource = (uint16_t)tree,
                                  .op = SHMQ_DIR_READ,
                                  .flags = SHMQ_ASK_IDEMPOTENT,
                                  .room = direct ? PAGE + 512 : PAGE}};
  r->load.ask.value[0] = open_file(client, tree, direct ? SHMQ_DIR_DIRECT : 0);
}

static bool read_window(void *what, double seconds, struct window *out) {
  struct reader *r = what;
  placement_pin(placement_cpu(0));
  (void)load_run(&r->load, seconds / 20);
  out->value = load_run(&r->load, seconds);
  placement_unpin();
  return true;
}

/* One at a time: ns a read, as pread's. */
static bool call_window(void *what, double seconds, struct window *out) {
  if (!read_window(what, seconds, out)) return false;
  out->value = 1e9 / out->value;
  return true;
}

static bool pread_window(void *what, double seconds, struct window *out) {
  struct reader *r = what;
  static unsigned char page[PAGE];
  uint64_t state = 0;
  long n = 0;
  placement_pin(placement_cpu(0));
  double start = window_now(), now = start;
  for (; now - start < seconds; n++, now = window_now()) {
    uint64_t number = load_random(&state) % PAGES;
    if (pread(r->fd, page, PAGE, (off_t)(number * PAGE)) != PAGE) die("pread");
    check_page(page, PAGE, number);
  }
  placement_unpin();
  out->value = (now - start) * 1e9 / (double)n;
  return true;
}

/* Each with a daemon and a file of its own. */
static void measure(struct suite *s, struct figure *f, bool direct, window_fn *run_reference) {
  struct bench_daemon d;
  struct reader reader = {0};
  if (!suite_wants(s, f->name)) return;
  if (bench_daemon_start(&d, s, placement_cpu(1)) < 0) {
    suite_miss(s, f->name, "no daemon");
    return;
  }
  snprintf(reader.path, sizeof reader.path, "%s/tree/file", d.dir);
  make_file(reader.path);
  reader_open(&reader, &d, f->less_is_better ? 1 : DEPTH, direct);
  reader.fd = open(reader.path, O_RDONLY | O_CLOEXEC);
  struct fio fio = {.path = reader.path, .direct = direct};
  f->what = &reader;
  f->run_reference = run_reference;
  f->reference_what = run_reference == fio_window ? (void *)&fio : &reader;
  suite_run(s, f);
  close(reader.fd);
  shmq_client_close(reader.load.client);
  bench_daemon_stop(&d);
}

void figures_daemon_read(struct suite *s) {
  struct figure one = {.name = "daemon: cached 4 KiB read, depth 1, spinning",
                       .unit = "ns",
                       .scale = 1,
                       .run = call_window,
                       .reference = "own pread",
                       .reach = 1.35,
                       .less_is_better = true,
                       .seconds = s->seconds};
  struct figure many = {.name = "daemon: cached 4 KiB reads, depth 32",
                        .unit = "M/s",
                        .scale = 1e-6,
                        .run = read_window,
                        .reference = "fio io_uring",
                        .reach = 1.05,
                        .seconds = 2 * s->seconds};
  struct figure direct = {.name = "daemon: O_DIRECT 4 KiB reads, depth 32",
                          .unit = "k/s",
                          .scale = 1e-3,
                          .run = read_window,
                          .reference = "fio io_uring",
                          .reach = 0.95,
                          .anywhere = true, /* a disk's time is no line's */
                          .seconds = 2.5 * s->seconds};
  measure(s, &one, false, pread_window);
  measure(s, &many, false, fio_window);
  measure(s, &direct, true, fio_window);
}
