/* SPDX-License-Identifier: Apache-2.0
 *
 * Being told to stop while waiting for a queue. The first SIGINT, SIGTERM or SIGHUP only sets a
 * flag: the command finishes the message at hand. The second one ends the process, which is safe
 * too: what it held is delivered again.
 *
 * A signal ends a wait of the library with -EINTR, but not one that has not quite begun. So a wait
 * that shall end on a signal is made of slices:
 *
 *   do {
 *     rc = shmq_lease(queue, &message, stop_slice(deadline));
 *   } while (stop_try_again(rc, deadline));
 */
#ifndef TOOLS_BASE_STOP_H
#define TOOLS_BASE_STOP_H

#include <stdbool.h>
#include <stdint.h>

void stop_catch(void);
void stop_release(void); /* the default dispositions, as a command that is run must find them */
bool stop_requested(void);

/* The deadline that a --timeout of `timeout_ns` means from now on; negative: none was given. */
int64_t stop_deadline(int64_t timeout_ns);

int64_t stop_slice(int64_t deadline_ns);
bool stop_try_again(int result, int64_t deadline_ns);

/* Sleep, or less when told to stop. */
void stop_sleep(int64_t ns);

#endif
