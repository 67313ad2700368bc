/* SPDX-License-Identifier: Apache-2.0
 *
 * shmq topo: the machine, and which CPUs a text of places means on it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <shmq/pin.h>

#include "base/json.h"
#include "base/report.h"
#include "base/table.h"
#include "command.h"

static struct {
  bool json;
  uint64_t members;
} options;

static const struct flag flags[] = {
    NUMBER_FLAG("members", 'n', &options.members, "N", 1, 1000000,
                "show the places of a pool of N (default: each place once)"),
    JSON_FLAG(&options.json),
    END_OF_FLAGS,
};

/* ---- the tree ---- */

static const struct column tree_columns[] = {
    {.title = "OBJECTS"},
    {.title = "CPUS", .cut = true},
};

/* Objects inside each other that have the same CPUs share a line, as in "l2:0 core:0 pu:0". */
struct tree {
  struct table *table;
  struct json json;
  char names[512]; /* of the line being gathered, indented; empty: none yet */
  char cpus[sizeof((shmq_pin_object *)NULL)->list];
  uint32_t depth;     /* of the first object on the line */
  uint32_t lines[64]; /* depth of the line at each indentation */
  size_t indent;
};

static void end_line(struct tree *tree) {
  if (tree->names[0] != '\0') {
    table_row(tree->table);
    table_cell(tree->table, "%s", tree->names);
    table_cell(tree->table, "%s", tree->cpus);
  }
}

static void add_name(struct tree *tree, const shmq_pin_object *object) {
  size_t used = strlen(tree->names);
  char size[16];
  snprintf(tree->names + used, sizeof tree->names - used, "%s%s", object->name,
           object->bytes > 0 ? "" : " ");
  if (object->bytes > 0) {
    used = strlen(tree->names);
    snprintf(tree->names + used, sizeof tree->names - used, " (%s) ",
             human_bytes(object->bytes, size));
  }
}

static void start_line(struct tree *tree, const shmq_pin_object *object) {
  while (tree->indent > 0 && tree->lines[tree->indent - 1] >= object->depth) {
    tree->indent--;
  }
  snprintf(tree->names, sizeof tree->names, "%*s", (int)(2 * tree->indent), "");
  snprintf(tree->cpus, sizeof tree->cpus, "%s", object->list);
  tree->depth = object->depth;
  if (tree->indent + 1 < sizeof tree->lines / sizeof *tree->lines) {
    tree->lines[tree->indent++] = object->depth;
  }
}

static int show_object(const shmq_pin_object *object, void *context) {
  struct tree *tree = context;
  bool same = tree->names[0] != '\0' && object->depth > tree->depth &&
              strcmp(object->list, tree->cpus) == 0;
  if (!same) {
    end_line(tree);
    start_line(tree, object);
  }
  add_name(tree, object);
  return 0;
}

static int json_object(const shmq_pin_object *object, void *context) {
  struct json *json = context;
  json_open(json, NULL, '{');
  json_text(json, "name", object->name);
  json_number(json, "depth", object->depth);
  json_integer(json, "os_index", object->os_index);
  json_number(json, "bytes", object->bytes);
  json_number(json, "cpus", object->cpus);
  json_text(json, "list", object->list);
  json_close(json, '}');
  return 0;
}

static void show_tree(shmq_pin *pin) {
  struct tree tree = {.table = table_new(tree_columns, 2)};
  shmq_pin_walk(pin, show_object, &tree);
  end_line(&tree);
  table_print(tree.table);
}

/* ---- places ---- */

static const struct column place_columns[] = {
    {.title = "PLACE", .right = true}, {.title = "CPUS"},   {.title = "NODE", .right = true},
    {.title = "WHERE", .cut = true},   {.title = "SHARED"},
};

static void place_row(struct table *table, uint64_t number, const shmq_bound *place) {
  table_row(table);
  table_cell(table, "%llu", (unsigned long long)number);
  table_cell(table, "%s", place->list);
  table_cell(table, place->node >= 0 ? "%d" : "-", place->node);
  table_cell(table, "%s", place->where);
  table_cell(table, "%s", place->shared ? "yes" : "no");
}

static void json_place(struct json *json, uint64_t number, const shmq_bound *place) {
  json_open(json, NULL, '{');
  json_number(json, "place", number);
  json_integer(json, "cpu", place->cpu);
  json_number(json, "cpus", place->cpus);
  json_text(json, "list", place->list);
  json_integer(json, "node", place->node);
  json_text(json, "where", place->where);
  json_bool(json, "shared", place->shared != 0);
  json_close(json, '}');
}

