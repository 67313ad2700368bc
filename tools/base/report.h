/* SPDX-License-Identifier: Apache-2.0
 *
 * What the program says when something is wrong, and the status it exits with. Every complaint is
 * one line on stderr: `shmq: COMMAND: WHAT: why; what to do`.
 */
#ifndef TOOLS_BASE_REPORT_H
#define TOOLS_BASE_REPORT_H

enum status {
  STATUS_OK = 0,
  STATUS_FAILED = 1, /* "no", and every failure without a number of its own */
  STATUS_USAGE = 2,
  STATUS_NOT_FOUND = 3,
  STATUS_PERMISSION = 4,
  STATUS_WOULD_BLOCK = 5, /* or the timeout came */
  STATUS_SHUT_DOWN = 6,
  STATUS_DAMAGED = 7,
  STATUS_VERSION = 8 /* the segment has another layout version */
};

/* The command that complaints name. */
void report_as(const char *command);

void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Complain about how the command was called. Returns STATUS_USAGE. */
int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Complain that `subject` failed with the library's negative errno, and say what to do. Returns the
 * status that fits. */
int fail(const char *subject, int error);

/* The same for an errno of the system's. */
int fail_system(const char *subject, int error);

int status_of(int error);

#endif
