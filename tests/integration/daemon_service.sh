#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Services under shmqd: order, readiness, restart, what a dead one held, failure, watchdog, recycling, output, the end.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

shmqd=$SHMQ_BUILD_DIR/daemon/shmqd
helper=$SHMQ_BUILD_DIR/tests/integration/daemon_helper
sqlite=$SHMQ_BUILD_DIR/services/sqlite/shmq-sqlite
for name in $(compgen -e SHMQD_); do unset "$name"; done
export ASAN_OPTIONS=detect_leaks=0 # it waits for ever for the kernel's I/O pool
export SHMQD_SOCKET=$dir/run/control
conf=$dir/shmqd.conf

# ---- what cannot be ----
refused() { # refused TEXT CONTENT
  printf '%b' "$2" >"$conf"
  expect 1 "$shmqd" --check --config "$conf"
  says "$1"
}
refused '[service:a] command: must be given' '[service:a]\n'
refused '[service:a] command: cannot be split' '[service:a]\ncommand = "x\n'
refused '[service:a] command: must not have commands' '[service:a]\ncommand = x $(date)\n'
refused '[service:a] after: names a service' '[service:a]\ncommand = x\nafter = b\n'
refused 'after: waits for itself' '[service:a]\ncommand = x\nafter = b\n[service:b]\ncommand = x\nafter = a\n'
refused '[service:a] segment: must be given' '[service:a]\ncommand = x\nrecycle_requests = 5\n'

# ---- the services ----
cat >"$dir/client" <<END
#!/bin/bash
echo "begins with \$1, instance \$SHMQ_INSTANCE of \$SHMQ_SERVICE"
printf 'a NUL\0 is seen\n'
for i in \$(seq 300); do echo "line \$i"; done
"$shmq" ask daemon children >"$dir/seen.\$SHMQ_INSTANCE"
sleep 1000 &
wait
END
chmod +x "$dir/client"
cat >"$conf" <<END
[service:users]
command = $dir/client 'two words'
after = db
instances = 2
log_lines = 50
[service:db]
command = $sqlite serve --ready-fd 3 --idempotent $q-db $dir/db.sqlite
ready = newline
segment = $q-db
restart_first = 10ms
[service:twice]
command = $sqlite serve $q-two $dir/db.sqlite
after = db
restart_first = 10ms
restart_most = 20ms
restart_failures = 3
[service:once]
command = sh -c 'echo once >>$dir/once; exit 125'
[service:leaves]
command = sh -c 'setsid sleep 1000 >/dev/null 2>&1 & echo \$! >$dir/left'
restart = never
[service:good]
command = sh -c 'echo good >>$dir/good; exit 0'
restart = on-failure
[service:silent]
command = $helper notify 5
ready = notify
watchdog = 300ms
restart = never
[service:busy]
command = $helper serve $q-busy
ready = notify
segment = $q-busy
recycle_requests = 20
[service:fat]
command = $helper grow 64
ready = notify
recycle_rss = 48M
[service:hangs]
command = sleep 1000
ready = newline
start_timeout = 50ms
restart_first = 10ms
restart_most = 10ms
restart_failures = 2
END
"$shmqd" --config "$conf" --dir "$dir/run" 2>"$dir/log" &
daemon=$!
trap 'kill -9 $daemon 2>/dev/null; cleanup' EXIT # nothing holds our output longer than we do
until_true "$shmq" ask daemon status || finish

children() { "$shmq" ask daemon children; }
line() { children | grep "^child=$1 "; }
field() { line "$1" | tr ' ' '\n' | sed -n "s/^$2=//p"; }
is() { [ "$(field "$1" "$2")" = "$3" ]; }

until_true is db state ready || finish
until_true is users.0 state ready || finish
until_true is users.1 state ready || finish

# ---- order: when a user began, the database was ready ----
until_true test -s "$dir/seen.0" -a -s "$dir/seen.1"
grep -q '^child=db state=ready' "$dir/seen.0" || report "users began before the database was ready"

