/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults of the disk, in a daemon that was linked with faults.c: its operations on files go through there on their way to
 * the kernel. A test arms one in memory that both have mapped ($TEST_FAULTS names the file).
 */
#ifndef TEST_FAULTS_H
#define TEST_FAULTS_H

#include <stdatomic.h>

enum fault {
  FAULT_NONE,
  FAULT_WRITE_SHORT, /* half of it is written, and said so */
  FAULT_WRITE_ERROR, /* nothing is written */
  FAULT_WRITE_TORN,  /* half of it is written, and an error said */
  FAULT_WRITE_LATE,  /* all of it is written, and an error said */
  FAULT_SYNC_ERROR,
  FAULT_READ_SHORT,
  FAULT_READ_ERROR,
  FAULT_RENAME_ERROR,
};

struct faults {
  _Atomic int armed;    /* enum fault; once, then none */
  _Atomic int after;    /* so many of its kind go well before */
  _Atomic int error;    /* a positive errno */
  char suffix[32];      /* of the paths of the files that it concerns; "": all */
  _Atomic int happened; /* how many */
  _Atomic int syncs;    /* all that were asked of the ring */
};

#endif
