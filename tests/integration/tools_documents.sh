#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The manual page and the completion that the build printed: of this program, whole, and in good order.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

manual=$SHMQ_BUILD_DIR/man/shmq.1
completion=$SHMQ_BUILD_DIR/contrib/completion/shmq.bash

"$shmq" help --man | cmp - "$manual" || report "the manual page is another program's"
"$shmq" help --completion | cmp - "$completion" || report "the completion is another program's"

commands=$("$shmq" --help | sed -n '/^Commands:/,/^$/p' | sed -n 's/^  \([a-z]*\) .*/\1/p')
for command in $commands; do
  grep -q "^\.SS shmq $command\b" "$manual" || report "$command is not in the manual"
  # Every flag that the help names stands in the manual and is completed.
  for flag in $("$shmq" "$command" --help | sed -n '/^Flags:/,/^$/s/^ *\(-., *\)\{0,1\}\(--[a-z-]*\).*/\2/p'); do
    if [ "$flag" != --help ]; then
      grep -qF -- "${flag//-/\\-}" "$manual" || report "$command $flag is not in the manual"
    fi
    same yes "$(bash -c '
      . "$1"; COMP_WORDS=(shmq "$2" "$3"); COMP_CWORD=2; _shmq
      [[ " ${COMPREPLY[*]} " == *" $3 "* ]] && echo yes' - "$completion" "$command" "$flag")" \
      "completion of $command $flag"
  done
done
if command -v groff >/dev/null; then
  groff -man -ww -Tutf8 -z "$manual" 2>"$dir/err"
  [ -s "$dir/err" ] && report "troff warns"
fi

"$shmq" create "$q" --queue other
complete_words() { # complete_words WORD...: what is offered for the last one
  bash -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shmq
    printf "%s\n" "${COMPREPLY[@]}"' - "$completion" "$@" | sort | paste -sd ' '
}
PATH=$(dirname "$shmq"):$PATH
same 'forward' "$(complete_words shmq forw)" "a command"
same "$q $q/other" "$(complete_words shmq get "$q")" "names of queues"
same 'drop-newest drop-oldest' "$(complete_words shmq create --when-full drop)" "words of a flag"

finish
