/* SPDX-License-Identifier: Apache-2.0
 *
 * Placement: which thread runs on which CPU, and which NUMA node holds a segment. A library of
 * its own (libshmq-pin.so), because it needs hwloc and libshmq.so needs nothing but libc.
 *
 *   A *place* is a set of CPUs. A text of *places* names one place or a list of them, in the
 *   location syntax of hwloc(7), as hwloc-bind(1) takes it, plus some words of our own:
 *
 *     core:0  pu:3  numa:0  l3:1.core:0-2  package:1.core:all
 *                  objects, TYPE:INDEX[.TYPE:INDEX ...]
 *     0x3  0x1,0x00000000  0xf...f
 *                  CPU sets, by the system's CPU numbers
 *     all          all CPUs, as one place
 *     spread       one CPU a place, successive places as far apart as possible
 *     compact      one CPU a place, successive places on neighbouring cores
 *     pair:l2      one CPU a place; places 2k and 2k+1 share an L2 cache but not a core; the two
 *                  PUs of one core where every L2 cache belongs to a single core
 *     pair:l3      the same for an L3 cache, never one core, different L2 caches where possible
 *     none         do not bind
 *
 *   INDEX is N, N-M, N- (to the end), N:COUNT (wrapping round), all, odd or even. Indexes are
 *   logical: they count objects in the order of the tree, from 0, within what stands before the
 *   dot, and only what this process may use. core:0 therefore exists in every container; CPU 8 of
 *   Linux is 0x100.
 *
 *   Each object named is one place: core:0-3 is four places, for a pool of four. Several locations
 *   stand side by side, separated by blanks. Before a location, ~ takes its CPUs out of every
 *   place so far, x keeps only its CPUs in them, and ^ does both ways (takes out what is there
 *   and adds what was not); a place left without CPUs goes. So `core:all ~core:0` is every core
 *   but the first, and the union of the places is what hwloc-calc(1) prints for the same text.
 *
 *   A memory node that has no CPUs, or none that this process may use, counts as a place for
 *   memory only.
 *
 *   A pool asks for place 0, 1, 2 and so on. Where there are fewer places than members, the places
 *   are used again from the first, and `shared` says so. Place i does not depend on how many
 *   members there are, so a pool can grow without moving anybody.
 *
 * Conventions: as in shmq.h. A shmq_pin belongs to one thread at a time; after fork the child has
 * its own copy. Nothing here is for a fast path: a call takes microseconds to milliseconds.
 */
#ifndef SHMQ_PIN_H
#define SHMQ_PIN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <shmq/shmq.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHMQ_PLACES_MAX 4095 /* bytes in a text of places */

typedef struct shmq_pin shmq_pin; /* the machine as this process may use it */

/* ---- the machine ------------------------------------------------------------------------- */

/* Load the topology, cut down to what the process may use: the CPUs of its threads' affinities,
 * the CPUs and memory nodes of its cgroup's cpuset.
 * Shape: *out is the caller's until shmq_pin_close. It is a snapshot: later changes of the cpuset
 *   are noticed only when binding. Open it before the process pins itself, or there is one CPU
 *   left to choose from.
 * Errors: -ENOMEM, -EINVAL HWLOC_SYNTHETIC or HWLOC_XMLFILE cannot be understood, -ENOSPC none of
 *   the process's CPUs is in the topology (possible only with HWLOC_THISSYSTEM).
 * Context: honours hwloc's environment variables. Under HWLOC_SYNTHETIC or HWLOC_XMLFILE the
 *   topology is an imagined one: places can be named and printed, and calls that bind fail with
 *   -EOPNOTSUPP, unless HWLOC_THISSYSTEM=1 declares it to be this machine's.
 * Source: hwloc 2.9, "Environment Variables". */
SHMQ_API int shmq_pin_open(shmq_pin **out);

/* Free it. What was bound stays bound. NULL is allowed. */
SHMQ_API void shmq_pin_close(shmq_pin *pin);

/* What went wrong in the last failed call on `pin`, in one line that names the words at fault.
 * Shape: never NULL, empty before the first failure; the library's, until the next failure or
 *   close. */
SHMQ_API const char *shmq_pin_error(const shmq_pin *pin);

/* Is it this machine's topology? Returns: 1, or 0 for an imagined one: nothing can be bound. */
SHMQ_API int shmq_pin_is_real(const shmq_pin *pin);

/* An object of the tree. */
typedef struct shmq_pin_object {
  uint32_t depth;   /* 0: the machine */
  uint32_t index;   /* logical, as in the name */
  int64_t os_index; /* the system's number, -1: none */
  uint64_t bytes;   /* of a cache or memory node, 0: none or not known */
  uint32_t cpus;    /* PUs in it */
  char name[32];    /* as a place: machine:0, package:1, numa:0, l3:2, core:5, pu:10 */
  char list[128];   /* its CPUs as Linux writes them: 0-3,8; cut with "..." when longer */
} shmq_pin_object;

