#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Check the sources with clang-format, clang-tidy, cppcheck and shellcheck (where it is installed).
#
#   scripts/lint.sh [--changed] [--fix] [--format-only]
#
# --changed: only files that differ from the last commit. --fix: let clang-format rewrite.
# --format-only: without the slow ones. The tools come with scripts/install-deps.sh all.
set -uo pipefail

cd "$(dirname "$0")/.." || exit 1
changed=no fix=no slow=yes failed=0
for option in "$@"; do
  case $option in
    --changed) changed=yes ;;
    --fix) fix=yes ;;
    --format-only) slow=no ;;
    *) sed -n '3,8s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done

list() { # list PATTERN...: tracked and new files, or the changed ones
  if [ $changed = yes ]; then
    { git diff --name-only --diff-filter=d HEAD -- "$@"; git ls-files --others --exclude-standard -- "$@"; } | sort -u
  else
    git ls-files --cached --others --exclude-standard -- "$@" | while read -r file; do
      if [ -e "$file" ]; then echo "$file"; fi
    done
  fi
}
step() { echo "== $1"; }

mapfile -t sources < <(list '*.c' '*.h' '*.cc')
mapfile -t programs < <(list '*.c')
mapfile -t scripts < <(list '*.sh' .ci/run)

step clang-format
if [ ${#sources[@]} -gt 0 ]; then
  if [ $fix = yes ]; then
    clang-format -i "${sources[@]}"
  else
    clang-format --dry-run --Werror "${sources[@]}" || failed=1
  fi
fi

if command -v shellcheck >/dev/null && [ ${#scripts[@]} -gt 0 ]; then
  step shellcheck
  shellcheck --severity=warning "${scripts[@]}" || failed=1
fi

if [ $slow = yes ] && [ ${#programs[@]} -gt 0 ]; then
  # A build folder of its own, configured for the compiler that clang-tidy understands.
  mkdir -p build/lint/cppcheck
  cmake -S . -B build/lint -G Ninja -DCMAKE_C_COMPILER=clang-14 -DCMAKE_BUILD_TYPE=Debug >build/lint.log ||
    { cat build/lint.log; exit 1; }

  step clang-tidy
  # Only what the build knows: a file without a command would be judged with the wrong flags.
  known=$(sed -nE 's/^ *"file": "(.*)",?$/\1/p' build/lint/compile_commands.json | sort -u)
  for file in "${programs[@]}"; do
    if grep -qxF "$PWD/$file" <<<"$known"; then echo "$file"; fi
  done | xargs -r -P "$(nproc)" -n 4 clang-tidy -p build/lint --quiet --warnings-as-errors='*' 2>/dev/null || failed=1

  step cppcheck
  cppcheck --project=build/lint/compile_commands.json --cppcheck-build-dir=build/lint/cppcheck \
    --enable=warning,performance,portability --inline-suppr --suppress='*:/usr/*' --suppress=missingIncludeSystem \
    --suppress=normalCheckLevelMaxBranches -j "$(nproc)" --quiet --error-exitcode=1 || failed=1
fi

exit $failed
