#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The commands that the README and shmqd(8) show do what they say, and the configuration that shmqd.conf(5) shows is one.
# In namespaces of their own: no queue of the user's is touched, and what they start ends with them.
set -u
if [ "${1-}" != --inside ]; then
  private="unshare --mount --pid --mount-proc --fork --kill-child"
  [ "$(id -u)" -eq 0 ] || private="$private --map-root-user"
  $private true 2>/dev/null || { echo "skipped: no namespaces"; exit 77; }
  exec $private "$0" --inside
fi

mount -t tmpfs tmpfs /dev/shm || exit 77
own=$(mktemp -d)
trap 'rm -rf "$own"' EXIT
export PATH=$SHMQ_BUILD_DIR/tools:$SHMQ_BUILD_DIR/daemon:$PATH
failed=0

# Every line must succeed, also one that is only the beginning of a pipe. A daemon needs a moment to be there, and goes
# with its shell, for whoever reads what is printed reads to the end.
run() { # run NAME < COMMANDS > what they print
  {
    echo 'trap "kill \$(jobs -p) 2>/dev/null || true; wait" EXIT'
    sed -e "s,/tmp/own,$own/own,g" -e "/&\$/a until SHMQD_SOCKET=$own/own/control shmq ask daemon status; do sleep 0.05; done >/dev/null 2>&1"
  } >"$own/script"
  timeout 300 bash -e -o pipefail "$own/script" || { echo "$1: exit status $?" >&2; return 1; }
}
# expect NAME TEXT PATTERN
expect() { grep -qE "$3" <<<"$2" || { printf '%s: no "%s" in:\n%s\n' "$1" "$3" "$2"; failed=1; }; }

shell_block() { # shell_block PATTERN: the README's block that holds it
  awk -v pattern="$1" '/^```sh$/ { inside = 1; block = ""; next }
    /^```$/ { if (inside && block ~ pattern) printf "%s", block; inside = 0; next }
    inside { block = block $0 "\n" }' "$SHMQ_SOURCE_DIR/README.md"
}
example() { # example SECTION: of shmqd's manual
  shmqd --manual "$1" | sed -n '/^\.SH EXAMPLES/,/^\.fi/p' | sed -e '1,/^\.nf/d' -e '/^\.fi/d' -e 's/\\-/-/g'
}

printed=$(shell_block 'shmq create' | run README) || failed=1
expect README "$printed" '^job 1000$'
expect README "$printed" '^ +depth +0$'

printed=$(shell_block 'shmqd --dir' | run README) || failed=1
expect README "$printed" 'stdio'
expect README "$printed" '^hello$'
rm -rf "$own/own"

printed=$(example 8 | run 'shmqd(8)') || failed=1
expect 'shmqd(8)' "$printed" 'stdio'
expect 'shmqd(8)' "$printed" '^hello$'

example 5 >"$own/shmqd.conf"
shmqd --check --config "$own/shmqd.conf" || { echo "shmqd.conf(5): the example is refused"; failed=1; }
exit $failed
