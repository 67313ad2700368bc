/* SPDX-License-Identifier: Apache-2.0
 *
 * Files that a `dir` has mapped because they are read again and again: nothing but the speed tells.
 */
#include <criterion/criterion.h>

#include "support/shmqd.h"

enum { SIZE = 40000, ROOM = 8192, CHARGE = 65536 }; /* small enough for any limit on locked memory */

static struct shmqd d;
static shmq_client *client;
static int tree, file;
static uint64_t handle, writer;
static shmq_result r;
static unsigned char expected[3 * SIZE];
static size_t length;

static void begin_with(const char *sections) {
  shmqd_new_with(&d, sections);
  client = shmqd_client(&d);
  tree = shmq_resource(client, "tree");
}

static int make_file(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "%s/tree/%s", d.dir, name);
  for (size_t i = 0; i < sizeof expected; i++) expected[i] = (unsigned char)(i * 2654435761u >> 13);
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  cr_assert_geq(fd, 0);
  cr_assert_eq(write(fd, expected, SIZE), SIZE);
  struct iovec part = {.iov_base = (char[1]){0}, .iov_len = 1};
  bool cached = preadv2(fd, &part, 1, 0, RWF_NOWAIT) == 1;
  if (!cached) cr_skip_test("this file system has no reads that do not wait, so nothing is mapped");
  length = SIZE;
  return fd;
}

static uint64_t open_for(uint64_t flags, const char *name) {
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_OPEN, flags, 0, name, strlen(name), 0, &r), 0);
  return r.value[0];
}
static uint64_t open_file(const char *name) { return open_for(0, name); }

static void begin(void) {
  begin_with("");
  file = make_file("f");
  handle = open_file("f");
  writer = open_for(SHMQ_DIR_WRITABLE, "f");
}
static void end(void) {
  shmq_client_close(client);
  cr_assert_eq(shmqd_stop(&d, SIGTERM), 0, "it drained and left no leak");
  shmqd_remove(&d);
}
TestSuite(daemon_dir_mapped, .init = begin, .fini = end, .timeout = 200);

static unsigned long long mapped(void) {
  char text[512] = "";
  unsigned long long bytes;
  cr_assert_eq(shmqd_ask(client, 0, SHMQ_DAEMON_STATUS, 0, 0, NULL, 0, sizeof text - 1, &r), 0);
  memcpy(text, r.data, r.size);
  const char *at = strstr(text, "mapped=");
  cr_assert_not_null(at);
  cr_assert_eq(sscanf(at, "mapped=%llu", &bytes), 1);
  return bytes;
}

static void check_read(uint64_t from, uint64_t offset) {
  size_t left = offset < length ? length - offset : 0, size = left < ROOM ? left : ROOM;
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, from, offset, NULL, 0, ROOM, &r), 0);
  cr_assert_eq(r.size, size, "%zu and not %zu of %zu at %llu", r.size, size, length,
               (unsigned long long)offset);
  cr_assert_eq(r.value[0], size);
  cr_assert_arr_eq(r.data, expected + offset, size);
}

static void read_until_mapped(uint64_t from) {
  for (unsigned i = 0; i < 64; i++) check_read(from, i * 997 % SIZE);
  while (mapped() == 0) check_read(from, 0);
}

/* When the file has rested. */
static void read_until_mapped_again(uint64_t from) {
  nap_ms(110);
  for (unsigned i = 0; i < 200; i++) check_read(from, 0);
}

Test(daemon_dir_mapped, what_is_read_often_is_mapped_and_reads_the_same) {
  cr_assert_eq(mapped(), 0);
  read_until_mapped(handle);
  cr_assert_eq(mapped(), CHARGE);
  for (unsigned i = 0; i < 2000; i++) check_read(handle, i * 7919 % (SIZE + 5000));
}

Test(daemon_dir_mapped, what_anybody_writes_is_read) {
  read_until_mapped(handle);
  for (unsigned i = 0; i < 300; i++) {
    size_t at = i * 6007 % (SIZE - 100);
    memset(expected + at, (int)i, 100);
    if (i % 2)
      cr_assert_eq(pwrite(file, expected + at, 100, (off_t)at), 100);
    else
      cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_WRITE, writer, at, expected + at, 100, 0, &r), 0);
    check_read(handle, at > 50 ? at - 50 : 0);
    if (i % 30 == 0) read_until_mapped_again(handle);
  }
}

Test(daemon_dir_mapped, what_may_be_written_through_is_not_mapped) {
  for (unsigned i = 0; i < 500; i++) check_read(writer, i * 997 % SIZE);
  cr_assert_eq(mapped(), 0);
}

/* By others, behind the daemon's back; back to more than was mapped, too. */
Test(daemon_dir_mapped, the_end_is_where_it_was_put_last) {
  read_until_mapped(handle);
  for (unsigned i = 0; i < 600; i++) {
    size_t before = length;
    length = i * 4241 % (2 * SIZE);
    cr_assert_eq(ftruncate(file, (off_t)length), 0);
    if (length > before) {
      for (size_t at = before; at < length; at++) expected[at] = (unsigned char)(at * i);
      cr_assert_eq(pwrite(file, expected + before, length - before, (off_t)before),
                   (ssize_t)(length - before));
    }
    check_read(handle, length > 3000 ? length - 3000 : 0);
    check_read(handle, length);
    check_read(handle, length / 2);
    if (i % 30 == 0) read_until_mapped_again(handle);
  }
}

