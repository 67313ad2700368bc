/* SPDX-License-Identifier: Apache-2.0
 *
 * Sections, settings and their values. config_file.c reads the files.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "rights.h"

/* ---- values ---- */

struct unit {
  const char *name;
  int64_t scale;
};
static const struct unit byte_units[] = {
    {"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {NULL, 0}};
static const struct unit time_units[] = {
    {"ns", 1},        {"us", 1000},       {"ms", 1000000},      {"s", 1000000000},
    {"", 1000000000}, {"m", 60000000000}, {"h", 3600000000000}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static bool parse_scaled(const char *text, const struct unit *units, int64_t *value) {
  char *end;
  if (!isdigit((unsigned char)*text)) return false;
  errno = 0;
  long long n = strtoll(text, &end, 10);
  if (errno) return false;
  while (*end == ' ') end++;
  for (const struct unit *u = units; u->name; u++)
    if (strcmp(u->name, end) == 0) return !__builtin_mul_overflow((int64_t)n, u->scale, value);
  return false;
}

static bool parse_flag(const char *text, int64_t *value) {
  static const char *const yes[] = {"yes", "on", "true", "1"}, *const no[] = {"no", "off", "false",
                                                                              "0"};
  for (int i = 0; i < 4; i++) {
    if (strcmp(text, yes[i]) == 0) *value = 1;
    if (strcmp(text, no[i]) == 0) *value = 0;
    if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) return true;
  }
  return false;
}

static bool parse_choice(const char *text, const char *choices, int64_t *value) {
  size_t length = strlen(text);
  *value = 0;
  for (const char *c = choices; *c; (*value)++) {
    size_t n = strcspn(c, "|");
    if (n == length && memcmp(c, text, n) == 0) return true;
    c += n + (c[n] == '|');
  }
  return false;
}

/* What could not be written in a file is refused wherever it comes from: what --show-config prints can be read
 * again. libinih takes what follows " ;" for a comment. */
static const char *check_text(const char *text) {
  size_t n = strlen(text);
  if (n && (isspace((unsigned char)text[0]) || isspace((unsigned char)text[n - 1])))
    return "must not begin or end with a blank";
  for (size_t i = 0; i < n; i++) {
    if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) return "has a control character in it";
    if (text[i] == ';' && (i == 0 || text[i - 1] == ' ')) return "must not have a ; after a blank";
  }
  return NULL;
}

/* Returns NULL or what is wrong. */
static const char *parse_value(const struct param *p, const char *text, int64_t *value) {
  bool good = true;
  *value = 0;
  switch (p->type) {
  case PARAM_TEXT: return NULL;
  case PARAM_PATH: return *text ? NULL : "must not be empty";
  case PARAM_COUNT: good = parse_scaled(text, no_units, value); break;
  case PARAM_BYTES: good = parse_scaled(text, byte_units, value); break;
  case PARAM_DURATION: good = parse_scaled(text, time_units, value); break;
  case PARAM_FLAG: return parse_flag(text, value) ? NULL : "must be yes or no";
  case PARAM_CHOICE:
    return parse_choice(text, p->choices, value) ? NULL : "is not one of the choices";
  case PARAM_RIGHTS: return rights_check(text);
  }
  if (!good) return "is not a number of that kind";
  if (*value < p->min || *value > p->max) return "is out of range";
  return NULL;
}

/* ---- sections ---- */

void config_init(struct config *config, const struct section_kind *const *kinds) {
  *config = (struct config){.kinds = kinds, .end = &config->sections};
}

static void section_free(struct section *s) {
  for (unsigned i = 0; i < s->count; i++) {
    free(s->settings[i].text);
    free(s->settings[i].source);
  }
  free(s->settings);
  free(s->name);
  free(s->source);
  free(s);
}

void config_free(struct config *config) {
  for (struct section *s = config->sections, *next; s; s = next) {
    next = s->next;
    section_free(s);
  }
  config_init(config, config->kinds);
}

static const struct section_kind *find_kind(const struct config *config, const char *name,
                                            size_t length) {
  for (const struct section_kind *const *k = config->kinds; *k; k++)
    if (strlen((*k)->name) == length && memcmp((*k)->name, name, length) == 0) return *k;
  return NULL;
}

static struct section *section_new(struct config *config, const struct section_kind *kind,
                                   const char *name, const char *source) {
  struct section *s = calloc(1, sizeof *s);
  if (!s) return NULL;
  s->kind = kind;
  while (kind->params[s->count].key) s->count++;
  s->settings = calloc(s->count + 1, sizeof *s->settings);
  s->name = strdup(name);
  s->source = strdup(source);
  if (!s->settings || !s->name || !s->source) {
    section_free(s);
    return NULL;
  }
  for (unsigned i = 0; i < s->count; i++) s->settings[i].param = &kind->params[i];
  *config->end = s;
  config->end = &s->next;
  return s;
}

static bool good_name(const char *name) {
  size_t n = strlen(name);
  for (size_t i = 0; i < n; i++)
    if (!isalnum((unsigned char)name[i]) && !strchr("-_.", name[i])) return false;
  return n >= 1 && n <= 47;
}

struct section *config_find(const struct config *config, const struct section_kind *kind,
                            const char *name) {
  struct section *s = config->sections;
  while (s && !(s->kind == kind && strcmp(s->name, name) == 0)) s = s->next;
  return s;
}

/* Find or make the section that `text` names: KIND or KIND:NAME. */
static struct section *section_named(struct config *config, const char *text, const char *source,
                                     const char **wrong) {
  size_t length = strcspn(text, ":");
  const struct section_kind *kind = find_kind(config, text, length);
  const char *name = text[length] ? text + length + 1 : "";

  *wrong = NULL;
  if (!kind)
    *wrong = "no such kind of section";
  else if (kind->named ? !good_name(name) : text[length] != 0)
    *wrong =
        kind->named ? "needs a name of letters, digits, - _ . after the colon" : "takes no name";
  if (*wrong) return NULL;

  struct section *s = config_find(config, kind, name);
  if (!s) s = section_new(config, kind, name, source);
  if (!s) *wrong = "out of memory";
  return s;
}

static struct setting *find_setting(const struct section *s, const char *key) {
  for (unsigned i = 0; i < s->count; i++)
    if (strcmp(s->settings[i].param->key, key) == 0) return &s->settings[i];
  return NULL;
}

static int complain(struct config_error *error, const char *source, const char *section,
                    const char *key, const char *wrong) {
  snprintf(error->text, sizeof error->text, "%s: [%s]%s%s: %s", source, section, *key ? " " : "",
           key, wrong);
  return -EINVAL;
}

static const char built_in[] = "built-in";

int config_complain(struct config_error *error, const struct section *s, const char *key,
                    const char *wrong) {
  char name[128];
  const struct setting *setting = find_setting(s, key);
  bool given = setting && setting->text && strcmp(setting->source, built_in) != 0;
  snprintf(name, sizeof name, "%s%s%s", s->kind->name, *s->name ? ":" : "", s->name);
  return complain(error, given ? setting->source : s->source, name, key, wrong);
}

static int assign(struct setting *setting, const char *value, const char *source,
                  const char **wrong) {
  int64_t number;
  *wrong = check_text(value);
  if (!*wrong) *wrong = parse_value(setting->param, value, &number);
  if (*wrong) return -EINVAL;
  char *text = strdup(value), *from = strdup(source);
  if (!text || !from) {
    free(text);
    free(from);
    return -ENOMEM;
  }
  free(setting->text);
  free(setting->source);
  setting->text = text;
  setting->source = from;
  setting->number = number;
  return 0;
}

int config_assign(struct config *config, const char *section, const char *key, const char *value,
                  const char *source, struct config_error *error) {
  const char *wrong;
  struct section *s = section_named(config, section, source, &wrong);
  if (!s) return complain(error, source, section, "", wrong);
  if (!*key) return 0;
  struct setting *setting = find_setting(s, key);
  if (!setting) return complain(error, source, section, key, "no such parameter");
  if (assign(setting, value, source, &wrong) == 0) return 0;

  char what[256];
  const struct param *p = setting->param;
  int n = snprintf(what, sizeof what, "'%.80s' %s", value, wrong ? wrong : "out of memory");
  if (p->type == PARAM_CHOICE) snprintf(what + n, sizeof what - (size_t)n, " (%s)", p->choices);
  if (p->type == PARAM_COUNT || p->type == PARAM_BYTES)
    snprintf(what + n, sizeof what - (size_t)n, " (%lld to %lld)", (long long)p->min,
             (long long)p->max);
  return complain(error, source, section, key, what);
}

int config_set(struct config *config, const char *assignment, const char *source,
               struct config_error *error) {
  /* A section's name may contain dots, a key never does: the key follows the last dot before '='. */
  char text[PATH_MAX + 256];
  snprintf(text, sizeof text, "%s", assignment);
  char *equals = strchr(text, '=');
  if (equals) *equals = 0;
  char *dot = strrchr(text, '.');
  if (strlen(assignment) >= sizeof text || !equals || !dot) {
    snprintf(error->text, sizeof error->text, "%s: '%.80s' is not SECTION.KEY=VALUE", source,
             assignment);
    return -EINVAL;
  }
  *dot = 0;
  return config_assign(config, text, dot + 1, equals + 1, source, error);
}

/* SHMQD_KIND_KEY of a kind without names; else NULL. */
static const char *key_of_variable(const struct section_kind *kind, const char *name) {
  if (kind->named || strncmp(name, "SHMQD_", 6) != 0) return NULL;
  size_t n = strlen(kind->name);
  if (strncasecmp(name + 6, kind->name, n) != 0 || name[6 + n] != '_') return NULL;
  return name + 6 + n + 1;
}

static int read_variable(struct config *config, const struct section_kind *kind,
                         const char *variable, struct config_error *error) {
  const char *key = key_of_variable(kind, variable), *equals = strchr(variable, '=');
  if (!key || !equals || key > equals) return 0;
  char name[96], lower[96];
  snprintf(name, sizeof name, "%.*s", (int)(equals - variable), variable);
  snprintf(lower, sizeof lower, "%.*s", (int)(equals - key), key);
  for (char *c = lower; *c; c++) *c = (char)tolower((unsigned char)*c);
  return config_assign(config, kind->name, lower, equals + 1, name, error);
}

int config_read_environment(struct config *config, struct config_error *error) {
  for (char **variable = environ; *variable; variable++)
    for (const struct section_kind *const *k = config->kinds; *k; k++) {
      int rc = read_variable(config, *k, *variable, error);
      if (rc) return rc;
    }
  return 0;
}

static int complete_section(const struct section *s, struct config_error *error) {
  for (unsigned i = 0; i < s->count; i++) {
    struct setting *setting = &s->settings[i];
    const char *wrong;
    if (setting->text) continue;
    if (!setting->param->fallback)
      return config_complain(error, s, setting->param->key, "must be given");
    if (assign(setting, setting->param->fallback, built_in, &wrong)) return -ENOMEM;
  }
  const char *key, *wrong = s->kind->check ? s->kind->check(s, &key) : NULL;
  return wrong ? config_complain(error, s, key, wrong) : 0;
}

int config_complete(struct config *config, struct config_error *error) {
  const char *wrong;
  for (const struct section_kind *const *k = config->kinds; *k; k++)
    if (!(*k)->named && !section_named(config, (*k)->name, built_in, &wrong)) return -ENOMEM;
  for (const struct section *s = config->sections; s; s = s->next) {
    int rc = complete_section(s, error);
    if (rc) return rc;
  }
  return 0;
}

/* ---- reading ---- */

struct section *config_section(struct config *config, const char *kind) {
  for (struct section *s = config->sections; s; s = s->next)
    if (strcmp(s->kind->name, kind) == 0) return s;
  return NULL;
}

int64_t section_number(const struct section *s, const char *key) {
  return find_setting(s, key)->number;
}

const char *section_text(const struct section *s, const char *key) {
  return find_setting(s, key)->text;
}
