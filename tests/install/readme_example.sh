#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The README's C programs compile as shown and work together. A block belongs to the file that its info
# string names: ```c producer.c. Blocks of one name are parts of one file. A file without main is only
# compiled. Where producer.c and consumer.c exist, they run side by side and both must end well.
#
#   readme_example.sh [README.md]
set -eu
source=${SHMQ_SOURCE_DIR:?}
build=${SHMQ_BUILD_DIR:?}
readme=${1:-$source/README.md}
work=$build/tests/install/readme
rm -rf "$work"
mkdir -p "$work"

awk -v work="$work" '
  /^```c[ \t]/ { n++; file = work "/" ($2 ~ /^[A-Za-z0-9_.-]+\.c$/ ? $2 : "block" n ".c"); next }
  /^```c[ \t]*$/ { n++; file = work "/block" n ".c"; next }
  /^```/ { file = ""; next }
  file { print > file }' "$readme"
files=$(cd "$work" && ls -- *.c 2>/dev/null) || { echo "no C block in $readme"; exit 1; }

flags="-std=c11 -Wall -Wextra -Wpedantic -Werror -I$source/libshmq/include"
[ -z "${SHMQ_SANITIZE:-}" ] || flags="$flags -fsanitize=$SHMQ_SANITIZE"
libraries="-L$build/libshmq -lshmq -Wl,-rpath,$build/libshmq"
for file in $files; do
  if grep -qE '\<main *\(' "$work/$file"; then
    "${CC:-cc}" $flags "$work/$file" -o "$work/${file%.c}" $libraries
    echo "built $file, $(wc -l <"$work/$file") lines"
  else
    "${CC:-cc}" $flags -c "$work/$file" -o "$work/${file%.c}.o"
    echo "compiled $file"
  fi
done
[ -x "$work/producer" ] && [ -x "$work/consumer" ] || { echo "no producer.c and consumer.c in $readme"; exit 1; }

# Whichever the README shows first is started first; the other once there is a segment to open.
first=$(grep -oE '^```c +(producer|consumer)\.c' "$readme" | head -n 1 | grep -oE '(producer|consumer)')
second=$([ "$first" = producer ] && echo consumer || echo producer)

# In a /dev/shm of their own, so that no queue of the user's is touched and none is left.
cat >"$work/run.sh" <<'RUN'
first=$1 second=$2
mount -t tmpfs tmpfs /dev/shm || exit 77
timeout 30 ./$first >$first.out 2>&1 &
for _ in $(seq 300); do
  if ls /dev/shm/shmq.* >/dev/null 2>&1; then break; fi
  sleep 0.1
done
timeout 30 ./$second >$second.out 2>&1 && second_status=0 || second_status=$?
wait $! && first_status=0 || first_status=$?
echo "$first: exit $first_status; $second: exit $second_status"
[ $first_status -eq 0 ] && [ $second_status -eq 0 ] && [ -s consumer.out ] && exit 0
tail -n 20 producer.out consumer.out
exit 1
RUN
cd "$work"
private="unshare --mount"
[ "$(id -u)" -eq 0 ] || private="$private --map-root-user"
$private true 2>/dev/null || { echo "skipped: built, but no mount namespace to run them in"; exit 77; }
exec $private sh ./run.sh "$first" "$second"
