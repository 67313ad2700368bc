/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may do what with a resource. Operations are of three classes; a resource's `allow` grants classes to users and
 * groups: "uid:1000 rw, gid:adm r, all r". The daemon's own user and root may do everything.
 */
#ifndef SHMQD_RIGHTS_H
#define SHMQD_RIGHTS_H

#include <stdbool.h>
#include <sys/types.h>

enum right {
  RIGHT_READ = 1,
  RIGHT_WRITE = 2,
  RIGHT_ADMIN = 4 /* what undoes the work of others */
};

/* A row in the table of each kind of resource. */
#define RIGHTS_PARAM                                                                          \
  {                                                                                           \
    "allow", PARAM_RIGHTS, "", 0, 0, NULL,                                                    \
        "who may use it beside the daemon's own user and root: uid:ID, gid:ID or all, each "  \
        "followed by letters of r (read), w (write) and a (administer), separated by commas", \
        PARAM_LIVE                                                                            \
  }

/* What is wrong with the text of an `allow`, or NULL. */
const char *rights_check(const char *text);

struct rights;
/* The rules of a checked text; NULL: no memory. */
struct rights *rights_new(const char *text);
void rights_free(struct rights *rights);

/* Who a client was when it connected, by the kernel's word. */
struct peer {
  uid_t uid;
  gid_t gid;
  pid_t pid;
  gid_t *groups; /* supplementary; owned */
  unsigned group_count;
};
int peer_read(struct peer *peer, int socket);
void peer_free(struct peer *peer);

bool rights_grant(const struct rights *rights, const struct peer *peer, enum right wanted);

#endif
