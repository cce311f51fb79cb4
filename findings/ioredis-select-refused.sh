#!/usr/bin/env bash
# ioredis 6.0.0 with Redis 7.0: a connection whose database does not exist becomes ready, in database 0.
#
# Expected: where the URL names a database that the server refuses to select, the connection fails, as it does where the
# password is refused; nothing is ever written to another database.
# Seen: SELECT is refused ("DB index is out of range"), an `error` event says so once, then comes `ready`, and commands run
# in database 0, which may be another program's.
set -euo pipefail

work=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
finish() {
  redis-cli -p "$port" shutdown nosave >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

command -v redis-server >/dev/null || { echo 'needs redis-server (Debian: redis-server)' >&2; exit 1; }
cd "$work"
printf '{"type":"module"}\n' >package.json
npm install --silent --no-audit --no-fund ioredis@6.0.0
redis-server --port "$port" --bind 127.0.0.1 --databases 4 --save '' --dir "$work" >redis.log &
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done

cat >check.js <<'JS'
import { Redis } from 'ioredis'

const redis = new Redis(`redis://127.0.0.1:${process.argv[2]}/9`)
const events = []
for (const name of ['error', 'ready', 'close', 'end']) redis.on(name, error => events.push(error?.message ? `${name}: ${error.message}` : name))
const answer = await redis.set('written', 'by the program of database 9').catch(error => error.message)
redis.disconnect()
console.log([...events, `SET: ${answer}`].join('\n'))
JS

seen=$(node check.js "$port")
found=$(redis-cli -p "$port" -n 0 get written)
printf '%s\n' "$(redis-server --version | cut -d' ' -f1-3)" "$seen" "in database 0: $found"
[ "$seen" = 'error: ERR DB index is out of range
ready
SET: OK' ] && [ "$found" = 'by the program of database 9' ] || { echo 'this has changed' >&2; exit 1; }
echo 'It went on in database 0.'
