/* SPDX-License-Identifier: Apache-2.0
 *
 * Creating, naming, attaching and unlinking; options out of range; creators that died; error texts.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "os/lock.h"
#include "support/fresh.h"

static char name[64];
static void make_name(void) { snprintf(name, sizeof name, "t-segment-%d", getpid()); }
static void remove_name(void) { (void)shmq_unlink(name); }

TestSuite(segment, .init = make_name, .fini = remove_name);

static const shmq_queue_options tiny = {.capacity = 2, .message_bytes = 8};
static const shmq_options tiny_options = {.queues = &tiny, .queue_count = 1, .participants = 2};

static int attach_and_leave(const char *which) {
  shmq_segment *s;
  int rc = shmq_attach(&s, which);
  if (rc == 0) shmq_detach(s);
  return rc;
}

Test(segment, created_once_found_by_name_gone_when_unlinked) {
  cr_assert_eq(attach_and_leave(name), -ENOENT);
  cr_assert_eq(shmq_unlink(name), -ENOENT);
  cr_assert_eq(shmq_create(name, &tiny_options), 0);
  cr_assert_eq(shmq_create(name, &tiny_options), -EEXIST);
  cr_assert_eq(attach_and_leave(name), 0);
  shmq *q;
  cr_assert_eq(shmq_open(&q, name, 0), 0);
  cr_assert_eq(shmq_unlink(name), 0);
  cr_assert_eq(attach_and_leave(name), -ENOENT);
  cr_assert_eq(put_number(q, 4), 0, "who is attached goes on");
  cr_assert_eq(get_number(q), 4);
  cr_assert_eq(shmq_create(name, &tiny_options), 0, "and the name is free");
  shmq_close(q);
}

Test(segment, names) {
  char longest[SHMQ_NAME_MAX + 2];
  memset(longest, 'n', sizeof longest);
  snprintf(longest, sizeof longest, "%s", name);
  longest[strlen(name)] = 'n';
  longest[SHMQ_NAME_MAX + 1] = '\0';
  const struct { const char *name; int error; } bad[] = {
      {"", -EINVAL}, {".", -EINVAL}, {"..", -EINVAL}, {".hidden", -EINVAL}, {"a/b", -EINVAL},
      {"/a", -EINVAL}, {NULL, -EINVAL}, {longest, -ENAMETOOLONG}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    cr_assert_eq(shmq_create(bad[i].name, &tiny_options), bad[i].error, "create %zu", i);
    cr_assert_eq(attach_and_leave(bad[i].name), bad[i].error, "attach %zu", i);
    cr_assert_eq(shmq_unlink(bad[i].name), bad[i].error, "unlink %zu", i);
  }
  longest[SHMQ_NAME_MAX] = '\0';
  cr_assert_eq(shmq_create(longest, &tiny_options), 0);
  cr_assert_eq(attach_and_leave(longest), 0);
  cr_assert_eq(shmq_unlink(longest), 0);
  shmq *q;
  cr_assert_eq(shmq_open(&q, NULL, 0), -EINVAL);
  cr_assert_eq(shmq_open(&q, "", 0), -EINVAL);
  cr_assert_eq(shmq_open(&q, "/x", 0), -EINVAL);
}

Test(segment, queues_are_found_by_name_and_by_default_the_first) {
  shmq_queue_options two[] = {{.name = "first"}, {.name = "second", .capacity = 7}};
  shmq_options o = {.queues = two, .queue_count = 2};
  char path[80];
  shmq *q;
  cr_assert_eq(shmq_create(name, &o), 0);
  snprintf(path, sizeof path, "%s/second", name);
  cr_assert_eq(shmq_open(&q, path, 0), 0);
  cr_assert_eq(shmq_capacity(q), 8);
  shmq *same;
  cr_assert_eq(shmq_open_in(&same, shmq_segment_of(q), NULL, 0), 0);
  cr_assert_eq(shmq_capacity(same), 1024);
  cr_assert_eq(shmq_message_bytes(same), 1024);
  cr_assert_eq(shmq_open_in(&same, shmq_segment_of(q), "third", 0), -ENOENT);
  cr_assert_eq(shmq_open_in(&same, shmq_segment_of(q), "first", 4), -EINVAL);
  shmq_close(q);
  shmq_close(same);
  snprintf(path, sizeof path, "%s/none", name);
  cr_assert_eq(shmq_open(&q, path, 0), -ENOENT);
  snprintf(path, sizeof path, "%s/", name);
  cr_assert_eq(shmq_open(&q, path, 0), -ENOENT);
  shmq_close(NULL);
  shmq_detach(NULL);
}

Test(segment, options_out_of_range) {
  char too_long[SHMQ_QUEUE_NAME_MAX + 2];
  memset(too_long, 'q', sizeof too_long);
  too_long[SHMQ_QUEUE_NAME_MAX + 1] = '\0';
  const shmq_queue_options bad[] = {{.name = ""}, {.name = "a/b"}, {.name = too_long},
                                    {.capacity = SHMQ_CAPACITY_MAX + 1},
                                    {.message_bytes = SHMQ_MESSAGE_MAX + 1}, {.flags = 8},
                                    {.ttl_ns = -1}, {.priorities = 9}, {.full_policy = 4}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    shmq_options o = {.queues = &bad[i], .queue_count = 1};
    cr_assert_eq(shmq_create(name, &o), -EINVAL, "queue %zu", i);
  }
  const shmq_options worse[] = {{.queues = &tiny, .queue_count = 0},
                                {.queues = &tiny, .queue_count = SHMQ_RINGS_MAX + 1},
                                {.participants = SHMQ_PARTICIPANTS_MAX + 1}, {.mode = 010000},
                                {.blocks = 1u << 31}, {.blocks = 1, .block_bytes = UINT32_MAX}};
  for (size_t i = 0; i < sizeof worse / sizeof *worse; i++)
    cr_assert_eq(shmq_create(name, &worse[i]), -EINVAL, "segment %zu", i);
  shmq_queue_options twins[] = {{.name = "a"}, {.name = "a"}};
  shmq_options o = {.queues = twins, .queue_count = 2};
  cr_assert_eq(shmq_create(name, &o), -EINVAL);
  cr_assert_eq(attach_and_leave(name), -ENOENT, "nothing is left behind");
  cr_assert_eq(shmq_create_memfd(NULL, NULL), -EINVAL);
  cr_assert_eq(shmq_segment_bytes(NULL) > 0, true);
}

Test(segment, the_mode_is_exact_whatever_the_umask) {
  const mode_t modes[] = {0600, 0660, 0666, 0640};
  char path[96];
  snprintf(path, sizeof path, "/dev/shm/shmq.%s", name);
  umask(077);
  for (int i = 0; i < 4; i++) {
    shmq_options o = tiny_options;
    struct stat st;
    o.mode = modes[i];
    cr_assert_eq(shmq_create(name, &o), 0);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 07777, modes[i]);
    cr_assert_eq(shmq_unlink(name), 0);
  }
}

Test(segment, a_memfd_is_sealed_and_attaches_by_descriptor) {
  int fd = fresh_fd(&tiny_options);
  cr_assert_eq(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  cr_assert_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
  cr_assert_eq(ftruncate(fd, 0), -1);
  shmq *a = peer(fd, NULL), *b = peer(fd, NULL);
  close(fd);
  cr_assert_eq(put_number(a, 1), 0);
  cr_assert_eq(get_number(b), 1);
  shmq_segment *s;
  cr_assert_eq(shmq_attach_fd(&s, -1), -EINVAL);
  cr_assert_eq(shmq_attach_fd(&s, 9999), -ENOENT, "no such descriptor");
  shmq_close(a);
  shmq_close(b);
}

/* ---- creators that died ---- */

