/* SPDX-License-Identifier: Apache-2.0
 *
 * Binding memory for real, as far as the machine at hand has nodes: every node in turn.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <shmq/inspect.h>

#include "machine.h"
#include "support/forbid.h"

#define MIB ((size_t)1 << 20)

static shmq_pin *open_here(void) {
  shmq_pin *pin = NULL;
  cr_assert_eq(shmq_pin_open(&pin), 0);
  return pin;
}

static void *shared_memory(size_t bytes) {
  int fd = memfd_create("shmq.t-pin", MFD_CLOEXEC);
  cr_assert_geq(fd, 0);
  cr_assert_eq(posix_fallocate(fd, 0, (off_t)bytes),
               0); /* the pages exist before they are mapped */
  void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  cr_assert_neq(data, MAP_FAILED);
  close(fd);
  return data;
}

static int count_node(const shmq_pin_object *object, void *ctx) {
  if (strncmp(object->name, "numa:", 5) == 0) {
    int64_t *nodes = ctx;
    nodes[++nodes[0]] = object->os_index;
  }
  return 0;
}

Test(pin_memory, every_node)
{
  shmq_pin *pin = open_here();
  int64_t nodes[65] = {0};
  cr_assert_eq(shmq_pin_walk(pin, count_node, nodes), 0);
  cr_assert(nodes[0] >= 1 && nodes[0] <= 64);
  size_t bytes = 65 * MIB; /* more than is asked about at a time */
  char *data = shared_memory(bytes);
  for (int64_t i = 0; i < nodes[0]; i++) {
    char places[32], node[32];
    shmq_bound_memory memory;
    snprintf(places, sizeof(places), "numa:%d", (int)i);
    snprintf(node, sizeof(node), "%d", (int)nodes[i + 1]);
    cr_assert_eq(shmq_pin_area(pin, data, bytes, places, &memory), 0, "%s", shmq_pin_error(pin));
    cr_expect_eq(memory.bytes, bytes);
    cr_expect_eq(memory.there, 1, "%s: pages on %s", places, memory.pages);
    cr_expect(memory.pages[0] == '\0' || strcmp(memory.pages, node) == 0, "%s: %s", places,
              memory.pages);
  }
  munmap(data, bytes);
  shmq_pin_close(pin);
}

/* Pages that another process has mapped too stay where they are, and it is said. */
Test(pin_memory, pages_of_others_stay)
{
  shmq_pin *pin = open_here();
  int64_t nodes[65] = {0};
  shmq_pin_walk(pin, count_node, nodes);
  if (nodes[0] < 2) cr_skip_test("one memory node");
  volatile char *data = shared_memory(MIB);
  shmq_bound_memory memory;
  int ready[2];
  cr_assert_eq(shmq_pin_area(pin, (void *)data, MIB, "numa:0", &memory), 0);
  cr_assert_eq(memory.there, 1);
  cr_assert_eq(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t at = 0; at < MIB; at += 4096) data[at] = 1;
    if (write(ready[1], "r", 1) != 1) _exit(1);
    for (;;) pause();
  }
  char byte;
  cr_assert_eq(read(ready[0], &byte, 1), 1);
  cr_assert_eq(shmq_pin_area(pin, (void *)data, MIB, "numa:1", &memory), 0);
  cr_expect_eq(memory.there, 0);
  cr_expect_str_eq(memory.policy, "bind");
  cr_expect_str_neq(memory.pages, memory.nodes);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  cr_assert_eq(shmq_pin_area(pin, (void *)data, MIB, "numa:1", &memory), 0);
  cr_expect_eq(memory.there, 1, "the other one is gone");
  cr_expect_str_eq(memory.pages, memory.nodes);
  shmq_pin_close(pin);
}

/* A CPU names the node beside it; several places count together; part of a page means the page. */
Test(pin_memory, near_a_cpu)
{
  shmq_pin *pin = open_here();
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *data = shared_memory(4 * page);
  shmq_bound_memory memory;
  cr_expect_eq(shmq_pin_area(pin, data, 4 * page, "pu:0", &memory), 0, "%s", shmq_pin_error(pin));
  cr_expect_eq(memory.there, 1);
  cr_expect_eq(shmq_pin_area(pin, data + page - 1, 2, "numa:all", &memory), 0, "%s",
               shmq_pin_error(pin));
  cr_expect_eq(memory.bytes, 2 * page);
  cr_expect_eq(memory.there, 1);
  cr_expect_eq(shmq_pin_area(pin, data, 4 * page, "none", &memory), 0);
  cr_expect_eq(memory.there, 1);
  cr_expect_eq(shmq_pin_area(pin, data, 4 * page, "spread", NULL), 0);
  munmap(data, 4 * page);
  shmq_pin_close(pin);
}

