#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whatever a user gets wrong: a clear complaint in one line, the right exit status, nothing lost.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

long=$(printf 'x%.0s' $(seq 300))

# ---- names ----
for name in '' . .hidden / a/b/c a/ /a "$long" "$q/$long"; do
  for command in put get info peek tail shutdown reopen wait requeue; do
    expect 2 "$shmq" "$command" -- "$name"
  done
done
for name in "$q/a" "$q/" "" "$long" .x; do
  for command in create rm doctor top; do
    expect 2 "$shmq" "$command" -- "$name"
  done
done
expect 2 "$shmq" create "$long"
says '300 bytes; at most 200'
expect 2 "$shmq" create "$q/a"
says slash

# ---- nothing there ----
for command in put get info peek tail shutdown reopen wait requeue rm doctor top; do
  expect 3 "$shmq" "$command" "$q-absent"
done
says "$q-absent"
expect 3 "$shmq" evict "$q-absent" 1
expect 3 "$shmq" work "$q-absent" -- true
expect 0 "$shmq" create "$q"
expect 3 "$shmq" get "$q/absent"

# ---- numbers, sizes, modes, durations, words ----
wrong() { expect 2 "$shmq" "$@"; says "'shmq $1 --help'"; }
for value in '' 0 1 -1 +5 0x10 1e3 ' 5' 5x 67108865 18446744073709551616 99999999999999999999999; do
  wrong create "$q-n" --capacity "$value"
done
for value in '' 0 -1 4194304 4M 1T 1.5K KK 18446744073709551615K 17592186044416M; do
  wrong create "$q-n" --message-size "$value"
done
for value in '' 888 1000 07777 rw 0 0060 0xff; do wrong create "$q-n" --mode "$value"; done
for value in 0 1024 x; do wrong create "$q-n" --participants "$value"; done
for value in 0 9 x; do wrong create "$q-n" --priorities "$value"; done
for value in 0 63 x; do wrong create "$q-n" --max-attempts "$value"; done
for value in '' 0 -1 x 1w 1..2 . s 1e99 "$(printf '9%.0s' $(seq 6000))" inf nan; do
  wrong create "$q-n" --ttl "$value"
done
for value in -1 x 5y ''; do wrong get "$q" --timeout "$value"; done
for value in '' BLOCK drop; do wrong create "$q-n" --when-full "$value"; done
for value in -1 4294967296; do wrong create "$q-n" --blocks "$value"; done
for value in 0 2049M 9999G; do wrong create "$q-n" --blocks 1 --block-size "$value"; done
wrong create "$q-n" --block-size 64K
for value in '' ':capacity=4' a:b a:capacity a:capacity=1 a:capacity=x a:timed=1 a/b "$long" main \
  a:dead-letter=b a:max-attempts=1,dead-letter=a 'a:,' a:mode=0600; do
  wrong create "$q-n" --queue "$value"
done
wrong create "$q-n" --queue a --queue a
wrong create "$q-n" --single-consumer --when-full drop-oldest
wrong create "$q-n" --max-attempts 3 --queue dead:message-size=64
wrong create "$q-n" --max-attempts 3 --queue dead:single-producer
for value in -1 x '' 9223372036854775808; do wrong get "$q" -n "$value"; done
for value in '\q' '\x' '\x4' '\xgg' '\'; do wrong get "$q" -D "$value"; done
for value in 8 -1 x; do wrong put "$q" m --priority "$value"; done
for value in 0 1024 x ''; do wrong work "$q" -j "$value" -- true; done
for value in 0 -1 1024 x ''; do wrong evict "$q" -- "$value"; done
for value in 0 1ms x; do wrong top -i "$value"; done
wrong create
wrong create a b
wrong put "$q" a b
wrong put "$q" message -f /dev/null
wrong put "$q" message -D x
wrong put "$q" - -f /dev/null
wrong work "$q"
wrong get "$q" --timeout
wrong get "$q" --json=yes
expect 3 "$shmq" info "$q-n"
expect 3 "$shmq" work "$q" -- no-such-command-anywhere
expect 4 "$shmq" work "$q" -- /etc/passwd
expect 2 "$shmq" work "$q" --max-attempts 3 -- true
expect 2 "$shmq" work "$q" --retry-delay 1s -- true

# ---- messages ----
expect 0 "$shmq" put "$q" "$(printf 'x%.0s' $(seq 1024))"
expect 1 "$shmq" put "$q" "$(printf 'x%.0s' $(seq 1025))"
head -c 100000000 /dev/zero | expect 1 "$shmq" put "$q" -D '\n' # one line of 100 MB
printf 'good\n%2000s\nlost\n' x >"$dir/lines"
expect 1 "$shmq" put "$q" -D '\n' -f "$dir/lines"
grep -q '1 messages were put before' "$dir/err" || report "how far put came is not told"
expect 0 "$shmq" get "$q" -n 2 -D '' # what was put is there, whole
same 1028 "$(wc -c <"$dir/out")" "bytes of the two good messages"
expect 5 "$shmq" get "$q" --timeout 0
expect 1 "$shmq" put "$q" -f / # reading a directory fails
head -c 1000 /dev/urandom >"$dir/binary"
expect 0 "$shmq" put "$q" -f "$dir/binary"
expect 0 "$shmq" get "$q" -D ''
cmp -s "$dir/binary" "$dir/out" || report "bytes came back changed"

