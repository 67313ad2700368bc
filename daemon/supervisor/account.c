/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/account.h"

#include <errno.h>
#include <stdlib.h>

struct account *account_find(struct account **accounts, uid_t uid) {
  struct account *a = *accounts;
  while (a && a->uid != uid) a = a->next;
  if (a || !(a = calloc(1, sizeof *a))) return a;
  a->uid = uid;
  a->next = *accounts;
  *accounts = a;
  return a;
}

/* Nobody is refused for what he does not ask for: a reload may have put a quota below what is used. */
static bool fits(const struct section *settings, const char *key, uint64_t used, uint64_t more) {
  return !more || used + more <= (uint64_t)section_number(settings, key);
}

void account_charge(struct account *a, const struct share *more) {
  a->used.sessions += more->sessions;
  a->used.operations += more->operations;
  a->used.bytes += more->bytes;
  a->used.handles += more->handles;
}

int account_take(struct account *a, const struct section *settings, const struct share *more) {
  if (!fits(settings, "uid_sessions", a->used.sessions, more->sessions)) return -EUSERS;
  if (!fits(settings, "uid_operations", a->used.operations, more->operations) ||
      !fits(settings, "uid_bytes", a->used.bytes, more->bytes) ||
      !fits(settings, "uid_handles", a->used.handles, more->handles))
    return -EDQUOT;
  account_charge(a, more);
  return 0;
}

static void forget(struct account **accounts, struct account *a) {
  while (*accounts != a) accounts = &(*accounts)->next;
  *accounts = a->next;
  free(a);
}

void account_give(struct account **accounts, struct account *a, const struct share *less) {
  a->used.sessions -= less->sessions;
  a->used.operations -= less->operations;
  a->used.bytes -= less->bytes;
  a->used.handles -= less->handles;
  if (!a->used.sessions) forget(accounts, a);
}