Test(pin_memory, errors)
{
  shmq_pin *pin = open_here();
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *data = shared_memory(4 * page);
  shmq_bound_memory memory;
  cr_expect_eq(shmq_pin_area(pin, data, 0, "numa:0", &memory), -EINVAL);
  cr_expect_eq(shmq_pin_area(pin, data, page, "numa:4096", &memory), -ENOENT);
  cr_expect_eq(shmq_pin_area(pin, data, page, "numa", &memory), -EINVAL);
  munmap(data + 2 * page, page);
  cr_expect_eq(shmq_pin_area(pin, data, 4 * page, "numa:0", &memory), -EFAULT, "a hole");
  cr_expect(strstr(shmq_pin_error(pin), "no memory") != NULL, "%s", shmq_pin_error(pin));
  shmq_pin_close(pin);
}

/* What containers do by default: the calls for memory policy fail with EPERM. */
static void forbid_memory_policy(void) {
  if (!forbid(SYS_mbind) || !forbid(SYS_get_mempolicy) || !forbid(SYS_move_pages))
    cr_skip_test("no seccomp");
}

Test(pin_memory, forbidden)
{
  shmq_pin *pin = open_here();
  char *data = shared_memory(MIB);
  shmq_bound_memory memory;
  int64_t nodes[65] = {0};
  shmq_pin_walk(pin, count_node, nodes);
  forbid_memory_policy();
  int rc = shmq_pin_area(pin, data, MIB, "numa:0", &memory);
  if (nodes[0] == 1) { /* everything is there already */
    cr_expect_eq(rc, 0, "%s", shmq_pin_error(pin));
    cr_expect_eq(memory.there, 1);
    cr_expect_str_empty(memory.pages, "what the kernel does not tell stays empty");
  } else {
    cr_expect_eq(rc, -EPERM);
  }
  shmq_pin_close(pin);
}

/* ---- segments ---------------------------------------------------------------------------- */

static char segment_name[32];

static void make_segment(void) {
  snprintf(segment_name, sizeof(segment_name), "t-pin-%d", (int)getpid());
  shmq_unlink(segment_name);
  int rc = shmq_create(segment_name, NULL);
  cr_assert_eq(rc, 0, "%s", shmq_strerror(rc));
}

static void remove_segment(void) { shmq_unlink(segment_name); }

Test(pin_memory, segment, .init = make_segment, .fini = remove_segment)
{
  shmq_pin *pin = open_here();
  shmq_segment *segment = NULL;
  shmq_view *view = NULL;
  shmq_segment_info whole;
  shmq_bound_memory memory;
  cr_assert_eq(shmq_attach(&segment, segment_name), 0);
  cr_assert_eq(shmq_pin_segment(pin, segment, "numa:0", &memory), 0, "%s", shmq_pin_error(pin));
  cr_expect_eq(memory.there, 1, "pages on %s", memory.pages);
  cr_assert_eq(shmq_view_open(&view, segment_name), 0);
  cr_assert_eq(shmq_view_segment(view, &whole), 0);
  cr_expect_geq(memory.bytes, whole.bytes);
  shmq_view_close(view);
  shmq_detach(segment);
  shmq_pin_close(pin);
}

/* The tools can show where a participant runs. */
Test(pin_memory, cpu_is_recorded, .init = make_segment, .fini = remove_segment)
{
  shmq_pin *pin = open_here();
  shmq_segment *segment = NULL;
  shmq_view *view = NULL;
  shmq_participant_info me;
  shmq_bound bound;
  cr_assert_eq(shmq_attach(&segment, segment_name), 0);
  cr_assert_eq(shmq_join_segment(segment, "test", NULL), 0);
  int index = shmq_participant(segment, NULL);
  cr_assert_gt(index, 0);
  cr_assert_eq(shmq_view_open(&view, segment_name), 0);
  cr_assert_eq(shmq_view_participant(view, (uint32_t)index, &me), 0);
  cr_expect_eq(me.cpu, -1);
  int last = shmq_pin_count(pin, "spread") - 1;
  cr_assert_eq(shmq_pin_self(pin, "spread", (unsigned)last, segment, &bound), 0, "%s",
               shmq_pin_error(pin));
  cr_assert_eq(shmq_view_participant(view, (uint32_t)index, &me), 0);
  cr_expect_eq(me.cpu, bound.cpu);
  shmq_view_close(view);
  shmq_detach(segment);
  shmq_pin_close(pin);
}
