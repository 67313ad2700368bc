/* SPDX-License-Identifier: Apache-2.0
 *
 * What the sessions of one user have together, and may have.
 */
#ifndef SHMQD_ACCOUNT_H
#define SHMQD_ACCOUNT_H

#include <stdint.h>
#include <sys/types.h>

#include "config.h"

/* What one session takes of its user's. */
struct share {
  uint64_t sessions, operations, bytes, handles;
};

struct account {
  struct account *next;
  uid_t uid;
  struct share used;
};

/* The user's account, made if there is none; NULL: no memory. */
struct account *account_find(struct account **accounts, uid_t uid);
/* Take more. -EUSERS: too many sessions, -EDQUOT: too much of the rest; then nothing was taken. */
int account_take(struct account *account, const struct section *settings, const struct share *more);
/* Take what has been granted before. */
void account_charge(struct account *account, const struct share *more);
/* Give back; an account without sessions goes. */
void account_give(struct account **accounts, struct account *account, const struct share *less);

#endif