# Standard descriptors that are closed are not mistaken for the segment's.
expect 0 "$shmq" put "$q" kept
expect 1 bash -c "'$shmq' get '$q' >&-"
expect 1 bash -c "'$shmq' put '$q' - <&-"
"$shmq" info "$q" 2>&- >/dev/null || report "without standard error"
expect 0 "$shmq" get "$q" -e
prints kept

# ---- no room ----
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
  # shellcheck disable=SC2016 # the inner shell expands it
  unshare -m bash -c '
    mount -t tmpfs -o size=1m shmq-test /dev/shm || exit 77
    "$1" create big --capacity 65536; echo "status $?"
    "$1" create fits --capacity 64 && "$1" put fits x && "$1" get fits
    echo "left $(ls /dev/shm)"' - "$shmq" >"$dir/out" 2>"$dir/err"
  grep -q 'status 1' "$dir/out" || report "a full /dev/shm: another status"
  needed=$(sed -n 's/.*: \([0-9]*\) bytes needed, \([0-9]*\) free.*/\1 \2/p' "$dir/err")
  read -r needed free <<<"${needed:-0 0}"
  if [ "$needed" -lt 67108864 ] || [ "$free" -lt 1000000 ] || [ "$free" -gt 1048576 ]; then
    report "a full /dev/shm: needed '$needed', free '$free'"
  fi
  grep -qx 'left shmq.fits' "$dir/out" || report "a failed create left something"
else
  echo "skipped: no mount namespace"
fi
expect 0 "$shmq" create "$q-slots" --participants 1
"$shmq" get "$q-slots" >/dev/null &
holder=$!
joined() { "$shmq" info "$q-slots" --json | jq -e '.participants[0]'; }
until_true joined
expect 1 "$shmq" put "$q-slots" x
says '1 slot needed, 0 free'
expect 0 "$shmq" info "$q-slots" # looking needs no slot
kill $holder
wait $holder

# ---- no permission ----
if [ "$(id -u)" = 0 ]; then
  as_other() { setpriv --reuid=65534 --regid=65534 --clear-groups "$shmq" "$@"; }
  install -m 755 "$shmq" "$dir/shmq" && chmod 755 "$dir"
  as_other --version >/dev/null 2>&1 ||
    as_other() { setpriv --reuid=65534 --regid=65534 --clear-groups "$dir/shmq" "$@"; }
  if as_other --version >/dev/null 2>&1; then
    for command in put get info peek tail shutdown wait rm doctor; do
      expect 4 as_other $command "$q"
    done
    expect 0 as_other ls
    grep -q "^$q .*no permission" "$dir/out" || report "ls does not say that it may not look"
    expect 0 "$shmq" create "$q-open" --mode 0666
    expect 0 as_other put "$q-open" x
    expect 0 as_other get "$q-open"
    expect 0 "$shmq" create "$q-read" --mode 0644
    expect 0 as_other info "$q-read"
    expect 4 as_other put "$q-read" x
  else
    echo "skipped: another user cannot run the program where it stands"
  fi
fi

# ---- damage ----
file=/dev/shm/shmq.$q-bad
fresh() {
  "$shmq" rm -f "$q-bad"
  "$shmq" create "$q-bad" --capacity 16 --message-size 64 && "$shmq" put "$q-bad" x
}
fails_as() { # fails_as STATUS: every command says so, and ls lists it
  local command
  for command in put get info peek tail shutdown wait top requeue; do
    expect "$1" timeout 20 "$shmq" $command "$q-bad"
  done
  expect "$1" "$shmq" doctor "$q-bad"
  expect "$1" "$shmq" work "$q-bad" -- true
  expect 0 "$shmq" ls
  grep -q "^$q-bad .*$2" "$dir/out" || report "ls does not say '$2'"
}
fresh
size=$(stat -c %s "$file")
truncate -s 100 "$file" && fails_as 7 damaged
fresh
truncate -s $((size - 4096)) "$file" && fails_as 7 damaged
fresh
truncate -s $((size + 4096)) "$file" && fails_as 7 damaged
fresh
head -c 64 /dev/urandom | dd of="$file" bs=1 seek=16 conv=notrunc status=none && fails_as 7 damaged
fresh
printf '\377\377' | dd of="$file" bs=1 seek=8 conv=notrunc status=none && fails_as 8 'other version'
fresh
head -c "$size" /dev/zero >"$file" && fails_as 7 damaged
expect 0 "$shmq" create "$q-bad" # what never became a segment is taken over
fresh
: >"$file" && fails_as 3 unfinished
expect 0 "$shmq" create "$q-bad" # a creator that died is taken over
expect 0 "$shmq" put "$q-bad" x

finish