# ---- output ----
says_log() { grep -q -- "$1" "$dir/log" || { tail -5 "$dir/log"; report "the log does not say '$1'"; }; }
until_true grep -q 'users.1: begins' "$dir/log"
says_log 'users.0: begins with two words, instance 0 of users'
says_log 'users.0: a NUL? is seen'
says_log 'users.0: line 3'
says_log 'users.0: says too much'
[ "$(grep -c 'users.0: line' "$dir/log")" -le 120 ] || report "the output was not limited"

# ---- what a service leaves running outlives it, and the worker; the daemon reaps it ----
until_true test -s "$dir/left"
left=$(cat "$dir/left")
until_true is leaves state down
kill -9 "$(field worker pid)"
until_true sh -c "[ \"\$('$shmq' ask daemon children | sed -n 's/^child=worker .*starts=\([0-9]*\).*/\1/p')\" = 2 ]"
until_true is worker state ready
kill -0 "$left" || report "it was killed"
kill "$left"
while kill -0 "$left" 2>/dev/null; do sleep 0.01; done

# ---- never twice; not at all; not in time ----
until_true is once state failed
same 1 "$(wc -l <"$dir/once")" "starts after 125"
until_true is good state down
same 1 "$(wc -l <"$dir/good")" "starts after success"
until_true is hangs state failed
same 2 "$(field hangs starts)" "starts of what is never ready"
until_true is twice state failed # another process owns the database
same 3 "$(field twice starts)" "starts until it failed"
says_log 'twice: shmq-sqlite: .*another process owns it'
children >"$dir/out"
grep -q '^died=twice .*cause=exit 1$' "$dir/out" || report "no obituary"

# ---- killed in the middle of a request, which the next one executes ----
expect 0 "$sqlite" query "$q-db" 'CREATE TABLE t(x)'
for round in 1 2 3; do
  old=$(field db pid)
  kill -STOP "$old"
  "$sqlite" query --timeout 20 -i "$q-db" "INSERT INTO t VALUES($round)" >"$dir/query" 2>&1 &
  query=$!
  until_true sh -c "$shmq info $q-db --json | grep -q '\"depth\": *[1-9]'" # it is asked
  kill -CONT "$old"
  kill -KILL "$old"
  wait $query || report "round $round: $(cat "$dir/query")"
  until_true is db state ready
  [ "$(field db pid)" != "$old" ] || report "the same process"
done
expect 0 "$sqlite" query "$q-db" 'SELECT count(*) FROM t'
children >"$dir/out"
same 3 "$(grep -c '^died=db .*held=[0-9]* cause=signal 9' "$dir/out")" "obituaries of the database"

# ---- the watchdog; started anew after so much work, for so much memory ----
until_true grep -q 'silent .*: the watchdog has not heard of it' "$dir/log"
until_true sh -c "'$shmq' ask daemon children | grep -q '^died=silent .*cause=signal 6'"
old=$(field busy pid)
for i in $(seq 30); do "$shmq" call "$q-busy" "$i" >/dev/null 2>&1; done
until_true sh -c "[ \"\$('$shmq' ask daemon children | sed -n 's/^child=busy .*starts=\([0-9]*\).*/\1/p')\" -ge 2 ]"
says_log 'busy .*: started anew: its requests'
until_true grep -q 'fat .*: started anew: its memory' "$dir/log"
until_true is busy state ready
same 0 "$(field busy deaths)" "what is started anew has not failed"

# ---- the end: everything in order, nothing left ----
pids=$(children | sed -n 's/^child=.* pid=\([0-9]*\) .*/\1/p' | grep -v '^0$')
kill "$daemon"
wait "$daemon"
same 0 $? "status at the end"
for pid in $pids; do kill -0 "$pid" 2>/dev/null && report "$pid is left"; done
"$shmq" rm "$q-db" 2>"$dir/err"
for name in two busy; do "$shmq" rm "$q-$name" 2>"$dir/err"; done
finish
