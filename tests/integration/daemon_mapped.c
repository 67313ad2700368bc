/* SPDX-License-Identifier: Apache-2.0
 *
 * The mappings of a `dir` by themselves, with the daemon's own I/O on threads: what is read from them, and when it is not.
 */
#define _GNU_SOURCE
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

#include "cut.h"
#include "daemon.h"
#include "resource/mapped.h"

enum { WINDOW = 2 << 20, BYTES = 2 * WINDOW + 10000, TO_MAP = 96, MANY = 4096, US = 1000, MS = 1000 * US };
enum { ASKED_AGAIN = 50 * US, RESTED = 100 * MS };

static int64_t now_ns = MS; /* the clock, in the library's place */
int64_t shmq_now_ns(void) { return now_ns; }

static struct shard shard;
static struct mapped *mapped;
static struct mapped_file *file;
static void *place;
static int fd;
static unsigned char *expected, *got;
static char name[] = "/tmp/shmq-mapped.XXXXXX";

/* Containers may allow less than what is mapped here. */
static bool may_lock(size_t bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool may = memory != MAP_FAILED && mlock(memory, bytes) == 0;
  if (memory != MAP_FAILED) munmap(memory, bytes);
  return may;
}

static void begin(void) {
  if (!may_lock(3 * WINDOW)) cr_skip_test("so much memory may not be locked here");
  cut_survive();
  cr_assert_eq(io_open(&shard.io, IO_THREADS), 0);
  cr_assert_eq(mapped_open(&mapped, &shard, 64 << 20), 0);
  expected = malloc(BYTES);
  got = malloc(BYTES);
  for (size_t i = 0; i < BYTES; i++) expected[i] = (unsigned char)(i * 2654435761u >> 11);
  int writer = mkstemp(name);
  cr_assert_eq(write(writer, expected, BYTES), BYTES);
  close(writer);
  fd = open(name, O_RDONLY | O_CLOEXEC);
  mapped_file_add(mapped, NULL, &place);
  file = place;
}
static void run_jobs(void) {
  while (!mapped_is_idle(mapped)) cr_assert_geq(io_run(shard.io, SHMQ_FOREVER), 0);
}
static void end(void) {
  if (place) mapped_file_forget(file);
  cr_assert_null(place);
  run_jobs();
  cr_assert_eq(shard.mapped, 0, "nothing is left");
  mapped_close(mapped);
  io_close(shard.io);
  close(fd);
  unlink(name);
  free(expected);
  free(got);
}
TestSuite(daemon_mapped, .init = begin, .fini = end, .timeout = 60);

static void later(int64_t ns) { now_ns += ns; }

/* A request has been taken. */
static ssize_t read_at(uint64_t offset, size_t bytes) {
  shard.takes++;
  return mapped_read(file, fd, got, bytes, offset);
}
static void seen(uint64_t offset, int times) {
  for (int i = 0; i < times; i++) {
    shard.takes++;
    mapped_seen(file, fd, offset);
  }
  run_jobs();
}
static void check(uint64_t offset, size_t bytes, size_t size) {
  cr_assert_eq(read_at(offset, bytes), (ssize_t)size);
  cr_assert_arr_eq(got, expected + offset, size);
}
static void change(off_t offset, const void *data, size_t bytes) {
  int writer = open(name, O_WRONLY | O_CLOEXEC);
  cr_assert_eq(pwrite(writer, data, bytes, offset), (ssize_t)bytes);
  close(writer);
}

Test(daemon_mapped, only_what_is_read_often) {
  cr_assert_eq(read_at(0, 100), -EAGAIN);
  seen(0, TO_MAP - 1);
  cr_assert_eq(read_at(0, 100), -EAGAIN);
  seen(0, 1);
  check(0, 4096, 4096);
  check(WINDOW - 5, 5, 5);
  cr_assert_eq(read_at(WINDOW, 100), -EAGAIN, "the next window is another");
  cr_assert_eq(shard.mapped, WINDOW);
}

/* It is read by the kernel, and takes nothing away. */
Test(daemon_mapped, what_crosses_a_window_s_end) {
  seen(0, TO_MAP);
  seen(WINDOW, TO_MAP);
  cr_assert_eq(read_at(WINDOW - 5, 10), -EAGAIN);
  seen(WINDOW - 5, MANY);
  check(0, 4096, 4096);
  check(WINDOW, 4096, 4096);
  cr_assert_eq(shard.mapped, 2 * WINDOW);
}

Test(daemon_mapped, the_end_of_the_file) {
  seen(2 * WINDOW, TO_MAP);
  check(BYTES - 100, 4096, 100);
  cr_assert_eq(read_at(BYTES, 4096), 0);
  cr_assert_eq(read_at(BYTES + 5000, 4096), 0);
  cr_assert_eq(read_at(INT64_MAX, 4096), -EAGAIN);
}

/* When it has not changed for a while it is mapped anew, with what it has grown by. */
Test(daemon_mapped, a_file_that_changes_is_read_by_the_kernel) {
  seen(2 * WINDOW, TO_MAP);
  memset(expected + 2 * WINDOW, 'x', 10);
  change(2 * WINDOW, expected + 2 * WINDOW, 10);
  check(2 * WINDOW, 10, 10);
  later(ASKED_AGAIN);
  cr_assert_eq(read_at(2 * WINDOW, 10), -EAGAIN);
  later(RESTED - 1);
  seen(2 * WINDOW, MANY);
  cr_assert_eq(read_at(2 * WINDOW, 10), -EAGAIN);
  later(1);
  seen(2 * WINDOW, 2 * TO_MAP);
  check(2 * WINDOW, 10, 10);
  cr_assert_eq(truncate(name, BYTES + 100), 0);
  cr_assert_eq(read_at(BYTES - 50, 1000), -EAGAIN, "what is behind the end is asked for");
  later(RESTED);
  seen(2 * WINDOW, 2 * TO_MAP);
  cr_assert_eq(read_at(BYTES - 50, 1000), 150);
  cr_assert_arr_eq(got, expected + BYTES - 50, 50);
}

