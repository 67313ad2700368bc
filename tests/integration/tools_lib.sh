# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034 # what is set here is used by the scripts that source it
# What the tests of the program shmq share. Sourced; SHMQ_BUILD_DIR says which program.
set -u

shmq=${SHMQ_BUILD_DIR:?}/tools/shmq
q=t-tools-$$ # every segment of a test is called this or begins with it
dir=$(mktemp -d)
failures=0
checks=0

cleanup() {
  local name
  [ "$BASHPID" = $$ ] || return # a child that was killed before it became a command
  for name in /dev/shm/shmq."$q"*; do
    if [ -e "$name" ]; then "$shmq" rm "${name#/dev/shm/shmq.}"; fi
  done
  rm -rf "$dir"
}
trap cleanup EXIT

report() { # report TEXT: a check failed
  failures=$((failures + 1))
  printf 'FAILED at line %s: %s\n' "${BASH_LINENO[1]}" "$1"
  if [ -s "$dir/out" ]; then head -c 600 "$dir/out" | sed 's/^/  out: /'; echo; fi
  if [ -s "$dir/err" ]; then head -c 2000 "$dir/err" | sed 's/^/  err: /'; echo; fi
}

expect() { # expect STATUS COMMAND...: run it; its output is in $dir/out and $dir/err
  local want=$1 got
  shift
  checks=$((checks + 1))
  "$@" >"$dir/out" 2>"$dir/err"
  got=$?
  if [ "$got" -ne "$want" ]; then report "status $got instead of $want: $*"; fi
}

prints() { # prints TEXT: that was the whole output of the last command, but for the last newline
  checks=$((checks + 1))
  if [ "$(cat "$dir/out")" != "$1" ]; then report "the output is not '$1'"; fi
}

says() { # says TEXT: the last command's complaint is one line and holds it
  checks=$((checks + 1))
  if ! grep -qF -- "$1" "$dir/err"; then report "the complaint does not say '$1'"; fi
  if [ "$(wc -l <"$dir/err")" -ne 1 ]; then report "the complaint is not one line"; fi
}

json() { # json FILTER WANTED: jq's answer on the last output
  checks=$((checks + 1))
  local got
  got=$(jq -rc "$1" "$dir/out" 2>&1)
  if [ "$got" != "$2" ]; then report "$1 is '$got' instead of '$2'"; fi
}

same() { # same WANTED GOT WHAT
  checks=$((checks + 1))
  if [ "$1" != "$2" ]; then report "$3: '$2' instead of '$1'"; fi
}

until_true() { # until_true COMMAND...: within thirty seconds
  local end=$((SECONDS + 30))
  while [ $SECONDS -lt $end ]; do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.02
  done
  report "never became true: $*"
  return 1
}

finish() {
  echo "$checks checks, $failures failed"
  [ "$failures" -eq 0 ]
  exit
}
