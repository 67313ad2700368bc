/* SPDX-License-Identifier: Apache-2.0
 *
 * What the service manager keeps for us while we are not there (FDSTORE=1 of sd_pid_notify_with_fds(3)): the control
 * socket as "control", and for each session its socket and its memory as "session-NUMBER-CREDITS". It hands them
 * back as sd_listen_fds(3) describes.
 */
#ifndef SHMQD_STORE_H
#define SHMQD_STORE_H

struct client;
struct supervisor;

/* Take back what was kept. To be called before anything else opens descriptors. */
int store_take(struct supervisor *supervisor);
/* Nothing, unless it is configured. */
void store_control(const struct supervisor *supervisor);
void store_forget_control(const struct supervisor *supervisor);
void store_session(const struct client *client);
void store_forget(const struct client *client);

#endif