/* At once, wherever it is; and it is moved back when nobody looks. */
Test(daemon_mapped, an_end_that_others_move) {
  for (unsigned i = 1; i <= 60; i++) {
    size_t length = i % 10 ? 5000 + i * 4241 % 60000 : 4096 * i;
    seen(0, 2 * TO_MAP);
    check(length - 50, 100, 100);
    cr_assert_eq(truncate(name, (off_t)length), 0);
    cr_assert_eq(read_at(length - 50, 100), -EAGAIN, "%zu", length);
    seen(0, TO_MAP);
    later(RESTED);
    seen(0, 2 * TO_MAP);
    check(length - 50, 100, 50);
    cr_assert_eq(truncate(name, BYTES), 0);
    change((off_t)length, expected + length, BYTES - length);
    cr_assert_eq(read_at(length - 50, 100), -EAGAIN);
    later(RESTED);
  }
}

/* Of what ends in zero it is not known whether it was cut. A descriptor that does not exist cannot be asked. */
Test(daemon_mapped, when_it_is_asked) {
  memcpy(expected + 299, "a\0b", 3);
  change(299, "a\0b", 3);
  seen(0, TO_MAP);
  int own = fd;
  fd = -1;
  check(250, 50, 50);
  check(250, 52, 52);
  later(ASKED_AGAIN - 1);
  check(250, 50, 50);
  later(1);
  cr_assert_eq(read_at(250, 50), -EAGAIN);
  fd = own;
  seen(0, TO_MAP);
  later(RESTED);
  seen(0, 2 * TO_MAP);
  check(250, 51, 51);
  fd = -1;
  cr_assert_eq(read_at(250, 51), -EAGAIN);
  fd = own;
}

/* While it changes all the time nothing is mapped, and what was is left alone. */
Test(daemon_mapped, a_file_that_never_rests) {
  for (int i = 0; i < 10; i++) {
    change(0, expected, 10);
    later(RESTED);
    seen(0, TO_MAP / 2 - 1);
    shard.takes++;
  }
  change(0, expected, 10);
  cr_assert_eq(read_at(0, 10), -EAGAIN);
}

/* What is copied is not the file's any more. */
Test(daemon_mapped, what_is_cut_off_while_it_is_copied) {
  seen(0, TO_MAP);
  check(0, 10, 10);
  cr_assert_eq(truncate(name, 8192), 0);
  cr_assert_eq(mapped_read(file, fd, got, 4096, 100000), -EAGAIN, "in the same turn");
  cr_assert_eq(read_at(0, 10), -EAGAIN, "there is a page in it that is not the file's");
  seen(0, TO_MAP);
  later(RESTED);
  seen(0, TO_MAP);
  check(8000, 4096, 192);
}

Test(daemon_mapped, pages_that_have_gone_are_not_waited_for) {
  seen(0, TO_MAP);
  int writer = open(name, O_WRONLY | O_DIRECT | O_CLOEXEC);
  unsigned char *page = aligned_alloc(4096, 4096);
  memcpy(page, expected, 4096);
  bool past = writer >= 0 && pwrite(writer, page, 4096, 0) == 4096; /* the page cache */
  free(page);
  if (writer >= 0) close(writer);
  if (!past) cr_skip_test("this file system has no such writes");
  later(ASKED_AGAIN);
  cr_assert_eq(read_at(0, 10), -EAGAIN);
  later(RESTED);
  seen(0, 2 * TO_MAP);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  check(0, 4096, 4096);
  getrusage(RUSAGE_SELF, &after);
#ifndef __SANITIZE_ADDRESS__ /* that makes mlock do nothing */
  cr_assert_eq(after.ru_majflt, before.ru_majflt);
#endif
}

/* The file is sparse: windows of one place in the table. The second gets it when the first has not been read for a second. */
Test(daemon_mapped, windows_that_are_far_apart) {
  uint64_t far = UINT64_C(64) * WINDOW;
  cr_assert_eq(truncate(name, (off_t)far + WINDOW), 0);
  seen(0, TO_MAP);
  check(0, 10, 10);
  cr_assert_eq(read_at(far, 10), -EAGAIN);
  while (read_at(far, 10) != 10) {
    seen(far, TO_MAP);
    later(10 * MS);
  }
  cr_assert_eq(got[0], 0);
  cr_assert_eq(read_at(0, 10), -EAGAIN);
}

Test(daemon_mapped, it_is_forgotten_while_a_helper_maps_it) {
  for (int i = 0; i < TO_MAP; i++) {
    shard.takes++;
    mapped_seen(file, fd, 0);
  }
  cr_assert(!mapped_is_idle(mapped));
  mapped_leave(mapped, NULL);
  cr_assert_null(place);
  run_jobs();
  cr_assert_eq(shard.mapped, 0);
}

/* Then nothing is tried for a second, and no descriptor is lost. */
Test(daemon_mapped, a_file_that_cannot_be_mapped) {
  close(fd);
  fd = open(name, O_WRONLY | O_CLOEXEC);
  int before = dup(0);
  close(before);
  seen(0, MANY);
  cr_assert_eq(read_at(0, 10), -EAGAIN);
  cr_assert_eq(shard.mapped, 0);
  int after = dup(0);
  close(after);
  cr_assert_eq(after, before);
}
