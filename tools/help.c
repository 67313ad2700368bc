/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq help: the list of commands, one command's help, the manual page and the shell completion,
 * all printed from the table. The build runs the last two, so they cannot drift from the program.
 */
#include <stdio.h>
#include <string.h>

#include <shmq/version.h>

#include "base/report.h"
#include "command.h"

static struct {
  bool manual;
  bool completion;
} options;

static const struct flag flags[] = {
    SET_FLAG("man", 0, &options.manual, "print the manual page, as troff source"),
    SET_FLAG("completion", 0, &options.completion, "print the completion for bash"),
    END_OF_FLAGS,
};

static const struct {
  int status;
  const char *meaning;
} statuses[] = {
    {STATUS_OK, "ok"},
    {STATUS_FAILED, "no, or failed"},
    {STATUS_USAGE, "wrong usage"},
    {STATUS_NOT_FOUND, "not found"},
    {STATUS_PERMISSION, "no permission"},
    {STATUS_WOULD_BLOCK, "would block, or the timeout came"},
    {STATUS_SHUT_DOWN, "the queue is shut down"},
    {STATUS_DAMAGED, "damaged"},
    {STATUS_VERSION, "another layout version"},
};
enum { STATUSES = sizeof statuses / sizeof *statuses };

static const char introduction[] =
    "shmq makes, uses and examines message queues in shared memory. A queue is named SEGMENT or "
    "SEGMENT/QUEUE; SEGMENT alone means the segment's first queue.";
static const char conventions[] =
    "A duration (DUR) is a number with ns, us, ms, s, m, h or d; a plain number is seconds. A "
    "size (BYTES) may end in K, M or G, powers of 1024. A delimiter (DELIM) may hold the escapes "
    "\\n, \\t, \\r, \\0, \\\\ and \\xHH.";

/* ---- help for people ---- */

/* The left column of a flag's line: "-t, --timeout DUR". */
static void spell(const struct flag *flag, char *text, size_t size) {
  int at = flag->letter != 0 ? snprintf(text, size, "-%c, ", flag->letter)
                             : snprintf(text, size, "    ");
  snprintf(text + at, size - (size_t)at, "--%s%s%s", flag->name, flag->argument != NULL ? " " : "",
           flag->argument != NULL ? flag->argument : "");
}

/* Print a paragraph in lines of at most 80 bytes, as a column that begins at `indent`, where we are. */
static void print_wrapped(const char *text, size_t indent) {
  size_t column = indent;
  while (*text != '\0') {
    size_t word = strcspn(text, " \n");
    if (column > indent && column + 1 + word > 80) {
      printf("\n%*s", (int)indent, "");
      column = indent;
    }
    if (word > 0) {
      column += (size_t)printf("%s%.*s", column > indent ? " " : "", (int)word, text);
    }
    text += word;
    if (*text == '\n') {
      printf("\n%*s", (int)indent, "");
      column = indent;
    }
    text += *text != '\0';
  }
  putchar('\n');
}

static void print_flag(const char *left, const char *help) {
  enum { RIGHT = 30 };
  int at = printf("  %-27s ", left);
  if (at > RIGHT) {
    printf("\n%*s", RIGHT, "");
  }
  print_wrapped(help, RIGHT);
}

void print_command_help(const struct command *command) {
  printf("Usage: shmq %s%s%s%s\n\n%s.\n", command->name, command->flags != NULL ? " [FLAGS]" : "",
         *command->arguments != '\0' ? " " : "", command->arguments, command->summary);
  if (command->details != NULL) {
    putchar('\n');
    print_wrapped(command->details, 0);
  }
  printf("\nFlags:\n");
  for (const struct flag *flag = command->flags; flag != NULL && flag->name != NULL; flag++) {
    char left[64];
    spell(flag, left, sizeof left);
    print_flag(left, flag->help);
  }
  print_flag("-h, --help", "print this");
  if (command->examples != NULL) {
    printf("\nExamples:\n%s\n", command->examples);
  }
}

static void print_overview(void) {
  printf("Usage: shmq COMMAND [FLAGS] [ARGUMENTS]\n\n");
  print_wrapped(introduction, 0);
  printf("\nCommands:\n");
  for (size_t i = 0; all_commands[i] != NULL; i++) {
    printf("  %-10s %s\n", all_commands[i]->name, all_commands[i]->summary);
  }
  printf("\n'shmq COMMAND --help' tells more. ");
  printf("'shmq --version' prints the version.\n\n");
  print_wrapped(conventions, 0);
  printf("\nExit status:\n");
  for (size_t i = 0; i < STATUSES; i++) {
    printf("  %d  %s\n", statuses[i].status, statuses[i].meaning);
  }
}

/* ---- the manual page ---- */

/* Text as troff reads it: backslashes and dashes escaped, no line that starts with a control
 * character. */
static void print_troff(const char *text) {
  bool line_start = true;
  for (; *text != '\0'; text++) {
    if (line_start && (*text == '.' || *text == '\'')) {
      fputs("\\&", stdout);
    }
    if (*text == '\\') {
      fputs("\\e", stdout);
    } else if (*text == '-') {
      fputs("\\-", stdout);
    } else if (*text == '\n' && text[1] == '\n') {
      fputs("\n.PP", stdout);
    } else {
      putchar(*text);
    }
    line_start = *text == '\n';
  }
  putchar('\n');
}

