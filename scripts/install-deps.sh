#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages this project needs; what is present is left alone.
#
#   scripts/install-deps.sh [--print] [build|test|all]
#
# build: to build and run the demonstration. test: also to run the test suite (default).
# all: also the linters and the peers of the benchmarks.
# --print: only say what is missing.
set -eu

build="gcc libc6-dev cmake ninja-build pkg-config
  libhwloc-dev liburing-dev libinih-dev libbsd-dev libsmartcols-dev libncurses-dev libssl-dev libsqlite3-dev"
test="g++ libcriterion-dev clang-14 libclang-rt-14-dev spin python3-dev strace groff-base jq hwloc-nox
  bc sqlite3 redis-server redis-tools zstd libzstd-dev"
all="llvm-14 clang-format clang-tidy cppcheck gdb debootstrap shellcheck man-db
  libboost-dev libck-dev libdpdk-dev libzmq3-dev libnng-dev libconcurrentqueue-dev libreaderwriterqueue-dev
  fio gnuplot-nox valgrind parallel"

print=no
if [ "${1:-}" = --print ]; then print=yes; shift; fi
case "${1:-test}" in
  build) want=$build ;;
  test) want="$build $test" ;;
  all) want="$build $test $all" ;;
  *) echo "usage: $0 [--print] [build|test|all]" >&2; exit 2 ;;
esac

missing=
for package in $want; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
  [ "$status" = installed ] || missing="$missing $package"
done
if [ $print = yes ]; then echo "missing:${missing:- nothing}"; exit 0; fi
[ -n "$missing" ] || exit 0

echo "installing:$missing"
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
# sudo drops the environment, hence env behind it.
# Quiet but for errors: what is installed was said above.
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q"
$apt update >/dev/null
# shellcheck disable=SC2086
$apt install -y --no-install-recommends $missing >/dev/null
