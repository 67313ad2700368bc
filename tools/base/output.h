/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages to standard output, past stdio: what has been written is known exactly, so a command
 * acknowledges precisely that.
 */
#ifndef TOOLS_BASE_OUTPUT_H
#define TOOLS_BASE_OUTPUT_H

#include <stddef.h>
#include <sys/uio.h>

/* Write all of iov (which is used up) to standard output. Returns the bytes written; less than all
 * of them if writing failed or the command was told to stop: *error says why (EINTR for the
 * latter). */
size_t output_write(struct iovec *iov, int count, int *error);

#endif