static void print_manual_flag(const struct flag *flag) {
  printf(".TP\n");
  if (flag->letter != 0) {
    printf("\\fB\\-%c\\fR, ", flag->letter);
  }
  printf("\\fB\\-\\-");
  for (const char *at = flag->name; *at != '\0'; at++) {
    printf(*at == '-' ? "\\-" : "%c", *at);
  }
  printf("\\fR%s%s%s\n", flag->argument != NULL ? " \\fI" : "",
         flag->argument != NULL ? flag->argument : "", flag->argument != NULL ? "\\fR" : "");
  print_troff(flag->help);
}

static void print_manual_command(const struct command *command) {
  printf(".SS shmq %s%s%s%s\n", command->name, command->flags != NULL ? " [FLAGS]" : "",
         *command->arguments != '\0' ? " " : "", command->arguments);
  print_troff(command->summary);
  if (command->details != NULL) {
    printf(".PP\n");
    print_troff(command->details);
  }
  for (const struct flag *flag = command->flags; flag != NULL && flag->name != NULL; flag++) {
    print_manual_flag(flag);
  }
  if (command->examples != NULL) {
    printf(".PP\nExamples:\n.nf\n");
    print_troff(command->examples);
    printf(".fi\n");
  }
}

static void print_manual(void) {
  printf(".\\\" Printed by 'shmq help --man' from the table of commands.\n");
  printf(".TH SHMQ 1 \"\" \"shmq %s\" \"User Commands\"\n", SHMQ_VERSION);
  printf(".SH NAME\nshmq \\- message queues in shared memory that survive their users\n");
  printf(
      ".SH SYNOPSIS\n.B shmq\n.I COMMAND\n[\\fIFLAGS\\fR] [\\fIARGUMENTS\\fR]\n.SH DESCRIPTION\n");
  print_troff(introduction);
  printf(".PP\n");
  print_troff(conventions);
  printf(".SH COMMANDS\n");
  for (size_t i = 0; all_commands[i] != NULL; i++) {
    print_manual_command(all_commands[i]);
  }
  printf(".SH EXIT STATUS\n");
  for (size_t i = 0; i < STATUSES; i++) {
    printf(".TP\n.B %d\n%s\n", statuses[i].status, statuses[i].meaning);
  }
  printf(".SH FILES\n.TP\n.I /dev/shm/shmq.SEGMENT\nthe memory of a segment\n");
  printf(".SH SEE ALSO\n.BR shmqd (8),\n.BR shm_overview (7)\n");
}

/* ---- completion ---- */

static void print_words(const struct command *command) {
  for (const struct flag *flag = command->flags; flag != NULL && flag->name != NULL; flag++) {
    printf("--%s ", flag->name);
  }
  printf("--help");
}

/* `--flag) words="a b c" ;;` for a flag that takes one of a few words. */
static void print_choices(const struct command *command) {
  for (const struct flag *flag = command->flags; flag != NULL && flag->name != NULL; flag++) {
    if (flag->kind != FLAG_CHOICE) {
      continue;
    }
    printf("    %s:--%s) words=\"", command->name, flag->name);
    for (size_t i = 0; flag->choices[i] != NULL; i++) {
      printf("%s%s", i > 0 ? " " : "", flag->choices[i]);
    }
    printf("\" ;;\n");
  }
}

static void print_completion(void) {
  printf("# Completion for bash. Printed by 'shmq help --completion' from the table of commands.\n"
         "_shmq() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
         "  local words=\n"
         "  case \"${COMP_WORDS[1]}:$previous\" in\n");
  for (size_t i = 0; all_commands[i] != NULL; i++) {
    print_choices(all_commands[i]);
  }
  printf("    *:--file) mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;\n"
         "  esac\n"
         "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
         "    words=\"");
  for (size_t i = 0; all_commands[i] != NULL; i++) {
    printf("%s ", all_commands[i]->name);
  }
  printf("--help --version\"\n"
         "  elif [ -z \"$words\" ] && [[ $current == -* ]]; then\n"
         "    case ${COMP_WORDS[1]} in\n");
  for (size_t i = 0; all_commands[i] != NULL; i++) {
    printf("      %s) words=\"", all_commands[i]->name);
    print_words(all_commands[i]);
    printf("\" ;;\n");
  }
  printf("    esac\n"
         "  elif [ -z \"$words\" ]; then\n"
         "    words=$(shmq ls --names 2>/dev/null)\n"
         "  fi\n"
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "}\n"
         "complete -F _shmq shmq\n");
}

static int run(int count, char **arguments) {
  if (options.manual) {
    print_manual();
  } else if (options.completion) {
    print_completion();
  } else if (count == 0) {
    print_overview();
  } else {
    const struct command *command = find_command(arguments[0]);
    if (command == NULL) {
      return usage("unknown command '%s'", arguments[0]);
    }
    print_command_help(command);
  }
  return STATUS_OK;
}

const struct command help_command = {
    .name = "help",
    .arguments = "[COMMAND]",
    .summary = "Tell how to use shmq, or one of its commands",
    .flags = flags,
    .most = 1,
    .run = run,
};