static int half_made(size_t bytes) {
  char path[80];
  snprintf(path, sizeof path, "/shmq.%s", name);
  int fd = shm_open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
  cr_assert_geq(fd, 0);
  cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
  return fd;
}

Test(segment, what_a_dead_creator_left_is_taken_over) {
  const size_t left[] = {0, 100, 4096, 1 << 20};
  for (int i = 0; i < 4; i++) {
    close(half_made(left[i]));
    int rc = attach_and_leave(name);
    cr_assert_eq(rc, left[i] == 0 ? -ENOENT : -EBADMSG);
    cr_assert_eq(shmq_create(name, &tiny_options), 0, "%zu bytes", left[i]);
    cr_assert_eq(attach_and_leave(name), 0);
    cr_assert_eq(shmq_unlink(name), 0);
  }
}

Test(segment, a_living_creator_is_waited_for_but_not_for_ever) {
  int fd = half_made(4096);
  cr_assert_eq(shmq__lock_try(fd, SHMQ__LOCK_CREATE), 0);
  cr_assert_eq(shmq_create(name, &tiny_options), -EEXIST, "somebody is at it");
  int64_t before = shmq_now_ns();
  cr_assert_eq(attach_and_leave(name), -ETIMEDOUT);
  cr_assert_geq(shmq_now_ns() - before, 900 * MILLISECOND);
  close(fd);
}

