/* SPDX-License-Identifier: Apache-2.0 */
#include "command.h"

#include <stddef.h>

const char *command_split(const char *command, wordexp_t *words) {
  int rc = wordexp(command, words, WRDE_NOCMD);
  if (!rc && words->we_wordc) return NULL;
  if (!rc) wordfree(words);
  *words = (wordexp_t){0};
  return !rc ? "is empty" : rc == WRDE_CMDSUB ? "must not have commands in it" : "cannot be split into words";
}

const char *command_check(const char *command) {
  wordexp_t words;
  const char *wrong = command_split(command, &words);
  if (!wrong) wordfree(&words);
  return wrong;
}
