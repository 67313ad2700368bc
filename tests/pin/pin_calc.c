/* SPDX-License-Identifier: Apache-2.0
 *
 * The same texts to us and to hwloc-calc: the union of our places must be the set that it prints.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <hwloc.h>
#include <shmq/pin.h>

#define SKIPPED 77

static const char *const machines[] = {
    "package:2 [numa] l3:2 l2:4 core:1 pu:2",
    "package:2 [numa] core:2 pu:2(indexes=0,4,1,5,2,6,3,7)",
    "[numa] package:3 l3:2 core:3 pu:1",
    "[numa] package:1 core:1 pu:1",
};

/* Levels from the outside to the inside; a chain takes some of them in this order. */
static const char *const types[] = {"package", "numa", "l3", "l2", "core", "pu"};

static size_t next_random(size_t below) {
  static uint64_t state = 0x9e3779b97f4a7c15u;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (size_t)(state % below);
}

#define TEXT_BYTES 256

static void append(char *text, const char *format, ...) {
  size_t used = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + used, TEXT_BYTES - used, format, arguments);
  va_end(arguments);
}

static void add_index(char *text) {
  size_t first = next_random(8);
  switch (next_random(8)) {
  case 0: append(text, ":all"); break;
  case 1: append(text, ":odd"); break;
  case 2: append(text, ":even"); break;
  case 3: append(text, ":%zu-", first); break;
  case 4: append(text, ":%zu-%zu", first, first + next_random(4)); break;
  case 5: append(text, ":%zu:%zu", first, 1 + next_random(4)); break;
  default: append(text, ":%zu", first / 2); break;
  }
}

static void add_location(char *text) {
  static const char *const operators[] = {"", "", "", "~", "x", "^"};
  const char *dot = "";
  append(text, "%s", operators[next_random(6)]);
  if (next_random(6) == 0) {
    append(text, "0x%zx", 1 + next_random(255));
    return;
  }
  size_t level = next_random(6);
  do {
    append(text, "%s%s", dot, types[level]);
    add_index(text);
    dot = ".";
    level += 1 + next_random(3);
  } while (level < 6 && next_random(2) == 0);
}

static void random_text(char *text) {
  text[0] = '\0';
  for (size_t locations = 1 + next_random(3); locations > 0; locations--) {
    add_location(text);
    if (locations > 1) append(text, " ");
  }
}

/* Our set, or a negative errno. */
static int ask_ourselves(shmq_pin *pin, const char *text, hwloc_bitmap_t all) {
  hwloc_bitmap_t some = hwloc_bitmap_alloc();
  int count = shmq_pin_count(pin, text);
  for (int i = 0; i < count; i++) {
    shmq_bound bound;
    if (shmq_pin_place(pin, text, (unsigned)i, &bound) != 0) abort();
    hwloc_bitmap_list_sscanf(some, bound.list);
    hwloc_bitmap_or(all, all, some);
  }
  hwloc_bitmap_free(some);
  return count;
}

/* One line in, one line out: hwloc-calc computes a set for each line that it reads. */
struct question {
  char text[TEXT_BYTES];
  hwloc_bitmap_t ours;
};

/* Texts that we accept, with our sets. Returns how many. */
static int make_questions(const char *machine, struct question *questions, int texts) {
  shmq_pin *pin = NULL;
  int count = 0;
  setenv("HWLOC_SYNTHETIC", machine, 1);
  if (shmq_pin_open(&pin) != 0) return 0;
  unsetenv("HWLOC_SYNTHETIC");
  for (int i = 0; i < texts; i++) {
    struct question *question = &questions[count];
    random_text(question->text);
    question->ours = hwloc_bitmap_alloc();
    if (ask_ourselves(pin, question->text, question->ours) > 0) {
      count++;
    } else {
      hwloc_bitmap_free(question->ours);
    }
  }
  shmq_pin_close(pin);
  return count;
}

/* Returns 1 when they differ. */
static int compare(const char *machine, const struct question *question, const char *line) {
  hwloc_bitmap_t theirs = hwloc_bitmap_alloc();
  bool same =
      hwloc_bitmap_sscanf(theirs, line) == 0 && hwloc_bitmap_isequal(question->ours, theirs);
  if (!same) {
    char list[256];
    hwloc_bitmap_list_snprintf(list, sizeof(list), question->ours);
    printf("%s\n  '%s'\n  we say %s, hwloc-calc says %s\n", machine, question->text, list, line);
  }
  hwloc_bitmap_free(theirs);
  return !same;
}

/* Run hwloc-calc on two files. Returns 0, or an errno when it cannot be started. */
static int run_calc(const char *machine, FILE *in, FILE *out) {
  char program[] = "hwloc-calc", option[] = "-i", topology[128];
  char *arguments[] = {program, option, topology, NULL};
  snprintf(topology, sizeof(topology), "%s", machine);
  posix_spawn_file_actions_t files;
  pid_t pid = 0;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, fileno(in), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, fileno(out), STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  int error = posix_spawnp(&pid, arguments[0], &files, NULL, arguments, environ);
  if (error == 0) waitpid(pid, NULL, 0);
  posix_spawn_file_actions_destroy(&files);
  return error;
}

static int compare_all(const char *machine, const struct question *questions, int count) {
  FILE *in = tmpfile();
  FILE *out = tmpfile();
  char line[256];
  int wrong = 0, answers = 0;
  if (in == NULL || out == NULL) abort();
  for (int i = 0; i < count; i++) fprintf(in, "%s\n", questions[i].text);
  rewind(in);
  if (run_calc(machine, in, out) == ENOENT) {
    puts("skipped: hwloc-calc is not installed");
    exit(SKIPPED);
  }
  rewind(out);
  while (answers < count && wrong < 5 && fgets(line, sizeof(line), out) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "0x", 2) == 0) wrong += compare(machine, &questions[answers++], line);
  }
  fclose(in);
  fclose(out);
  return wrong > 0 ? wrong : answers != count;
}

/* Returns how many texts were compared; *wrong counts those that differ. */
static int try_machine(const char *machine, int texts, int *wrong) {
  struct question *questions = calloc((size_t)texts + 1, sizeof(*questions));
  if (questions == NULL) abort();
  int count = make_questions(machine, questions, texts);
  *wrong += compare_all(machine, questions, count);
  for (int i = 0; i < count; i++) hwloc_bitmap_free(questions[i].ours);
  free(questions);
  return count;
}

int main(int argc, char **argv) {
  int texts = argc > 1 ? atoi(argv[1]) : 500;
  int compared = 0, wrong = 0;
  for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
    compared += try_machine(machines[i], texts, &wrong);
  }
  printf("%d texts compared with hwloc-calc, %d differ\n", compared, wrong);
  return wrong == 0 && compared > texts / 4 ? 0 : 1;
}
