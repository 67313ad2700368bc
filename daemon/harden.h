/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQD_HARDEN_H
#define SHMQD_HARDEN_H

/* Give up for ever what the worker never needs: capabilities but those to use the files of others, further groups, the
 * gain of privileges by exec. Before anything is opened and any thread is made. 0 or a negative errno. */
int harden(void);

#endif
