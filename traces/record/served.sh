#!/bin/sh
# served.sh OUT LINES PORT LOAD COMMAND...: records a server under lackey while LOAD (a shell command) runs, stops it with
# SIGKILL when LOAD ends, and keeps the last LINES whole lines: what it did for the last requests.
out=$1 lines=$2 port=$3 load=$4
shift 4
sh -c 'echo $$ >"$0.pid"; exec valgrind --tool=lackey --trace-mem=yes --log-fd=9 "$@" 9>&1 >/dev/null 2>/dev/null' "$out" "$@" |
  sed '$d' | grep -v '^[=-]' | tail -n "$lines" >"$out" &
until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))" 2>/dev/null; do sleep 1; done
sh -c "$load" >/dev/null
kill -9 "$(cat "$out.pid")"
wait
rm "$out.pid"
gzip -n -9 "$out"
