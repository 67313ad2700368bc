/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of parameters as readers see it: values with their sources, the help, the manual page.
 */
#include <string.h>

#include "config.h"

/* ---- values ---- */

static void show_section(const struct section *s, FILE *to) {
  fprintf(to, "[%s%s%s]\n", s->kind->name, *s->name ? ":" : "", s->name);
  for (unsigned i = 0; i < s->count; i++)
    /* No wider than it may have been read: lines have a limit. */
    fprintf(to, "%s=%s\n# from %s\n", s->settings[i].param->key, s->settings[i].text,
            s->settings[i].source);
  fputc('\n', to);
}

void config_show(const struct config *config, FILE *to) {
  for (const struct section *s = config->sections; s; s = s->next) show_section(s, to);
}

/* ---- the help ---- */

static const char *const type_names[] = {
    [PARAM_TEXT] = "text",   [PARAM_PATH] = "path",         [PARAM_COUNT] = "number",
    [PARAM_BYTES] = "bytes", [PARAM_DURATION] = "duration", [PARAM_FLAG] = "yes|no",
    [PARAM_CHOICE] = "",     [PARAM_RIGHTS] = "rights"};

static void help_param(const struct param *p, FILE *to) {
  fprintf(to, "  %-16s %s%s", p->key, type_names[p->type], p->choices ? p->choices : "");
  fprintf(to, p->fallback ? ", default %s\n" : ", required%s\n", p->fallback ? p->fallback : "");
  fprintf(to, "                   %s\n", p->help);
}

void config_help(const struct section_kind *const *kinds, FILE *to) {
  for (const struct section_kind *const *k = kinds; *k; k++) {
    fprintf(to, "[%s%s]\n", (*k)->name, (*k)->named ? ":NAME" : "");
    for (const struct param *p = (*k)->params; p->key; p++) help_param(p, to);
  }
}

/* ---- the manual page ---- */

/* As troff reads it: backslashes and dashes escaped, no line that starts with a control character. */
void print_troff(const char *text, FILE *to) {
  bool line_start = true;
  for (; *text; line_start = *text++ == '\n') {
    if (line_start && (*text == '.' || *text == '\'')) fputs("\\&", to);
    if (*text == '\\')
      fputs("\\e", to);
    else if (*text == '-')
      fputs("\\-", to);
    else
      fputc(*text, to);
  }
}

/* The largest unit that divides it. */
static void print_amount(enum param_type type, int64_t value, FILE *to) {
  static const struct {
    int64_t scale;
    const char *name;
  } bytes[] = {{1 << 30, "G"}, {1 << 20, "M"}, {1 << 10, "K"}, {1, ""}},
    times[] = {{3600000000000, "h"}, {60000000000, "m"}, {1000000000, "s"},
               {1000000, "ms"},      {1000, "us"},       {1, "ns"}};
  int i = 0;
  if (type == PARAM_BYTES) {
    while (value % bytes[i].scale) i++;
    fprintf(to, "%lld%s", (long long)(value / bytes[i].scale), value ? bytes[i].name : "");
  } else if (type == PARAM_DURATION) {
    while (value % times[i].scale) i++;
    fprintf(to, "%lld%s", (long long)(value / times[i].scale), value ? times[i].name : "s");
  } else {
    fprintf(to, "%lld", (long long)value);
  }
}

static void manual_range(const struct param *p, FILE *to) {
  const bool endless = p->max >= INT64_MAX / 4; /* sums of such are still numbers */
  if (p->type != PARAM_COUNT && p->type != PARAM_BYTES && p->type != PARAM_DURATION) return;
  fputs(endless ? ", at least " : ", ", to);
  print_amount(p->type, p->min, to);
  if (endless) return;
  fputs(" to ", to);
  print_amount(p->type, p->max, to);
}

static void manual_param(const struct param *p, FILE *to) {
  fprintf(to, ".TP\n.BR %s \" = ", p->key);
  fprintf(to, "%s%s\"\n", type_names[p->type], p->choices ? p->choices : "");
  print_troff(p->help, to);
  fputs(".\n", to);
  if (!p->fallback)
    fputs("Must be given", to);
  else if (*p->fallback) {
    fputs("Default ", to);
    print_troff(p->fallback, to);
  } else
    fputs("Default: nothing", to);
  manual_range(p, to);
  fprintf(to, p->change == PARAM_LIVE ? "; a reload may change it.\n" : ".\n");
}

void config_manual(const struct section_kind *const *kinds, FILE *to) {
  for (const struct section_kind *const *k = kinds; *k; k++) {
    fprintf(to, ".SS [%s%s]\n", (*k)->name, (*k)->named ? ":NAME" : "");
    print_troff((*k)->help, to);
    fprintf(to, ".\n%s", (*k)->addable ? "A reload may bring new ones.\n" : "");
    for (const struct param *p = (*k)->params; p->key; p++) manual_param(p, to);
  }
}
