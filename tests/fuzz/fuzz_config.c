/* SPDX-License-Identifier: Apache-2.0
 *
 * Configuration of shmqd: an input is a file, and, behind a line of three dashes, one --set argument a
 * line. What was accepted is shown, and what was shown must be accepted again.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "daemon.h"
#include "settings.h"
#include "input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const void *data, size_t size, char path[32]) {
  int fd = memfd_create("config", MFD_CLOEXEC);
  check(fd >= 0 && write(fd, data, size) == (ssize_t)size, "a file");
  snprintf(path, 32, "/proc/self/fd/%d", fd);
  return fd;
}

static int read_file(struct config *config, const void *data, size_t size) {
  struct config_error error = {""};
  char path[32];
  int fd = file_of(data, size, path);
  int rc = config_read_file(config, path, &error);
  check(rc == 0 || *error.text, "an error without a text");
  close(fd);
  return rc;
}

static int read_settings(struct config *config, const char *text, size_t size) {
  struct config_error error = {""};
  int rc = 0;
  while (rc == 0 && size > 0) {
    size_t n = strcspn(text, "\n");
    if (n > size) n = size;
    char *one = strndup(text, n);
    rc = config_set(config, one, "--set", &error);
    check(rc == 0 || *error.text, "an error without a text");
    free(one);
    n += n < size;
    text += n;
    size -= n;
  }
  return rc;
}

static void check_numbers(const struct config *config) {
  for (const struct section *s = config->sections; s; s = s->next)
    for (unsigned i = 0; i < s->count; i++) {
      const struct setting *setting = &s->settings[i];
      const struct param *p = setting->param;
      check(setting->text != NULL, "a setting without a value");
      if (p->type == PARAM_COUNT || p->type == PARAM_BYTES || p->type == PARAM_DURATION)
        check(setting->number >= p->min && setting->number <= p->max, "a value out of its range");
    }
}

static void show(const struct config *config, char **text, size_t *size) {
  FILE *to = open_memstream(text, size);
  check(to != NULL, "memory");
  config_show(config, to);
  fclose(to);
}

/* Texts of --set may hold what a file cannot. */
static void read_again(const struct config *config) {
  char *shown = NULL, *again = NULL;
  size_t size, size_again;
  struct config second;
  show(config, &shown, &size);
  config_init(&second, section_kinds);
  check(read_file(&second, shown, size) == 0, "what is shown cannot be read");
  show(&second, &again, &size_again);
  config_free(&second);
  free(shown);
  free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct config config;
  struct config_error error = {""};
  char *text = malloc(size + 1);
  memcpy(text, data, size);
  text[size] = 0;
  const char *settings = strstr(text, "\n---\n");
  size_t in_file = settings ? (size_t)(settings + 1 - text) : size;

  config_init(&config, section_kinds);
  int rc = read_file(&config, text, in_file);
  if (rc == 0 && settings) rc = read_settings(&config, settings + 5, strlen(settings + 5));
  if (rc == 0) rc = config_complete(&config, &error);
  if (rc == 0) {
    check_numbers(&config);
    if (!settings) read_again(&config);
  }
  config_free(&config);
  free(text);
  return 0;
}
