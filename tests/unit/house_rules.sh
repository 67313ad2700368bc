#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The rules that no compiler checks: who may include what, what the library may call, what a file
# must carry. Prints every breach; fails when there is one. With a folder as its argument it looks
# there instead, which is how it tests itself: a tree that breaks each rule must be refused.
set -u

here=$(cd "$(dirname "$0")" && pwd)
tree=${1:-${SHMQ_SOURCE_DIR:-$here/../..}}
cd "$tree" || exit 2
breaches=0

breach() { printf '%s: %s\n' "$1" "$2"; breaches=$((breaches + 1)); }

sources() { # sources FOLDER...: the C and C++ files below those that exist
  local folder
  for folder in "$@"; do
    if [ -e "$folder" ]; then find "$folder" -name '*.[ch]' -o -name '*.cc'; fi
  done
}

declare -A included # file: the headers it includes
while IFS=: read -r file line; do
  [[ $line =~ [\<\"]([^\>\"]+) ]] && included[$file]+=" ${BASH_REMATCH[1]}"
done < <(sources libshmq daemon tools services bench examples python |
  xargs -r grep -HE '^[[:space:]]*#[[:space:]]*include' )
includes() { echo "${included[$1]:-}"; }

code() { # the file without comments and string literals' contents
  gcc -fpreprocessed -dD -E -P -w -x c "$1" 2>/dev/null | sed -E 's/"([^"\\]|\\.)*"/""/g'
}

everything() { sources libshmq daemon tools services bench examples python tests; }

# Dependencies that have one home.
for file in $(sources libshmq daemon tools services examples python); do
  for header in $(includes "$file"); do
    case $header in
      hwloc*) [[ $file == libshmq/pin/* ]] || breach "$file" "hwloc outside libshmq/pin" ;;
      liburing*) [[ $file == daemon/* ]] || breach "$file" "liburing outside daemon" ;;
    esac
  done
done

# Calls go downward: a file of the library includes only from its own layer or from lower ones.
layer() { # sets `rank`: no process for each of a thousand includes
  case $1 in
    base/*) rank=0 ;;
    os/*) rank=1 ;;
    core/*) rank=2 ;;
    rpc/* | pin/*) rank=4 ;;
    *) rank=3 ;;
  esac
}
for file in $(sources libshmq/base libshmq/os libshmq/core libshmq/rpc libshmq/pin libshmq/*.[ch]); do
  name=${file#libshmq/}
  layer "$name"
  own=$rank
  for header in $(includes "$file"); do
    case $header in
      *..*) target=$(realpath -m --relative-to=libshmq "${file%/*}/$header") ;;
      *)
        if [ -e "${file%/*}/$header" ]; then
          target=${file%/*}/$header
          target=${target#libshmq/}
        elif [ -e "libshmq/$header" ]; then
          target=$header
        else
          continue # the system's or public
        fi ;;
    esac
    case $target in include/*) continue ;; esac
    layer "$target"
    [ "$rank" -le "$own" ] || breach "$file" "includes upward: $header"
    # rpc and pin are users of the public interface; only os and base may serve them beside it.
    if [ "$own" -eq 4 ] && [ "$rank" -ge 2 ] && [ "${target%%/*}" != "${name%%/*}" ]; then
      breach "$file" "goes round the public interface: $header"
    fi
  done
done
for file in $(sources daemon tools services bench examples python); do
  for header in $(includes "$file"); do
    case $header in
      *libshmq/* | */../*core/*) breach "$file" "reaches into the library: $header" ;;
    esac
  done
done

# The library is silent and leaves the process alone; orders stand on words, not in fences.
calls='(v?f?printf|puts|fputs|putchar|perror|syslog|vsyslog|warnx?|errx?|exit|_exit|_Exit|quick_exit|abort|signal|sigaction|raise|system|popen)'
# System calls are made in os. One helper thread, for shmq_event_fd on old kernels, is the only exception to
# "starts no threads"; it lives there too.
for file in $(sources libshmq); do
  text=$(code "$file")
  found=$(grep -oE "(^|[^A-Za-z0-9_>.])${calls}[[:space:]]*\(" <<<"$text" | tr -d '\n')
  [ -z "$found" ] || breach "$file" "the library prints, exits or takes signals: $found"
  ! grep -qE 'atomic_thread_fence|__sync_synchronize' <<<"$text" || breach "$file" "stand-alone fence"
  if grep -qE '(pthread_create|thrd_create)[[:space:]]*\(' <<<"$text" && [[ $file != libshmq/os/* ]]; then
    breach "$file" "starts a thread outside os"
  fi
  case $file in libshmq/os/* | libshmq/pin/* | libshmq/include/*) continue ;; esac
  for header in $(includes "$file"); do
    case $header in
      linux/* | sys/mman.h | sys/socket.h | sys/syscall.h | sys/ioctl.h | sys/epoll.h)
        breach "$file" "system calls outside os: $header" ;;
    esac
  done
done

# What every file carries, and what none does.
while IFS=: read -r file what; do breach "$file" "$what"; done < <(
  everything | xargs -r awk '
    function finish() {
      if (file != "" && !licensed) print file ": no SPDX line"
      if (file != "" && lines > 900) print file ": longer than 900 lines"
    }
    FNR == 1 { finish(); file = FILENAME; licensed = 0 }
    { lines = FNR }
    FNR <= 3 && /SPDX-License-Identifier: Apache-2\.0/ { licensed = 1 }
    /(^|[^A-Za-z0-9_])(TO''DO|FIX''ME|XX''X)([^A-Za-z0-9_]|$)/ { print FILENAME ": unfinished work is marked in it" }
    END { finish() }'
  find . -path ./build -prune -o \
    \( -name '*.sh' -o -name '*.cmake' -o -name '*.py' -o -name CMakeLists.txt \) \
    -exec grep -L 'SPDX-License-Identifier: Apache-2\.0' {} + | sed 's/$/: no SPDX line/')

# What a mutant replaces is there, once: else scripts/mutants.sh stops at it.
mutants=tests/mutants/mutants.txt
while read -r line; do
  breach "$mutants" "$line"
done < <([ ! -e $mutants ] || perl -0777 -ne '
  for (split /^== /m) {
    next unless /^(\S+)\n([^\n]*)\n[^\n]*\n<\n(.*?)\n=\n/s;
    my ($name, $file, $old) = ($1, $2, $3);
    open my $f, "<", $file or do { print "$name: no $file\n"; next };
    my $n = () = <$f> =~ /\Q$old\E/g;
    print "$name: its text is there $n times\n" unless $n == 1;
  }' $mutants)

# The self-test: break each rule in a tree of its own and count what is found.
if [ $# -eq 0 ]; then
  bad=$(mktemp -d)
  trap 'rm -rf "$bad"' EXIT
  mkdir -p "$bad"/libshmq/{base,os,core,rpc} "$bad"/{daemon,tools}
  spdx='/* SPDX-License-Identifier: Apache-2.0 */'
  printf '%s\n#include <hwloc.h>\n' "$spdx" >"$bad/tools/a.c"
  printf '%s\n#include <liburing.h>\n' "$spdx" >"$bad/libshmq/os/b.c"
  printf '%s\n' "$spdx" >"$bad/libshmq/core/ring.h"
  printf '%s\n#include "core/ring.h"\n' "$spdx" >"$bad/libshmq/base/c.c"
  printf '%s\n#include "core/ring.h"\n' "$spdx" >"$bad/libshmq/rpc/d.c"
  printf '%s\n#include "../libshmq/core/ring.h"\n' "$spdx" >"$bad/daemon/e.c"
  printf '%s\nvoid f(void) { printf("x"); }\n' "$spdx" >"$bad/libshmq/core/f.c"
  printf '%s\nvoid g(void) { atomic_thread_fence(0); }\n' "$spdx" >"$bad/libshmq/core/g.c"
  printf '%s\nvoid h(void) { pthread_create(0, 0, 0, 0); }\n' "$spdx" >"$bad/libshmq/core/h.c"
  printf '%s\n#include <sys/mman.h>\n' "$spdx" >"$bad/libshmq/core/hh.c"
  printf 'int i;\n' >"$bad/daemon/i.c"
  printf '%s\n/* TO''DO */\n' "$spdx" >"$bad/daemon/j.c"
  { echo "$spdx"; yes 'int k;' | head -n 901; } >"$bad/daemon/k.c"
  # Not breaches: a comment, a string, and names that only end alike.
  printf '%s\n/* printf( */ const char *l = "exit(";\nint m(void) { return snprintf(0, 0, l) + shmq_abort(0) + x->exit(); }\n' \
    "$spdx" >"$bad/libshmq/core/l.c"
  found=$("$0" "$bad" | grep "^[a-z]*/")
  expected=12
  if [ "$(printf '%s\n' "$found" | wc -l)" -ne $expected ] || printf '%s\n' "$found" | grep -q '/l\.c'; then
    breach "$0" "the self-test expected $expected breaches, one in each of a to k, and found:"
    printf '%s\n' "$found"
  fi
fi

[ $breaches -eq 0 ] || { echo "$breaches breaches of the house rules"; exit 1; }