Test(segment, anything_else_of_that_name_is_left_alone) {
  int fd = half_made(4096);
  cr_assert_eq(pwrite(fd, "not a segment", 13, 0), 13);
  cr_assert_eq(shmq_create(name, &tiny_options), -EEXIST);
  cr_assert_eq(attach_and_leave(name), -EBADMSG);
  close(fd);
}

/* ---- errors ---- */

Test(segment, no_room_says_how_much_was_needed) {
  shmq_queue_options huge = {.capacity = SHMQ_CAPACITY_MAX, .message_bytes = 1 << 19};
  shmq_options o = {.queues = &huge, .queue_count = 1};
  uint64_t needed, available;
  cr_assert_eq(shmq_create(name, &o), -ENOSPC);
  cr_assert_eq(shmq_nospace_detail(&needed, &available), SHMQ_NOSPACE_MEMORY);
  cr_assert_eq((int64_t)needed, shmq_segment_bytes(&o));
  cr_assert_lt(available, needed);
  cr_assert_eq(attach_and_leave(name), -ENOENT);
  cr_assert_eq(shmq_create(name, &tiny_options), 0);
  cr_assert_eq(shmq_nospace_detail(NULL, NULL), SHMQ_NOSPACE_NONE);
}

Test(segment, every_code_has_its_own_text) {
  const int codes[] = {EAGAIN, ETIMEDOUT, EINTR, EMSGSIZE, EPIPE, EEXIST, ENOENT, EACCES, EPERM,
                       ENOSPC, EPROTO, EBADMSG, EOWNERDEAD, ESTALE, ECANCELED, EBUSY, EOPNOTSUPP,
                       ENODATA, ENOTCONN, EINVAL, ENAMETOOLONG, ENOMEM, EMFILE, ENFILE, ENOSYS};
  size_t n = sizeof codes / sizeof *codes;
  for (size_t i = 0; i < n; i++) {
    const char *text = shmq_strerror(-codes[i]);
    cr_assert_str_neq(text, "unknown error", "%d", codes[i]);
    cr_assert_eq(strchr(text, '\n'), NULL);
    cr_assert_neq(text[strlen(text) - 1], '.');
    cr_assert_str_eq(text, shmq_strerror(codes[i]), "either sign");
    for (size_t k = 0; k < i; k++) cr_assert_str_neq(text, shmq_strerror(-codes[k]));
  }
  cr_assert_str_eq(shmq_strerror(0), "success");
  cr_assert_str_eq(shmq_strerror(-12345), "unknown error");
  cr_assert_str_eq(shmq_strerror(INT32_MIN), "unknown error");
}
