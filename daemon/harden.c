/* SPDX-License-Identifier: Apache-2.0
 *
 * Capabilities are a thread's own, and threads inherit them: this is done while there is one.
 */
#include "harden.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Root's daemon serves trees and guards segments that are not root's, and keeps what is read often in memory. */
static const uint64_t kept = UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_FOWNER |
                             UINT64_C(1) << CAP_IPC_LOCK;

static int drop_bounding_set(void) {
  for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
    if (!(kept >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)) return -errno;
  return 0;
}

static int drop_own(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
  if (syscall(SYS_capget, &header, data)) return -errno;
  for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
    uint32_t mask = (uint32_t)(kept >> 32 * i);
    data[i].permitted &= mask;
    data[i].effective &= mask;
    data[i].inheritable = 0;
  }
  return syscall(SYS_capset, &header, data) ? -errno : 0;
}

/* Who may not change them has none to give up, or was given none by who started us. */
static int may_fail(int rc) { return rc == -EPERM && geteuid() != 0 ? 0 : rc; }

int harden(void) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -errno;
  int rc = may_fail(setgroups(0, NULL) ? -errno : 0);
  if (!rc) rc = may_fail(drop_bounding_set());
  if (!rc) rc = prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) ? -errno : 0;
  return rc ? rc : drop_own();
}
