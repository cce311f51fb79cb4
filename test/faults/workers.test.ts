/** Several processes on one port. */
import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { metricsOf, publish } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'
import { exitOf, run, serve, type Run } from '../support/process.ts'
import { listen, type Reader } from '../support/reader.ts'
import { redisFor } from '../support/redis-system.ts'

t.setTimeout(120_000)

const STREAMS = 20
const OPEN = 'ringside_connections{transport="sse"}'

t.test('workers are one server: the same events on all streams, and the metrics of both', async t => {
  const server = await start(t)
  await workersOf(server, pids => pids.length === 2)
  const streams = await open(t, server)
  const ids = [await publish(server, 'a', 'one'), await publish(server, 'a', 'two')]
  for (const stream of streams) {
    t.strictSame(
      (await stream.until(2)).map(({ id }) => id),
      ids
    )
  }
  const metrics = await metricsOf(server)
  t.equal(metrics.get(OPEN), STREAMS)
  t.equal(metrics.get('ringside_events_published_total{feed="events"}'), 2)
  t.equal(metrics.get('ringside_broker_up'), 1, 'not a sum')
  t.equal(metrics.get(`ringside_build_info{version="0.1.0",node="${process.version}"}`), 1)
})

t.test('a worker that dies is replaced, and takes only its own streams with it', async t => {
  const server = await start(t)
  const [victim, other] = await workersOf(server, pids => pids.length === 2)
  const streams = await open(t, server)
  const alive = new Set(streams)
  for (const stream of streams) void stream.ended.then(() => alive.delete(stream))
  process.kill(victim!, 'SIGKILL')
  await workersOf(server, pids => pids.length === 2 && pids.includes(other!) && !pids.includes(victim!))
  await eventually(
    () => metricsOf(server).catch(() => new Map<string, number>()),
    metrics => metrics.get(OPEN) === alive.size,
    'the metrics of those who are left'
  )
  t.ok(alive.size > 0 && alive.size < STREAMS, `${alive.size} streams live on`)
  await publish(server, 'a', 'after')
  for (const stream of alive) t.match(await stream.until(1), [{ data: 'after' }])
  t.match(server.stderr(), `worker ${victim} ended (SIGKILL); another one takes its place`)
})

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  t.test(
    `${signal}, also when a terminal sends it to all processes, ends the streams with goodbyes`,
    async t => {
      const server = await start(t, { DRAIN: '500ms' })
      const pids = await workersOf(server, found => found.length === 2)
      const streams = await open(t, server)
      for (const pid of [...pids, server.child.pid!]) process.kill(pid, signal)
      for (const stream of streams) {
        t.match((await stream.whole()).at(-1), { event: 'goodbye', data: /shutdown/ })
      }
      t.strictSame(await exitOf(server), { code: 0, signal: null })
      t.equal(server.stderr(), '')
    }
  )
}

t.test('a second signal ends all at once', async t => {
  const server = await start(t, { DRAIN: '1m' })
  const streams = await open(t, server)
  server.child.kill('SIGTERM')
  await Promise.race(streams.map(stream => stream.first('goodbye')))
  server.child.kill('SIGTERM')
  t.match(await exitOf(server), { code: 1 })
  await Promise.all(streams.map(stream => stream.ended))
})

t.test('workers that cannot start end it with 1, and say why', async t => {
  const server = await start(t)
  const env = { WORKERS: '2', REDIS_URL: 'redis://127.0.0.1:1', PORT: String(server.port), DEMO: 'false' }
  const second = run(t, ['serve'], env)
  t.match(await exitOf(second), { code: 1 })
  t.match(second.stderr(), /EADDRINUSE/)
})

t.test('without Redis there can be one alone', async t => {
  const alone = run(t, ['serve'], { WORKERS: '2' })
  t.match(await exitOf(alone), { code: 1 })
  t.match(alone.stderr(), /^ringside: WORKERS=2: the memory broker lives in one process; set REDIS_URL/)
})

async function start(t: Test, env: Record<string, string> = {}) {
  const redis = await redisFor(t)
  const server = await serve(t, { REDIS_URL: redis.url, WORKERS: '2', ...env })
  // a worker that was slow to begin may not have heard of Redis yet
  await eventually(
    () => metricsOf(server),
    metrics => metrics.get('ringside_broker_up') === 1,
    'all workers'
  )
  return server
}

function open(t: Test, server: { port: number }): Promise<Reader[]> {
  return Promise.all(Array.from({ length: STREAMS }, () => listen(t, server, '/events/a')))
}

/** The processes of the workers, once they are as they should be. */
function workersOf({ child }: Run, good: (pids: number[]) => boolean): Promise<number[]> {
  const children = `/proc/${child.pid}/task/${child.pid}/children`
  const find = () => readFileSync(children, 'utf8').split(' ').filter(Boolean).map(Number)
  return eventually(find, good, 'the workers')
}
