/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemon says: lines on stderr, where systemd and the terminal both find them.
 */
#ifndef SHMQD_SAY_H
#define SHMQD_SAY_H

enum say_level { SAY_ERROR = 3, SAY_WARNING = 4, SAY_NOTICE = 5, SAY_INFO = 6, SAY_DEBUG = 7 };

/* Lines above this level are not said. */
void say_set_level(enum say_level level);

/* Begin lines with <N>, as systemd's journal reads it, if stderr is its stream. */
void say_open(void);

void say(enum say_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
