/* SPDX-License-Identifier: Apache-2.0
 *
 * Descriptors and the daemon's control socket, for rpc/.
 */
#ifndef SHMQ_OS_DESCRIPTOR_H
#define SHMQ_OS_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>

/* A duplicate that does not survive exec, or a negative errno. */
int shmq__duplicate(int fd);

/* Close; -1 is allowed. */
void shmq__descriptor_close(int fd);

/* Connect to a SOCK_SEQPACKET socket. Returns the descriptor or a negative errno. */
int shmq__packet_connect(const char *path);

/* Send one packet of `size` bytes, receive one of exactly as many into the same place, and the
 * descriptor that comes with it (*fd, -1: none). Returns 0, -EPROTO another size, -ECONNRESET. */
int shmq__packet_exchange(int socket, void *packet, size_t size, int *fd);

/* Has the other end gone? */
bool shmq__hung_up(int socket);

/* The path of the daemon's socket when none is given. */
void shmq__daemon_path(char *path, size_t size);

#endif
