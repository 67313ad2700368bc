/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading INI files through libinih. Its reader is ours, because it must know the line number in the
 * handler and refuse lines that libinih would cut.
 */
#include <dirent.h>
#include <errno.h>
#include <ini.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

struct reading {
  struct config *config;
  struct config_error *error;
  const char *path;
  FILE *file;
  int line;
  int rc;
};

static int refuse(struct reading *r, const char *wrong) {
  snprintf(r->error->text, sizeof r->error->text, "%s:%d: %s", r->path, r->line, wrong);
  r->rc = -EINVAL;
  return r->rc;
}

/* libinih cuts a long section's name in silence, ignores what follows the bracket, and does not tell of sections
 * without settings. */
enum { SECTION_ROOM = 50 };

static void begin_section(struct reading *r, const char *line) {
  char name[SECTION_ROOM], source[PATH_MAX + 32];
  size_t n = strcspn(line + 1, "]");
  const char *rest = line + 1 + n;
  if (!*rest) return; /* libinih complains of it */
  rest++;
  rest += strspn(rest, " \t\r\n");
  if (n >= sizeof name)
    refuse(r, "the section's name is too long");
  else if (*rest && !strchr(";#", *rest))
    refuse(r, "something follows the section's name");
  if (r->rc) return;
  snprintf(name, sizeof name, "%.*s", (int)n, line + 1);
  snprintf(source, sizeof source, "%s:%d", r->path, r->line);
  r->rc = config_assign(r->config, name, "", "", source, r->error);
}

/* fgets, but for a NUL: what follows it would not be seen. Returns the length, 0 at the end. */
static size_t read_line(struct reading *r, char *to, size_t size) {
  size_t n = 0;
  for (int c; n + 1 < size && (c = getc(r->file)) != EOF;) {
    if (c == 0) refuse(r, "has a NUL in it");
    to[n++] = (char)c;
    if (c == '\n') break;
  }
  to[n] = 0;
  return n;
}

/* A line that begins with blanks would continue the value above it: they go. */
static char *next_line(char *to, int size, void *stream) {
  struct reading *r = stream;
  if (r->rc) return NULL;
  r->line++;
  size_t n = read_line(r, to, (size_t)size);
  if (!n) return NULL;
  if (n == (size_t)size - 1 && to[n - 1] != '\n') refuse(r, "the line is too long");
  size_t blanks = strspn(to, " \t");
  memmove(to, to + blanks, n - blanks + 1);
  if (*to == '[' && !r->rc) begin_section(r, to);
  return r->rc ? NULL : to;
}

static int setting(void *user, const char *section, const char *name, const char *value) {
  struct reading *r = user;
  char source[PATH_MAX + 32];
  if (r->rc) return 1;
  snprintf(source, sizeof source, "%s:%d", r->path, r->line);
  r->rc = config_assign(r->config, section, name, value ? value : "", source, r->error);
  return 1;
}

int config_read_file(struct config *config, const char *path, struct config_error *error) {
  struct reading r = {.config = config, .error = error, .path = path};
  r.file = fopen(path, "re");
  if (!r.file) {
    int rc = -errno;
    snprintf(error->text, sizeof error->text, "%s: %s", path, strerror(-rc));
    return rc;
  }
  int first_bad = ini_parse_stream(next_line, &r, setting, &r);
  if (!r.rc && ferror(r.file)) refuse(&r, "cannot be read");
  if (!r.rc && first_bad) {
    r.line = first_bad > 0 ? first_bad : r.line;
    refuse(&r, "is neither a [section] nor key = value");
  }
  fclose(r.file);
  return r.rc;
}

static int is_conf(const struct dirent *entry) {
  size_t n = strlen(entry->d_name);
  return n > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + n - 5, ".conf") == 0;
}

int config_read_directory(struct config *config, const char *path, struct config_error *error) {
  struct dirent **entries;
  int n = scandir(path, &entries, is_conf, alphasort), rc = 0;
  if (n < 0) return -errno;
  for (int i = 0; i < n; i++) {
    char file[PATH_MAX + 256];
    snprintf(file, sizeof file, "%s/%s", path, entries[i]->d_name);
    if (!rc) rc = config_read_file(config, file, error);
    free(entries[i]);
  }
  free(entries);
  return rc;
}
