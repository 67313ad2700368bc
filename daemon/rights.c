/* SPDX-License-Identifier: Apache-2.0 */
#include "rights.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- rules ---- */

enum who { ANYBODY, USER, GROUP };

struct rule {
  enum who who;
  uint32_t id;
  unsigned rights;
};

struct rights {
  size_t count;
  struct rule rules[];
};

static bool parse_number(const char *text, uint32_t *id) {
  char *end;
  if (!isdigit((unsigned char)*text)) return false;
  errno = 0;
  unsigned long n = strtoul(text, &end, 10);
  *id = (uint32_t)n;
  return !errno && !*end && n < UINT32_MAX; /* the last one is nobody's: (uid_t)-1 */
}

static const char *parse_user(const char *name, uint32_t *id) {
  if (parse_number(name, id)) return NULL;
  const struct passwd *entry = getpwnam(name);
  if (!entry) return "names a user that there is not";
  *id = entry->pw_uid;
  return NULL;
}

static const char *parse_group(const char *name, uint32_t *id) {
  if (parse_number(name, id)) return NULL;
  const struct group *entry = getgrnam(name);
  if (!entry) return "names a group that there is not";
  *id = entry->gr_gid;
  return NULL;
}

static const char *parse_who(const char *text, struct rule *rule) {
  rule->who = strncmp(text, "uid:", 4) == 0   ? USER
              : strncmp(text, "gid:", 4) == 0 ? GROUP
                                              : ANYBODY;
  if (rule->who == USER) return parse_user(text + 4, &rule->id);
  if (rule->who == GROUP) return parse_group(text + 4, &rule->id);
  return strcmp(text, "all") == 0 ? NULL : "must be uid:ID, gid:ID or all, each with its rights";
}

static const char *parse_letters(const char *text, struct rule *rule) {
  static const char letters[] = "rwa"; /* in the order of enum right */
  for (; *text; text++) {
    const char *at = strchr(letters, *text);
    if (!at) return "gives a right that is none of r, w and a";
    rule->rights |= 1u << (at - letters);
  }
  return NULL;
}

static const char *parse_rule(char *text, struct rule *rule) {
  char *rest;
  const char *who = strtok_r(text, " ", &rest), *letters = strtok_r(NULL, " ", &rest);
  if (!who) return "has nothing between two commas";
  const char *wrong = parse_who(who, rule);
  if (wrong) return wrong;
  if (!letters) return "gives somebody no rights";
  if (strtok_r(NULL, " ", &rest)) return "needs a comma between two rules";
  return parse_letters(letters, rule);
}

static const char *parse(const char *text, struct rights *rights) {
  if (!*text) return NULL;
  char *copy = strdup(text), *rest = copy;
  const char *wrong = copy ? NULL : "does not fit into memory";
  for (char *one; !wrong && (one = strsep(&rest, ","));)
    wrong = parse_rule(one, &rights->rules[rights->count++]);
  free(copy);
  return wrong;
}

/* For as many rules as there are commas, and one. */
static struct rights *with_room(const char *text) {
  size_t n = 1;
  for (; *text; text++) n += *text == ',';
  return calloc(1, sizeof(struct rights) + n * sizeof(struct rule));
}

const char *rights_check(const char *text) {
  struct rights *rights = with_room(text);
  const char *wrong = rights ? parse(text, rights) : "does not fit into memory";
  free(rights);
  return wrong;
}

struct rights *rights_new(const char *text) {
  struct rights *rights = with_room(text);
  if (!rights || !parse(text, rights)) return rights;
  free(rights); /* a user has gone since it was checked */
  return NULL;
}

void rights_free(struct rights *rights) { free(rights); }

/* ---- peers ---- */

static int read_groups(struct peer *peer, int socket) {
  for (socklen_t bytes = 64 * sizeof(gid_t);;) {
    gid_t *groups = realloc(peer->groups, bytes);
    if (!groups) return -ENOMEM;
    peer->groups = groups;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &bytes) == 0) {
      peer->group_count = bytes / (unsigned)sizeof(gid_t);
      return 0;
    }
    if (errno != ERANGE) return -errno; /* else bytes is what is needed */
  }
}

int peer_read(struct peer *peer, int socket) {
  struct ucred credentials;
  socklen_t bytes = sizeof credentials;
  *peer = (struct peer){0};
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes)) return -errno;
  peer->uid = credentials.uid;
  peer->gid = credentials.gid;
  peer->pid = credentials.pid;
  int rc = read_groups(peer, socket);
  if (rc || !peer->group_count) peer_free(peer);
  return rc;
}

void peer_free(struct peer *peer) {
  free(peer->groups);
  peer->groups = NULL;
  peer->group_count = 0;
}

static bool is_in(const struct peer *peer, gid_t gid) {
  if (peer->gid == gid) return true;
  for (unsigned i = 0; i < peer->group_count; i++)
    if (peer->groups[i] == gid) return true;
  return false;
}

static bool is_of(const struct rule *rule, const struct peer *peer) {
  switch (rule->who) {
  case USER: return rule->id == peer->uid;
  case GROUP: return is_in(peer, rule->id);
  case ANYBODY: break;
  }
  return true;
}

bool rights_grant(const struct rights *rights, const struct peer *peer, enum right wanted) {
  unsigned granted = 0;
  if (peer->uid == 0 || peer->uid == geteuid()) return true;
  for (size_t i = 0; i < rights->count; i++)
    if (is_of(&rights->rules[i], peer)) granted |= rights->rules[i].rights;
  return (granted & wanted) == (unsigned)wanted;
}
