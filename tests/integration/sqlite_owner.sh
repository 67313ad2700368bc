#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# shmq-sqlite against the sqlite3 shell: the same answers; errors, transactions, long answers, a database that
# somebody else has locked, and kill -9 of the owner and of clients.
# shellcheck source=tests/integration/tools_lib.sh
. "$(dirname "$0")/tools_lib.sh"

owner=$SHMQ_BUILD_DIR/services/sqlite/shmq-sqlite
inserts=$SHMQ_BUILD_DIR/services/sqlite/sqlite-inserts
if ! command -v sqlite3 >/dev/null || [ ! -x "$owner" ]; then exit 77; fi
db=$dir/test.db
pids=

ask() { timeout 110 "$owner" query --timeout 100 "$q" "$@"; }
start() { # start COMMAND...: in the background, its process in $started
  "$@" &
  started=$!
  pids="$pids $started"
}
end() { # end PID SIGNAL
  kill "-$2" "$1"
  wait "$1" 2>/dev/null
}
begin() { # a new owner, ready
  start "$owner" serve "$q" "$db"
  until_true ask 'SELECT 1'
}
rows() { sqlite3 "$db" "SELECT count(*) FROM $1"; }
all_inserted() { [ "$(rows many)" = 1000 ]; }
trap 'kill -KILL $pids 2>/dev/null; cleanup' EXIT

# ---- its manual page has every option ----
page=${SHMQ_SOURCE_DIR:-$(dirname "$0")/../..}/services/sqlite/shmq-sqlite.1
for option in $("$owner" --help | grep -oE -- '--[a-z-]+'); do
  checks=$((checks + 1))
  sed 's/\\-/-/g' "$page" | grep -qF -- "$option" || report "$option is not in the manual page"
done

# ---- values, errors and transactions ----
expect 3 "$owner" query "$q" 'SELECT 1'
begin
first=$started
expect 0 ask 'CREATE TABLE t (a, b); CREATE UNIQUE INDEX i ON t (a)'
expect 0 ask 'INSERT INTO t VALUES (?1, ?2)' 1 one
expect 0 ask 'INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?, ?)' 2.5 two '3' 'a|b'
expect 0 ask "INSERT INTO t VALUES (x'ff41', NULL), ('007', 1e100), (-9223372036854775808, 0.1)"
list='SELECT a, b, typeof(a), typeof(b) FROM t ORDER BY rowid'
expect 0 ask "$list"
sqlite3 "$db" "$list" >"$dir/shell"
cmp "$dir/shell" "$dir/out" || report "the answer is not the sqlite3 shell's"
expect 0 "$shmq" call "$q" "$list"
cmp "$dir/shell" "$dir/out" || report "the answer through shmq call is not the sqlite3 shell's"
expect 1 ask 'INSERT INTO t VALUES (1, 0)'
says 'UNIQUE constraint failed: t.a (sqlite 2067)'
expect 1 "$shmq" call "$q" --json 'INSERT INTO t VALUES (1, 0)'
json '[.class,.executed,.code,.domain]' '["conflict","no",2067,"sqlite"]'
expect 1 ask 'SELEC 1'
says 'syntax error'
for text in 'SELECT ?' 'SELECT 1, ?2; -- end'; do expect 1 ask "$text"; says 'fewer parameters'; done
expect 1 ask 'SELECT 1' 2
says 'more parameters'
expect 0 ask '; -- nothing
  ;; SELECT 4; -- something'
prints 4
expect 1 "$shmq" call "$q" --op 1 'damaged' --json
json .text 'the request is not made of statements'
printf 'S\2\0\0\0\3\1\0\0\0x' >"$dir/short"
expect 1 "$shmq" call "$q" --op 1 -f "$dir/short" --json
json .code 1 # x is not SQL
printf 'S\1\0\0\0\3\377\377\377\377x' >"$dir/short"
expect 1 "$shmq" call "$q" --op 1 -f "$dir/short" --json
json .text 'the request is not made of statements'
expect 1 "$shmq" call "$q" --op 2 x
# All or nothing.
expect 1 ask "INSERT INTO t VALUES ('x', 1); INSERT INTO t VALUES (1, 0); INSERT INTO t VALUES ('y', 1)"
expect 0 ask "SELECT count(*) FROM t WHERE a IN ('x', 'y')"
prints 0
# A request cannot end the transaction that it shares, nor change how the database is kept.
for text in BEGIN COMMIT ROLLBACK 'SAVEPOINT s' 'PRAGMA synchronous = OFF' "ATTACH '$dir/other' AS o"; do
  expect 1 ask "$text"
  says 'not authorized'
done
expect 0 ask 'PRAGMA journal_mode; PRAGMA synchronous'
prints $'wal\n2'
expect 1 ask 'INSERT OR ROLLBACK INTO t VALUES (1, 0)'
expect 0 ask 'SELECT count(*) FROM t'
prints 6
expect 0 ask 'DELETE FROM t WHERE a = ? RETURNING b' 1
prints one

# ---- the only owner; a database that others have locked ----
expect 1 "$owner" serve "$q-2" "$db"
says 'another process owns it'
for text in 'DELETE FROM t' 'INSERT INTO t VALUES (77, 77)'; do
  sqlite3 "$db" 'BEGIN IMMEDIATE' "INSERT INTO t VALUES ('$text', 1)" '.shell sleep 0.5' COMMIT &
  other=$!
  sleep 0.2
  expect 0 ask "$text"
  wait $other
done
expect 0 ask 'SELECT count(*) FROM t WHERE a = 77'
prints 1

