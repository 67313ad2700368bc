/* SPDX-License-Identifier: Apache-2.0
 *
 * Being told to stop while waiting for a queue. The first SIGINT, SIGTERM or SIGHUP only sets a
 * flag: the command finishes the message at hand. The second one ends the process, which is safe
 * too: what it held is delivered again.
 *
 * A signal ends a wait with -EINTR, but not one that has not quite begun. So the handler starts a
 * timer as well, whose signal comes again and again from then on: whatever wait the first signal
 * missed, the next ones end. Until then nobody has to wake up to look at the flag. A wait that
 * shall end on a signal, and on no other, is
 *
 *   do {
 *     rc = shmq_lease(queue, &message, deadline);
 *   } while (stop_try_again(rc));
 */
#ifndef TOOLS_BASE_STOP_H
#define TOOLS_BASE_STOP_H

#include <stdbool.h>
#include <stdint.h>

void stop_catch(void);   /* once in a process; a forked one has to do it again */
void stop_release(void); /* the default dispositions, as a command that is run must find them */
bool stop_requested(void);
int stop_signal(void); /* which one it was; 0: none yet */

/* The deadline that a --timeout of `timeout_ns` means from now on; negative: none was given. */
int64_t stop_deadline(int64_t timeout_ns);

/* Was it another signal that ended the wait? */
bool stop_try_again(int result);

/* Sleep, or less when told to stop. */
void stop_sleep(int64_t ns);

#endif
