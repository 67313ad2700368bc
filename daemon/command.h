/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQD_COMMAND_H
#define SHMQD_COMMAND_H

#include <wordexp.h>

/* The words of a command, as a shell makes them; nothing is run to make them. NULL, and the words are the caller's to
 * free (wordfree); or what is wrong, and there are none. */
const char *command_split(const char *command, wordexp_t *words);
/* NULL, or what is wrong. */
const char *command_check(const char *command);

#endif
