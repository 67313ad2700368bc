/* SPDX-License-Identifier: Apache-2.0
 *
 * Named points at which a participant may die with something half-done. Empty in ordinary builds;
 * a build with SHMQ_CRASHPOINTS calls shmq__crashpoint_hook, which tests set to kill or stop there.
 */
#ifndef SHMQ_CORE_CRASHPOINT_H
#define SHMQ_CORE_CRASHPOINT_H

#ifdef SHMQ_CRASHPOINTS
extern void (*shmq__crashpoint_hook)(const char *name);
#define CRASHPOINT(name)                                        \
  do {                                                          \
    if (shmq__crashpoint_hook) shmq__crashpoint_hook(name);     \
  } while (0)
#else
#define CRASHPOINT(name) ((void)0)
#endif

#endif
