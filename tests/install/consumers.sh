#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Install into a prefix in the build folder, then build and run a C and a C++ program against that prefix
# alone, by pkg-config and by find_package. Then move the prefix: both must still work.
set -eu
build=${SHMQ_BUILD_DIR:?}
here=$(cd "$(dirname "$0")" && pwd)
work=$build/tests/install/work
prefix=$work/prefix

# A sanitized library needs sanitized programs.
flags="-Wall -Wextra -Wpedantic -Werror"
[ -z "${SHMQ_SANITIZE:-}" ] || flags="$flags -fsanitize=$SHMQ_SANITIZE"
cc=${CC:-cc}
case $cc in *clang*) cxx=${cc/clang/clang++} ;; *) cxx=g++ ;; esac

rm -rf "$work"
mkdir -p "$work"
cmake --install "$build" --prefix "$prefix" >"$work/install.log"
pin=no
if [ -e "$prefix/include/shmq/pin.h" ]; then pin=yes; fi

by_pkg_config() {
  local out=$work/pkg-config modules=shmq libdir
  rm -rf "$out" && mkdir "$out"
  libdir=$(dirname "$(find "$prefix" -name shmq.pc)")
  if [ $pin = yes ]; then modules="shmq-pin shmq"; fi
  export PKG_CONFIG_PATH=$libdir
  local used libs
  used=$(pkg-config --cflags $modules)
  if [ $pin = yes ]; then used="$used -DWITH_PIN=1"; fi
  libs="$(pkg-config --libs $modules) -Wl,-rpath,$(pkg-config --variable=libdir shmq)"
  "$cc" -std=c11 $flags $used "$here/consumer/consumer.c" -o "$out/consumer_c" $libs
  "$cxx" -std=c++11 $flags $used "$here/consumer/consumer.cc" -o "$out/consumer_cxx" $libs
  "$out/consumer_c" && "$out/consumer_cxx"
}

by_find_package() {
  local out=$work/find-package
  rm -rf "$out"
  cmake -S "$here/consumer" -B "$out" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DWITH_PIN=$pin \
    -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" \
    -DCMAKE_C_FLAGS="$flags" -DCMAKE_CXX_FLAGS="$flags" >"$out.log" 2>&1 ||
    { cat "$out.log"; return 1; }
  cmake --build "$out" >>"$out.log" 2>&1 || { cat "$out.log"; return 1; }
  "$out/consumer_c" && "$out/consumer_cxx"
}

# Whatever is to start the daemon names the one that is installed, and there is one of each program.
units_name_the_daemon() {
  local unit program built
  built=$(sed -n 's/^CMAKE_INSTALL_PREFIX:[A-Z]*=//p' "$build/CMakeCache.txt")
  for unit in "$prefix"/lib/systemd/*/shmqd.service; do
    program=$(sed -nE 's/^ExecStart=([^ ]*).*/\1/p' "$unit")
    [ -x "$prefix${program#"$built"}" ] || { echo "$unit starts $program, which is not there"; return 1; }
  done
  [ "$(find "$prefix" -name shmqd -type f -perm -u+x | wc -l)" = 1 ] ||
    { echo "shmqd is installed in several places"; return 1; }
}

run_installed_programs() {
  local program
  for program in "$prefix"/bin/*; do
    [ -e "$program" ] || continue
    "$program" --help >"$work/help.txt"
    [ -s "$work/help.txt" ] || { echo "$program --help says nothing"; return 1; }
  done
}

by_pkg_config
by_find_package
run_installed_programs
units_name_the_daemon
mv "$prefix" "$work/moved"
prefix=$work/moved
by_pkg_config
by_find_package
run_installed_programs
echo "installed, built against and moved; pin: $pin"