/* What is cut off while it is copied is not there any more: an earlier length, or the new one. */
Test(daemon_dir_mapped, a_file_that_is_cut_while_it_is_read) {
  read_until_mapped(handle);
  pid_t cutter = fork();
  if (!cutter) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (;;) {
      if (ftruncate(file, 0)) _exit(1);
      if (pwrite(file, expected, SIZE, 0) != SIZE) _exit(1);
    }
  }
  for (unsigned i = 0; i < 20000; i++) {
    cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_READ, handle, i % 8 * 4096, NULL, 0, ROOM, &r), 0);
    cr_assert_leq(r.size, ROOM);
  }
  kill(cutter, SIGKILL);
  waitpid(cutter, NULL, 0);
  cr_assert_eq(ftruncate(file, 0), 0);
  cr_assert_eq(pwrite(file, expected, SIZE, 0), SIZE);
  for (unsigned i = 0; i < 200; i++) check_read(handle, i * 7919 % SIZE);
}

static void wait_until_nothing_is_mapped(void) {
  while (mapped() != 0) nap_ms(1);
}

Test(daemon_dir_mapped, it_goes_with_its_handle_and_with_its_session) {
  read_until_mapped(handle);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_CLOSE, handle, 0, NULL, 0, 0, &r), 0);
  wait_until_nothing_is_mapped();
  handle = open_file("f");
  read_until_mapped(handle);
  shmq_client *other = shmqd_client(&d);
  shmq_client_close(client);
  client = other;
  wait_until_nothing_is_mapped();
  check_read(open_file("f"), 100);
}

/* The read comes back from the device when the handle is closed already. */
Test(daemon_dir_mapped, a_handle_that_is_closed_while_it_is_read) {
  cr_assert_eq(fsync(file), 0);
  for (int i = 0; i < 50; i++) {
    shmq_future *reading, *closing;
    check_read(handle, 0);
    cr_assert_eq(posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), 0);
    shmq_ask ask = {.resource = (uint16_t)tree, .op = SHMQ_DIR_READ, .value = {handle, 4096}, .room = ROOM};
    cr_assert_eq(shmq_request(client, &ask, PATIENCE, &reading), 0);
    ask.op = SHMQ_DIR_CLOSE;
    cr_assert_eq(shmq_request(client, &ask, PATIENCE, &closing), 0);
    cr_assert_eq(shmq_await(reading, &r, PATIENCE), 0);
    cr_assert_eq(r.size, ROOM);
    cr_assert_eq(shmq_await(closing, &r, PATIENCE), 0);
    shmq_future_free(reading);
    shmq_future_free(closing);
    handle = open_file("f");
  }
}

Test(daemon_dir_mapped, two_handles_of_one_file_and_one_that_replaces_it) {
  uint64_t second = open_file("f");
  read_until_mapped(handle);
  cr_assert_eq(shmqd_ask(client, tree, SHMQ_DIR_RENAME, 0, 0, "f\0g", 3, 0, &r), 0);
  int old = file;
  file = make_file("f");
  memset(expected, 'n', SIZE);
  cr_assert_eq(pwrite(file, expected, SIZE, 0), SIZE);
  uint64_t third = open_file("f");
  for (unsigned i = 0; i < 200; i++) check_read(third, i * 7919 % SIZE);
  cr_assert_eq(pread(old, expected, SIZE, 0), SIZE);
  for (unsigned i = 0; i < 200; i++) {
    check_read(handle, i * 7919 % SIZE);
    check_read(second, i * 7919 % SIZE);
  }
}

/* ---- with less, or nothing ---- */

TestSuite(daemon_dir_mapped_less, .fini = end, .timeout = 200);

static void begin_little(void) { begin_with("[dir:tree]\nmapped = 150K\n"); }
static void begin_none(void) { begin_with("[dir:tree]\nmapped = 0\n"); }
static uint64_t open_another(unsigned i) {
  char name[8];
  snprintf(name, sizeof name, "f%u", i);
  close(make_file(name));
  return open_file(name);
}

/* The ones that are not read any more make room. */
Test(daemon_dir_mapped_less, never_more_than_is_allowed, .init = begin_little) {
  uint64_t handles[5];
  for (unsigned i = 0; i < 5; i++) handles[i] = open_another(i);
  for (unsigned i = 0; i < 5; i++) {
    for (unsigned k = 0; k < 200; k++) check_read(handles[i], k * 997 % SIZE);
    cr_assert_leq(mapped(), 150 << 10);
  }
  cr_assert_gt(mapped(), 0);
  while (mapped() != CHARGE) { /* until the last alone has some: the others have not been read for a second */
    for (unsigned k = 0; k < 100; k++) check_read(handles[4], k * 997 % SIZE);
    cr_assert_leq(mapped(), 150 << 10);
    nap_ms(20);
  }
}

Test(daemon_dir_mapped_less, nothing_if_nothing_is_allowed, .init = begin_none) {
  handle = open_another(0);
  for (unsigned i = 0; i < 500; i++) check_read(handle, i * 997 % SIZE);
  cr_assert_eq(mapped(), 0);
}

#ifndef __SANITIZE_ADDRESS__ /* that makes mlock do nothing, and say that it did */
static void begin_forbidden(void) {
  setenv("TEST_FORBID_MLOCK", "1", 1);
  begin_with("");
}

Test(daemon_dir_mapped_less, where_nothing_may_be_locked_files_are_read, .init = begin_forbidden) {
  handle = open_another(0);
  for (unsigned i = 0; i < 500; i++) check_read(handle, i * 997 % SIZE);
  while (mapped() != 0) nap_ms(1); /* it tries, once */
  for (unsigned i = 0; i < 500; i++) check_read(handle, i * 997 % SIZE);
  cr_assert_eq(mapped(), 0);
}
#endif
