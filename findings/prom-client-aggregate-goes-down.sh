#!/usr/bin/env bash
# prom-client 15.1.3: a counter that is aggregated over workers can go down although no worker's counter does.
#
# Expected: the sum of counters that only grow only grows, so that Prometheus never sees a reset.
# Seen: AggregatorRegistry.aggregate adds the values in the order in which the workers' answers stand in its list, which in
# a cluster is the order in which they arrive. Seconds are fractions, and a sum of fractions depends on the order: with
# three workers and the same values it is a last digit less in another order. To Prometheus any decrease is a reset:
# rate() and increase() then add the whole value once more.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf '{"type":"module"}\n' >package.json
npm install --silent --no-audit --no-fund prom-client@15.1.3

cat >check.js <<'JS'
import client from 'prom-client'

/** What one worker answers. */
async function answerOf(seconds) {
  const registry = new client.Registry()
  const took = new client.Histogram({ name: 'took_seconds', help: 'x', buckets: [1], registers: [registry] })
  took.observe(seconds)
  return registry.getMetricsAsJSON()
}

const answers = await Promise.all([0.1, 0.2, 0.3].map(answerOf))
const sumOf = async list =>
  /took_seconds_sum (.*)/.exec(await client.AggregatorRegistry.aggregate(list).metrics())[1]
const [a, b, c] = answers
console.log(await sumOf([a, b, c]))
console.log(await sumOf([b, c, a]))
JS

seen=$(node check.js)
expected='0.6000000000000001
0.6'
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { echo 'this has changed' >&2; exit 1; }
echo 'The same three workers, who answered in another order: the counter has gone down.'
