#!/usr/bin/env bash
# Redis 7.0 at its maxmemory, with noeviction: whether a script may write depends on its first write alone.
#
# Expected: a command that may take room (HSET, SET, XADD) is refused with OOM wherever it stands in a script.
# Seen: it is refused as long as the script has written nothing. Once a command that takes no room has written, be it a
# DEL or HDEL, all commands behind it pass, also large ones; a deletion that finds nothing to delete is enough. So a
# script that begins with a clean-up fills a full server further, and one that begins with HSET can't even renew a lease.
set -euo pipefail

work=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
cli() { redis-cli -p "$port" "$@"; }
finish() {
  cli shutdown nosave >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

command -v redis-server >/dev/null || { echo 'needs redis-server (Debian: redis-server)' >&2; exit 1; }
cd "$work"
redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >redis.log &
until cli ping >/dev/null 2>&1; do sleep 0.1; done
cli set filler "$(head -c 100000 /dev/zero | tr '\0' x)" >/dev/null
cli config set maxmemory-policy noeviction >/dev/null
cli config set maxmemory 1 >/dev/null

word() { cut -d' ' -f1-2 | head -1; }
seen=$(
  cli eval "return redis.call('HSET', KEYS[1], 'a', ARGV[1])" 1 h x 2>&1 | word
  cli eval "redis.call('HDEL', KEYS[1], 'none') return redis.call('HSET', KEYS[1], 'a', ARGV[1])" 1 h x 2>&1 | word
  cli hset h b x 2>&1 | word
)
expected='OOM command
1
OOM command'
printf '%s\n' "$(redis-server --version | cut -d' ' -f1-3)" "$seen"
[ "$seen" = "$expected" ] || { echo 'this has changed' >&2; exit 1; }
echo 'The second script has stored what the first one and the plain command could not.'