/* The places of a text, or of as many members as were asked for. Returns a negative errno. */
static int show_places(shmq_pin *pin, const char *places, struct json *json) {
  struct table *table = table_new(place_columns, sizeof place_columns / sizeof *place_columns);
  int count = shmq_pin_count(pin, places);
  uint64_t members = options.members > 0 ? options.members : count > 0 ? (uint64_t)count : 1;
  int rc = count < 0 ? count : 0;
  for (uint64_t i = 0; rc == 0 && i < members; i++) {
    shmq_bound place;
    rc = shmq_pin_place(pin, places, (unsigned)i, &place);
    if (rc == 0 && options.json) {
      json_place(json, i, &place);
    } else if (rc == 0) {
      place_row(table, i, &place);
    }
  }
  table_print(table);
  return rc;
}

/* ---- the command ---- */

static int fail_places(shmq_pin *pin, int error) {
  complain("%s", shmq_pin_error(pin));
  return error == -ENOSPC ? STATUS_FAILED : status_of(error);
}

static int show_json(shmq_pin *pin, const char *places) {
  struct json json = {.out = stdout};
  int rc = *places != '\0' ? shmq_pin_count(pin, places) : 0;
  if (rc < 0) {
    return fail_places(pin, rc);
  }
  json_open(&json, NULL, '{');
  json_bool(&json, "real", shmq_pin_is_real(pin) != 0);
  json_open(&json, *places != '\0' ? "places" : "objects", '[');
  if (*places != '\0') {
    rc = show_places(pin, places, &json);
  } else {
    rc = shmq_pin_walk(pin, json_object, &json);
  }
  json_close(&json, ']');
  json_close(&json, '}');
  json_end(&json);
  return rc < 0 ? fail_places(pin, rc) : STATUS_OK;
}

static int show_text(shmq_pin *pin, const char *places) {
  int rc = 0;
  if (*places != '\0') {
    rc = show_places(pin, places, NULL);
  } else {
    show_tree(pin);
  }
  if (rc < 0) {
    return fail_places(pin, rc);
  }
  if (!shmq_pin_is_real(pin)) {
    complain("this is a described machine (HWLOC_SYNTHETIC or the like), not the one at hand: "
             "nothing can be bound to it");
  }
  return STATUS_OK;
}

/* One text of all arguments. Returns false when it is too long. */
static bool join(int count, char **arguments, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int i = 0; i < count; i++) {
    used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? " " : "", arguments[i]);
    if (used >= size) {
      return false;
    }
  }
  return true;
}

static int run(int count, char **arguments) {
  char places[SHMQ_PLACES_MAX + 1];
  if (!join(count, arguments, places, sizeof places)) {
    return usage("the places are longer than %d bytes", SHMQ_PLACES_MAX);
  }
  if (count > 0 && places[strspn(places, " ")] == '\0') {
    return usage("no place is named");
  }
  if (count == 0 && options.members > 0) {
    return usage("--members needs places");
  }
  shmq_pin *pin;
  int rc = shmq_pin_open(&pin);
  if (rc < 0) {
    complain("the topology: %s", rc == -EINVAL
                                     ? "HWLOC_SYNTHETIC or HWLOC_XMLFILE cannot be understood"
                                     : shmq_strerror(rc));
    return STATUS_FAILED;
  }
  int status = options.json ? show_json(pin, places) : show_text(pin, places);
  shmq_pin_close(pin);
  return status;
}

const struct command topo_command = {
    .name = "topo",
    .arguments = "[PLACES]",
    .summary = "Show the machine, or which CPUs places mean on it",
    .details =
        "Without PLACES: the tree of what this process may use, each object by the name that says "
        "it as a place. Objects with the same CPUs share a line; CPUs are the system's numbers.\n"
        "\n"
        "With PLACES, the places that a pool would use, in order: core:0, pu:3, l3:1.core:0-2, "
        "package:1.core:all, numa:0, a CPU set 0x3, all, spread (as far apart as possible), "
        "compact (neighbouring cores), pair:l2, pair:l3 (two and two that share a cache), none. "
        "Several are separated by blanks; ~ before one takes its CPUs out, x keeps only them, "
        "^ does both ways. Indexes count from 0 what this process may use.",
    .examples = "  shmq topo\n"
                "  shmq topo spread\n"
                "  shmq topo -n 4 core:all '~core:0'\n"
                "  taskset -c 1 shmq topo all --json",
    .flags = flags,
    .most = -1,
    .run = run,
};
