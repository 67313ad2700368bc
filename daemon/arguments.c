/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line. One table of options feeds getopt, the help and the manual page shmqd(8); the table of
 * parameters feeds the second half of the help and shmqd.conf(5).
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "settings.h"
#include "shmq/shmq.h"
#include "shmq/version.h"

enum { CHECK = 256, SHOW, READY, SYSTEM, MANUAL, VERSION, HELP, OPTIONS = 12 };

static const struct {
  const char *name;
  int value; /* a letter, or one of the above */
  const char *argument, *help;
} options[OPTIONS] = {
    {"config", 'c', "FILE", "read FILE and not the system's or the user's configuration"},
    {"dir", 'd', "DIR",
     "keep the socket in DIR (default $XDG_RUNTIME_DIR/shmqd; root: /run/shmqd)"},
    {"set", 's', "SECTION.KEY=VALUE", "as in a file: --set dir:src.path=/usr/include"},
    {"system", SYSTEM, NULL, "use the system's configuration and directory, though not as root"},
    {"check", CHECK, NULL, "check the configuration and exit"},
    {"show-config", SHOW, NULL, "print every setting and where it comes from, and exit"},
    {"ready-fd", READY, "N", "write a newline to descriptor N when clients can connect"},
    {"verbose", 'v', NULL, "say more"},
    {"quiet", 'q', NULL, "say only what is wrong"},
    {"manual", MANUAL, "8|5", "print the manual page shmqd(8) or shmqd.conf(5), and exit"},
    {"version", VERSION, NULL, "print the version and exit"},
    {"help", HELP, NULL, "print this and exit"},
};

static const char summary[] =
    "Own files and other resources, and serve requests for them that arrive on queues.";
static const char signals[] =
    "SIGTERM finishes what is under way and ends; a second one ends at once. SIGHUP reads the configuration anew "
    "and takes all of it or, if a line is wrong or needs a restart, none.";

static void help(FILE *to) {
  fprintf(to, "usage: shmqd [OPTION]...\n%s\n\n", summary);
  for (int i = 0; i < OPTIONS; i++) {
    char letter[8] = "    ", name[64];
    if (options[i].value < CHECK) snprintf(letter, sizeof letter, "-%c, ", options[i].value);
    snprintf(name, sizeof name, "--%s %s", options[i].name,
             options[i].argument ? options[i].argument : "");
    fprintf(to, "  %s%-24s%s%s\n", letter, name, strlen(name) > 24 ? " " : "", options[i].help);
  }
  fprintf(to, "\n%s\n\nSections and parameters:\n\n", signals);
  config_help(section_kinds, to);
}

/* ---- manual pages ---- */

static void manual_options(FILE *to) {
  for (int i = 0; i < OPTIONS; i++) {
    fputs(".TP\n\\fB", to);
    if (options[i].value < CHECK) fprintf(to, "\\-%c\\fR, \\fB", options[i].value);
    fputs("\\-\\-", to);
    print_troff(options[i].name, to);
    fprintf(to, "\\fR \\fI%s\\fR\n", options[i].argument ? options[i].argument : "");
    print_troff(options[i].help, to);
    fputs(".\n", to);
  }
}

static void manual_daemon(FILE *to) {
  fprintf(to, ".\\\" Printed by 'shmqd --manual 8' from the table of options.\n"
              ".TH SHMQD 8 \"\" \"shmq " SHMQ_VERSION "\" \"System Administration\"\n"
              ".SH NAME\nshmqd \\- the owner of files, logs and other resources\n"
              ".SH SYNOPSIS\n.B shmqd\n[OPTION]...\n.SH DESCRIPTION\n");
  print_troff(summary, to);
  fputs("\nClients are programs that use libshmq, and\n.BR shmq (1).\n"
        "Started by root it serves the system, started by anybody else that user.\n.SH OPTIONS\n",
        to);
  manual_options(to);
  fputs(".SH SIGNALS\n", to);
  print_troff(signals, to);
  fputs(
      "\n.SH EXIT STATUS\n.TP\n.B 0\nIt has drained, or the configuration is good.\n"
      ".TP\n.B 1\nThe configuration is wrong, or it could not start or go on.\n"
      ".TP\n.B 2\nThe command line is wrong.\n"
      ".SH FILES\n.TP\n.I /run/shmqd/control\nthe socket that clients connect to\n"
      ".TP\n.I $XDG_RUNTIME_DIR/shmqd/control\na user's\n"
      ".SH EXAMPLES\nA daemon of one's own, and its use:\n.PP\n.nf\n"
      "shmqd \\-\\-dir /tmp/own \\-\\-set dir:src.path=/usr/include \\-\\-set log:audit.path=/tmp/own/audit &\n"
      "export SHMQD_SOCKET=/tmp/own/control\n"
      "shmq ask src get stdio.h\necho hello | shmq ask audit append\nshmq ask audit read 1\n.fi\n"
      ".SH SEE ALSO\n.BR shmqd.conf (5),\n.BR shmq (1)\n",
      to);
}