# ---- long answers, at the reader's speed ----
long='WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
  SELECT i, i * i, hex(i) FROM n' # twelve of them are more than the service's blocks
expect 0 ask "$long"
sqlite3 "$db" "$long" | cmp - "$dir/out" || report "a long answer is not the sqlite3 shell's"
expect 0 "$shmq" call "$q" "$long"
sqlite3 "$db" "$long" | cmp - "$dir/out" || report "a long answer through shmq call"
# Twelve who do not read hold up nobody, and get the whole of it when they do.
readers=
for i in $(seq 12); do
  (ask "$long" | (sleep 2; sha256sum >"$dir/long.$i")) &
  readers="$readers $!"
done
sleep 0.5
for i in 1 2 3; do
  expect 0 timeout 100 "$owner" query "$q" 'INSERT INTO t VALUES (?, 0)' "beside $i"
done
for reader in $readers; do wait "$reader"; done
want=$(sqlite3 "$db" "$long" | sha256sum)
# Nor does one who stands still, with more to come than there are blocks, while the requests go round.
longer=${long/30000/300000}
(ask "$longer" | (until [ -e "$dir/go-on" ]; do sleep 0.1; done; sha256sum >"$dir/longer")) &
still=$!
ask 'CREATE TABLE rows (process, number, text)'
timeout 100 "$inserts" owner "$q" 2 1 8 >"$dir/out" || report "a reader that stands still stops all others"
touch "$dir/go-on"
wait "$still"
ask 'DROP TABLE rows'
same "$(sqlite3 "$db" "$longer" | sha256sum)" "$(cat "$dir/longer")" "the answer to one who stood still"
for i in $(seq 12); do same "$want" "$(cat "$dir/long.$i")" "long answer $i"; done
expect 1 ask 'SELECT zeroblob(1000000)'
says 'longer than the service'
expect 5 timeout 100 "$owner" query --timeout 0.2 "$q" \
  'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n'
expect 0 timeout 100 "$owner" query "$q" 'SELECT 1' # it was interrupted
head -c 40000 /dev/zero | tr '\0' x >"$dir/large"
expect 0 ask 'INSERT INTO t VALUES (?, ?)' large "$(cat "$dir/large")"
expect 0 ask 'SELECT b FROM t WHERE a = ?' large
prints "$(cat "$dir/large")"
# A row that cannot be answered is not inserted.
expect 1 ask "INSERT INTO t VALUES ('too long', 0), ('too long 2', zeroblob(1000000)) RETURNING b"
says 'longer than the service'
expect 0 ask "SELECT count(*) FROM t WHERE a LIKE 'too long%'"
prints 0
# What was inserted is said to be, also to who had no time to take the whole answer.
expect 0 ask 'CREATE TABLE many (i, x)'
(timeout 100 "$shmq" call --json "$q" 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
  INSERT INTO many SELECT i, hex(zeroblob(6000)) FROM n RETURNING x' 2>/dev/null |
  (until [ -e "$dir/read-on" ]; do sleep 0.1; done; tail -n 1 >"$dir/end")) &
slow=$!
until_true all_inserted
kill -TERM "$first"
touch "$dir/read-on"
wait "$first"
wait "$slow"
same '["cancelled","yes"]' "$(jq -c '[.class,.executed]' "$dir/end")" "the end of an answer that was given up"
same ok "$(sqlite3 "$db" 'PRAGMA integrity_check')" "the database"

# ---- what was acknowledged survives kill -9 of all ----
begin
ask 'CREATE TABLE rows (process, number, text); CREATE UNIQUE INDEX j ON rows (process, number)'
mkdir "$dir/acknowledged"
server=$started
start "$inserts" owner "$q" 8 3 4 "$dir/acknowledged"
load=$started
for _ in 1 2 3 4; do # one that has not come far yet is killed all the same: two at once do not work
  sleep 0.5
  end "$server" KILL
  start "$owner" serve "$q" "$db"
  server=$started
done
victim=$(pgrep -P "$load" | sed -n 1p)
if [ -n "$victim" ]; then kill -KILL "$victim"; fi
wait "$load"
same 0 $? "the inserts"
end "$server" KILL
for process in 0 1 2 3 4 5 6 7; do
  sort "$dir/acknowledged/$process" >"$dir/want"
  sqlite3 "$db" "SELECT number FROM rows WHERE process = $process" | sort >"$dir/got"
  same '' "$(comm -23 "$dir/want" "$dir/got" | head -n 3)" "acknowledged rows of process $process that are not there"
  if [ ! -s "$dir/want" ]; then report "process $process got nothing done"; fi
done
same ok "$(sqlite3 "$db" 'PRAGMA integrity_check')" "the database after the kills"

# ---- one failure in a group does not undo the others ----
begin
last=$started
before=$(rows t)
kill -STOP "$last" # so that the requests meet in one group
asked=
for i in $(seq 8); do
  ask 'INSERT INTO t VALUES (?, 1)' "group $i" 2>/dev/null &
  asked="$asked $!"
done
failed=0
for text in "INSERT INTO t VALUES ('group 1', 2), (77, 2)" "INSERT OR ROLLBACK INTO t VALUES (77, 3)"; do
  ask "$text" 2>/dev/null &
  asked="$asked $!"
done
sleep 1
kill -CONT "$last"
for one in $asked; do wait "$one" || failed=$((failed + 1)); done
same 2 $failed "requests of the group that failed"
same 8 $(($(rows t) - before)) "rows of the group"
"$shmq" shutdown "$q"
wait "$last"
same 0 $? "the owner's status after shutdown"

finish
