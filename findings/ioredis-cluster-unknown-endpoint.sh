#!/usr/bin/env bash
# ioredis 6.0.0 with a Cluster of Redis 7.0 whose nodes don't say how they are reached (cluster-preferred-endpoint-type
# unknown-endpoint, as managed services have it): it never connects, although the node that was named answers.
#
# Expected: an empty host means "the host that you have asked, at this port": so does the documentation of CLUSTER SLOTS,
# and of the setting.
# Seen: nodes without a host are left out of what CLUSTER SLOTS has answered. None is left, and the Cluster fails with
# "Failed to refresh slots cache", while a plain connection to the same address is answered.
set -euo pipefail

work=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
finish() {
  redis-cli -p "$port" shutdown nosave >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT

command -v redis-server >/dev/null || { echo 'needs redis-server 7 (Debian: redis-server)' >&2; exit 1; }
cd "$work"
printf '{"type":"module"}\n' >package.json
npm install --silent --no-audit --no-fund ioredis@6.0.0
redis-server --port "$port" --bind 127.0.0.1 --cluster-enabled yes --cluster-preferred-endpoint-type unknown-endpoint \
  --save '' --dir "$work" >redis.log &
until redis-cli -p "$port" ping >/dev/null 2>&1; do sleep 0.1; done
redis-cli -p "$port" cluster addslotsrange 0 16383 >/dev/null
until redis-cli -p "$port" cluster info | grep -q cluster_state:ok; do sleep 0.1; done

cat >check.js <<'JS'
import { Cluster, Redis } from 'ioredis'

const port = Number(process.argv[2])
const cluster = new Cluster([{ host: '127.0.0.1', port }], { clusterRetryStrategy: () => null })
cluster.on('error', () => {})
const answer = await cluster.set('a', '1').catch(error => error.message)
cluster.disconnect()
const redis = new Redis(port)
console.log(`Cluster: ${answer}\nplain: ${await redis.set('a', '1')}`)
redis.disconnect()
JS

seen=$(node check.js "$port")
printf '%s\n' "$(redis-server --version | cut -d' ' -f1-3)" "$seen"
case $seen in
  'Cluster: OK'*) echo 'this has changed' >&2; exit 1 ;;
  'Cluster: '*'plain: OK') echo 'The Cluster was not found at an address that answers.' ;;
  *) echo 'this has changed' >&2; exit 1 ;;
esac
