#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A library exports every call that its public headers declare and nothing else, needs no library that it
# should not, and calls nothing that prints, exits or takes signals.
#
#   exports.sh LIBSHMQ.SO        all headers but pin.h; libc alone
#   exports.sh LIBSHMQ-PIN.SO    pin.h; libc, libshmq, libhwloc
set -eu
library=$1
headers=${SHMQ_SOURCE_DIR:?}/libshmq/include/shmq
case $library in
  *-pin.so*) pattern=(-name pin.h) allowed='libshmq\.so\.[0-9]+|libhwloc\.so\.[0-9]+|' ;;
  *) pattern=(! -name pin.h) allowed= ;;
esac
failed=0
fail() { echo "$*" >&2; failed=1; }

exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
# The public headers say SHMQ_API before each call.
declared=$(find "$headers" -name '*.h' "${pattern[@]}" -exec cat {} + | tr '\n' ' ' |
  grep -oE 'SHMQ_API [^;(]*\(' | grep -oE 'shmq_[a-z0-9_]+ ?\($' | tr -d ' (' | sort -u)
[ -n "$declared" ] || fail "no declaration found in $headers: this test is blind"
extra=$(comm -23 <(echo "$exported") <(echo "$declared"))
lacking=$(comm -13 <(echo "$exported") <(echo "$declared"))
[ -z "$extra" ] || fail "exported and not declared:" $extra
[ -z "$lacking" ] || fail "declared and not exported:" $lacking

allowed="${allowed}libc\.so\.6|ld-linux.*"
[ -z "${SHMQ_SANITIZE:-}" ] || allowed="$allowed|lib(asan|ubsan|tsan)\.so.*"
needed=$(readelf -d "$library" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
echo "$needed" | grep -q '^libc\.so' || fail "does not need libc: this test is blind"
others=$(echo "$needed" | grep -vE "^($allowed)$" || true)
[ -z "$others" ] || fail "needs more than libc:" $others

# __assert_fail is a broken promise of our own code, not the library's way to report.
forbidden='printf|fprintf|vprintf|vfprintf|__(v?f?)printf_chk|puts|fputs|fwrite|perror|syslog|exit|_exit|abort|signal|sigaction|raise'
called=$(nm -D --undefined-only "$library" | awk '{ sub(/@.*/, "", $2); print $2 }' | grep -xE "$forbidden" || true)
[ -z "$called" ] || fail "calls:" $called

echo "$(echo "$exported" | wc -l) names exported; needs: $(echo $needed)"
exit $failed
