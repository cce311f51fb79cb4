#!/usr/bin/env bash
# ioredis 6.0.0 with Redis 7.0: in a pipeline, a script that the server has forgotten runs after the commands behind it.
#
# Expected: the commands of a pipeline run in the order in which they were added; at worst, one of them fails.
# Seen: where the server answers NOSCRIPT to the EVALSHA of a defined script, ioredis sends EVAL after the whole pipeline
# was answered, and puts that answer into the script's place. So a command behind the script sees the state from before it,
# and nothing in the results shows that. A WAIT behind such a script answers for the write before: it says that
# replicas have what was not even run.
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
redis-server --port "$port" --bind 127.0.0.1 --save '' --dir "$work" >redis.log &
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done

cat >check.js <<'JS'
import { Redis } from 'ioredis'

const scripts = { increment: { lua: "return redis.call('INCR', KEYS[1])", numberOfKeys: 1 } }
const redis = new Redis(Number(process.argv[2]), { scripts })
const pipeline = async () => JSON.stringify(await redis.pipeline().increment('n').get('n').exec())

const results = [await pipeline(), await pipeline()]
await redis.script('FLUSH')
results.push(await pipeline())
redis.disconnect()
console.log(results.join('\n'))
JS

seen=$(node check.js "$port")
expected='[[null,1],[null,"1"]]
[[null,2],[null,"2"]]
[[null,3],[null,"2"]]'
printf '%s\n' "$(redis-server --version | cut -d' ' -f1-3)" "$seen"
[ "$seen" = "$expected" ] || { echo 'this has changed' >&2; exit 1; }
echo 'The third GET was answered before the INCR in front of it had run.'
