/* SPDX-License-Identifier: Apache-2.0
 *
 * What a build with SHMQ_MODEL calls before every access to shared memory (core/atomic.h) and every call
 * of the kernel (model_os.c): here the scheduler may run somebody else, or let the caller die.
 */
#ifndef SHMQ_MODEL_HOOKS_H
#define SHMQ_MODEL_HOOKS_H

enum {
  MODEL_LOAD,
  MODEL_STORE,
  MODEL_RMW,
  MODEL_PAUSE,
  MODEL_FUTEX_WAIT,
  MODEL_FUTEX_WAKE,
  MODEL_WOKEN, /* back from a futex wait */
  MODEL_BARRIER,
  MODEL_LOCK,
  MODEL_UNLOCK,
  MODEL_CALL, /* between two calls of the library */
  MODEL_KINDS
};

void model_step(const volatile void *word, int kind);

#endif