/* Call fn(object, ctx) for every object, a parent before its children and memory nodes before the
 * other children; a non-zero return ends it and is returned. */
SHMQ_API int shmq_pin_walk(shmq_pin *pin, int (*fn)(const shmq_pin_object *object, void *ctx),
                           void *ctx);

/* ---- places ------------------------------------------------------------------------------ */

/* What a place is, or what a thread is really bound to. */
typedef struct shmq_bound {
  int32_t cpu;     /* system number of the CPU, the lowest of one core's; -1: several cores */
  uint32_t cpus;   /* number of CPUs */
  int32_t node;    /* system number of the only memory node near them, -1: several or none */
  uint32_t shared; /* 1: used again: there are fewer places than that */
  char list[128];  /* the CPUs as Linux writes them: 0-3,8; cut with "..." when longer */
  char where[128]; /* the objects around them, as places: "package:0 l3:1 core:5 pu:10" */
} shmq_bound;

/* How many places a text names: spread and compact: a place for each CPU; none: 0.
 * Errors: -EINVAL the text cannot be understood, -ENOENT it names an object that is not there or
 *   memory only, -ENOSPC it asks for more than the process may use: a CPU set with CPUs outside,
 *   a pair on a machine without such a cache or with nobody to share it; or nothing is left over.
 *   -ENOMEM. */
SHMQ_API int shmq_pin_count(shmq_pin *pin, const char *places);

/* Describe place `i` of a text without binding anything. For none, the place is everything.
 * Errors: as shmq_pin_count. */
SHMQ_API int shmq_pin_place(shmq_pin *pin, const char *places, unsigned i, shmq_bound *bound);

/* ---- threads ----------------------------------------------------------------------------- */

/* Bind a thread to place `i` of a text, and read back what the kernel made of it.
 * Shape: tid is a thread's (gettid(2); a process id names its first thread), 0 the calling one.
 *   bound may be NULL; else it says what the thread is bound to now, also for none and after
 *   -ENOSPC.
 * Errors: as shmq_pin_place; -ESRCH no such thread, -EPERM it is somebody else's, -EOPNOTSUPP the
 *   topology is imagined, -ENOSPC the kernel gave another set than asked, because the cpuset was
 *   changed meanwhile (the thread stays where the kernel put it).
 * Context: threads and children started later inherit it. */
SHMQ_API int shmq_pin_thread(shmq_pin *pin, pid_t tid, const char *places, unsigned i,
                             shmq_bound *bound);

/* Bind the calling thread and record its CPU in the segment it attached, for `shmq info` to show.
 * Shape: segment may be NULL: nothing is recorded. Errors: as shmq_pin_thread. */
SHMQ_API int shmq_pin_self(shmq_pin *pin, const char *places, unsigned i, shmq_segment *segment,
                           shmq_bound *bound);

/* What a thread is bound to now, asked of the kernel. Errors: -ESRCH, -EOPNOTSUPP. */
SHMQ_API int shmq_pin_where(shmq_pin *pin, pid_t tid, shmq_bound *bound);

/* ---- memory ------------------------------------------------------------------------------ */

/* Where memory really is. */
typedef struct shmq_bound_memory {
  size_t bytes;    /* whole pages */
  uint32_t there;  /* 1: every page lies on the nodes asked for (for none: 1) */
  char policy[16]; /* as the kernel reports it: bind, default (first touch), interleave, mixed */
  char nodes[64];  /* the nodes of that policy, 0-1,3 */
  char pages[64];  /* the nodes that hold pages now; empty: the kernel does not tell */
} shmq_bound_memory;

/* Bind memory to the nodes near a text's places (numa:1; or core:4, the node of that core), move
 * there what lies elsewhere, and read back where it is.
 * Shape: data is a mapping, bytes its size; the pages that contain it are bound. For shared
 *   memory the binding belongs to the object, not to this mapping, and lasts as long as it. All
 *   places of the text count together. memory may be NULL.
 * Returns: 0 also when pages stay elsewhere (there = 0): the kernel moves only pages that no other
 *   process has mapped. So bind a segment before the others attach. On a machine with one node it
 *   succeeds where the kernel has no such calls or forbids them: everything is there already.
 * Errors: as shmq_pin_count; -ENOENT also: no memory node is near; -EOPNOTSUPP the topology is
 *   imagined; -ENOSYS, -EPERM the kernel or a container forbids it; -EINVAL bytes is 0; -EFAULT
 *   not mapped.
 * Progress: touches every page once. Source: mbind(2), hwloc "Memory binding". */
SHMQ_API int shmq_pin_area(shmq_pin *pin, void *data, size_t bytes, const char *places,
                           shmq_bound_memory *memory);

/* The same for an attached segment. */
SHMQ_API int shmq_pin_segment(shmq_pin *pin, shmq_segment *segment, const char *places,
                              shmq_bound_memory *memory);

#ifdef __cplusplus
}
#endif
#endif