static void manual_config(FILE *to) {
  fputs(
      ".\\\" Printed by 'shmqd --manual 5' from the table of parameters.\n"
      ".TH SHMQD.CONF 5 \"\" \"shmq " SHMQ_VERSION "\" \"File Formats\"\n"
      ".SH NAME\nshmqd.conf \\- configuration of shmqd\n"
      ".SH DESCRIPTION\nSections in brackets and lines of\n.IR \"key = value\" ;\n"
      "a line that begins with # or ; is a comment, and so is what follows a blank and a ;.\n"
      "A line of a file has at most 198 characters. Numbers of bytes may end in K, M or G (of 1024), durations in\n"
      "ns, us, ms, s, m or h; without a unit they are seconds. A mistake anywhere is refused with its file and line.\n"
      ".PP\nA later source overrides an earlier one, setting by setting:\n"
      "what is built in,\n.IR /usr/lib/shmq/shmqd.conf ,\n.IR /etc/shmq/shmqd.conf ,\n"
      ".I /etc/shmq/conf.d/*.conf\nin the order of their names,\nthe environment\n"
      ".RB ( SHMQD_DAEMON_KEY\nfor sections without a name), and\n.BR \\-\\-set .\n"
      "A user's daemon reads\n.I $XDG_CONFIG_HOME/shmq\n(by default\n.IR ~/.config/shmq )\n"
      "in place of the system's directories.\n.B shmqd \\-\\-show\\-config\nprints what came of it.\n"
      ".SH SECTIONS\n",
      to);
  config_manual(section_kinds, to);
  fputs(".SH EXAMPLES\n.nf\n[daemon]\naccess = all\n\n"
        "[dir:src]\npath = /usr/include\nallow = all r\n\n"
        "[log:audit]\npath = /var/lib/shmq/audit\nallow = gid:adm r, uid:1000 rw\n.fi\n"
        ".SH SEE ALSO\n.BR shmqd (8),\n.BR shmq (1)\n",
        to);
}

/* ---- parsing ---- */

static int complain(const char *what, const char *text) {
  fprintf(stderr, "shmqd: %s '%s'\nTry 'shmqd --help'.\n", what, text);
  return -1;
}

static int print_manual(const char *section) {
  if (strcmp(section, "8") == 0)
    manual_daemon(stdout);
  else if (strcmp(section, "5") == 0)
    manual_config(stdout);
  else
    return complain("--manual: there is no section", section);
  return 1;
}

static int parse_descriptor(int *fd, const char *text) {
  char *end;
  long n = strtol(text, &end, 10);
  *fd = (int)n;
  return *end || end == text || n < 0 || n > INT32_MAX ? complain("--ready-fd: no descriptor", text)
                                                       : 0;
}

static int take(struct arguments *a, int option) {
  switch (option) {
  case 'c': a->config = optarg; return 0;
  case 'd': a->directory = optarg; return 0;
  case 's': a->settings[a->setting_count++] = optarg; return 0;
  case 'v': a->verbose = true; return 0;
  case 'q': a->quiet = true; return 0;
  case SYSTEM: a->system = true; return 0;
  case CHECK: a->check = true; return 0;
  case SHOW: a->show = true; return 0;
  case READY: return parse_descriptor(&a->ready_fd, optarg);
  case MANUAL: return print_manual(optarg);
  case VERSION: puts("shmqd " SHMQ_VERSION); return 1;
  case HELP: help(stdout); return 1;
  default: fprintf(stderr, "Try 'shmqd --help'.\n"); return -1;
  }
}

int arguments_parse(struct arguments *a, int argc, char **argv) {
  struct option table[OPTIONS + 1] = {{0}};
  char letters[3 * OPTIONS] = "";
  for (int i = 0; i < OPTIONS; i++) {
    table[i] =
        (struct option){options[i].name, options[i].argument != NULL, NULL, options[i].value};
    if (options[i].value >= CHECK) continue;
    size_t n = strlen(letters);
    snprintf(letters + n, sizeof letters - n, "%c%s", options[i].value,
             options[i].argument ? ":" : "");
  }
  *a = (struct arguments){.settings = calloc((size_t)argc, sizeof *a->settings),
                          .system = geteuid() == 0,
                          .ready_fd = -1};
  if (!a->settings) return -1;
  for (int o; (o = getopt_long(argc, argv, letters, table, NULL)) != -1;) {
    int rc = take(a, o);
    if (rc) return rc;
  }
  return optind == argc ? 0 : complain("unexpected argument", argv[optind]);
}

void arguments_free(struct arguments *a) { free(a->settings); }
