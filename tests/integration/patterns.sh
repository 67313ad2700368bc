#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# docs/patterns.md: each shell example prints what stands below it, each piece of C stands in an example.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

source_dir=${SHMQ_SOURCE_DIR:-$(dirname "$0")/../..}
PATH=$SHMQ_BUILD_DIR/tools:$SHMQ_BUILD_DIR/services/sqlite:$SHMQ_BUILD_DIR/examples:$PATH

is_built() { # is_built FILE: everything that the example calls
  local program
  for program in shmq-sqlite lru parked pipeline deferred; do
    if grep -qE "^$program " "$1" && ! command -v "$program" >/dev/null; then return 1; fi
  done
}

# One file for each block, in order: NUMBER.sh, NUMBER.text, NUMBER.c
awk -v folder="$dir" '/^```[a-z]+$/ { kind = substr($0, 4); file = sprintf("%s/%03d.%s", folder, ++n, kind); next }
  /^```$/ { kind = ""; next }
  kind != "" { print > file }' "$source_dir/docs/patterns.md"
examples=0
for file in "$dir"/[0-9]*.sh; do
  number=$(basename "$file" .sh)
  text=$dir/$(printf %03d $((10#$number + 1))).text
  if ! is_built "$file"; then continue; fi
  mkdir "$dir/run.$number"
  sed -i "s/demo\./$q./g" "$file" # others may run these at the same time
  (cd "$dir/run.$number" && timeout 100 bash "$file") >"$dir/out" 2>"$dir/err"
  same 0 $? "the status of example $number"
  cmp "$text" "$dir/out" || report "example $number printed something else: $(head -n 1 "$file")"
  examples=$((examples + 1))
done
if [ $examples -lt 9 ]; then report "only $examples examples"; fi

shmqd=$SHMQ_BUILD_DIR/daemon/shmqd
for file in "$dir"/[0-9]*.ini; do
  if [ -x "$shmqd" ]; then expect 0 "$shmqd" --check --config "$file"; fi
done

all=$(cat "$source_dir"/examples/*.c)
for file in "$dir"/[0-9]*.c; do
  checks=$((checks + 1))
  if [[ $all != *"$(cat "$file")"* ]]; then report "not in any example: $(head -n 1 "$file")"; fi
done

finish
