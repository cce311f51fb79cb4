/** Several processes on one port. */
import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { connect } from 'node:tls'
import t, { type Test } from 'tap'
import { ask, metricsOf, publish, type Address } from '../support/app.ts'
import { makeCertificate } from '../support/certificate.ts'
import { openSession, openStream } from '../support/http2.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { exitOf, run, serve, type Run } from '../support/process.ts'
import { listen, type Reader } from '../support/reader.ts'
import { publishSurely, redisFor } from '../support/redis-system.ts'

t.setTimeout(400_000)

const STREAMS = 20
const OPEN = 'ringside_connections{transport="sse"}'
const PUBLISHED = 'ringside_events_published_total{feed="events"}'
/** A gauge that is the same for each worker, so that its sum says how many of them have answered. */
const DESCRIPTORS = 'process_max_fds'

t.test('workers are one server: the same events on all streams, and the metrics of both', async t => {
  const server = await start(t, { DRAIN: '100ms' })
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
  t.equal(metrics.get(PUBLISHED), 2)
  t.equal(metrics.get('ringside_broker_up'), 1, 'not a sum')
  t.equal(metrics.get('ringside_ready'), 1)
  const apart = ['0', '1'].map(worker => metrics.get(`ringside_worker_connections{worker="${worker}"}`)!)
  t.ok(apart[0]! > 0 && apart[1]! > 0 && apart[0]! + apart[1]! === STREAMS, `${apart.join(' and ')} streams`)
  t.equal(metrics.get(`ringside_build_info{version="0.1.0",node="${process.version}"}`), 1)

  t.test('each is an instance to who operates them, and one that is drained is replaced', async t => {
    const instances = async () =>
      (await ask(server, '/admin/api/instances')).json()['instances'] as {
        readonly id: string
        readonly pid: number
        readonly worker: number
      }[]
    const both = await eventually(instances, all => all.length === 2, 'both workers')
    t.strictSame(both.map(({ worker }) => worker).sort(), [0, 1])
    const { id, pid } = both[0]!
    const drained = await ask(server, `/admin/api/instances/${id}/drain`, { method: 'POST' })
    t.equal(drained.status, 202)
    const alive = new Set(streams)
    for (const stream of streams) void stream.ended.then(() => alive.delete(stream))
    await workersOf(server, pids => pids.length === 2 && !pids.includes(pid))
    t.ok(alive.size > 0 && alive.size < STREAMS, `${alive.size} streams live on`)
  })
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
    () => metricsInTime(server, new Map()),
    metrics => metrics.get(OPEN) === alive.size,
    'the metrics of those who are left'
  )
  t.ok(alive.size > 0 && alive.size < STREAMS, `${alive.size} streams live on`)
  await publishSurely(server, 'a', 'after', 'after')
  for (const stream of alive) t.match(await stream.until(1), [{ data: 'after' }])
  t.match(server.stderr(), `worker ${victim} ended (SIGKILL); another one takes its place`)
})

t.test('no counter goes down when workers are killed, one after the other', async t => {
  const server = await start(t)
  const streams = await open(t, server)
  for (let index = 0; index < 100; index++) await publish(server, 'a', 'x')
  await Promise.all(streams.map(stream => stream.until(100)))
  let before = await metricsOf(server)
  const both = before.get(DESCRIPTORS)!
  t.equal(before.get(PUBLISHED), 100)
  for (const victim of await workersOf(server, pids => pids.length === 2)) {
    process.kill(victim, 'SIGKILL')
    const fallen = new Set<string>()
    const look = async () => {
      const now = await metricsInTime(server, before)
      for (const [name, value] of before) if (isCount(name) && !(now.get(name)! >= value)) fallen.add(name)
      before = now
      return now.get(DESCRIPTORS)
    }
    await eventually(look, count => count === both / 2, 'the metrics of one worker')
    await eventually(look, count => count === both, 'the metrics of two')
    t.strictSame([...fallen], [])
    const published = before.get(PUBLISHED)!
    // the new worker may not have its store yet
    await publishSurely(server, 'a', 'after', `after-${published}`)
    before = await metricsOf(server)
    t.equal(before.get(PUBLISHED), published + 1, 'and they go on')
  }
  t.equal(before.get(PUBLISHED), 102)
})

t.test('a worker that ends by itself says before what it has counted', async t => {
  const server = await start(t, { DRAIN: '100ms' })
  const [victim] = await workersOf(server, pids => pids.length === 2)
  for (let index = 0; index < 50; index++) await publish(server, 'a', 'x')
  process.kill(victim!, 'SIGUSR2')
  await workersOf(server, pids => !pids.includes(victim!))
  t.equal((await metricsOf(server)).get(PUBLISHED), 50)
})

t.test('a replacement that cannot start is tried again, and the other worker goes on', async t => {
  const folder = t.testdir({})
  const { TLS_CERT, TLS_KEY, ca } = makeCertificate(folder)
  const redis = await redisFor(t)
  const server = await serve(t, { REDIS_URL: redis.url, WORKERS: '2', TLS_CERT, TLS_KEY })
  const [victim, other] = await workersOf(server, pids => pids.length === 2)
  const old = await fingerprintOf(server)
  writeFileSync(TLS_CERT, 'no PEM')
  process.kill(victim!, 'SIGKILL')
  await eventually(
    () => server.stderr(),
    said => said.includes('could not start (status 1); another one tries in 4 s'),
    'two attempts'
  )
  t.match(server.stderr(), `worker ${victim} ended (SIGKILL); another one takes its place in 1 s`)
  t.match(
    server.stderr(),
    /"level":40,.*TLS_CERT=.*PEM[^]*could not start \(status 1\); another one tries in 2 s/
  )
  const session = await openSession(t, server.url, ca)
  const stream = await openStream(session, '/events/a')
  t.equal((await openStream(session, '/events/a', { ':method': 'POST' }, 'served')).headers[':status'], 201)
  await stream.frames.until(() => stream.frames.all.some(({ data }) => data === 'served'), 'an event')

  makeCertificate(folder)
  await eventually(
    () => fingerprintOf(server),
    fingerprint => fingerprint !== old,
    'a worker with the new certificate'
  )
  await workersOf(server, pids => pids.length === 2 && pids.includes(other!))
  t.notOk(stream.stream.closed)
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

t.test('a wrong setting is told once, whatever the number of workers', async t => {
  const wrong = run(t, ['serve'], { WORKERS: '4', REDIS_URL: 'redis://127.0.0.1:99999' })
  t.match(await exitOf(wrong), { code: 1 })
  t.match(wrong.stderr(), /^ringside: REDIS_URL.*\n$/)
})

t.test('without Redis there can be one alone', async t => {
  const alone = run(t, ['serve'], { WORKERS: '2' })
  t.match(await exitOf(alone), { code: 1 })
  t.match(alone.stderr(), /^ringside: WORKERS=2: the memory broker belongs to one process; set REDIS_URL/)
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

/** The metrics, or those of before: a connection that was handed to a worker as it was killed is never answered. */
function metricsInTime(server: Address, before: Map<string, number>): Promise<Map<string, number>> {
  const late = delay(1000, before, { ref: false })
  return Promise.race([metricsOf(server).catch(() => before), late])
}

/** Which certificate a new connection is shown. */
function fingerprintOf({ port }: Address): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port, rejectUnauthorized: false })
  const shown = new Promise<string>((resolve, reject) => {
    socket.on('error', reject)
    socket.on('secureConnect', () => resolve(socket.getPeerCertificate().fingerprint256))
  })
  return inTime(shown, 'a certificate').finally(() => socket.destroy())
}

/** Whether a metric only grows: a counter, or a part of a histogram. Node has gauges that are called as counters are. */
function isCount(name: string): boolean {
  return /_(total|count|sum|bucket)(\{|$)/.test(name) && !name.startsWith('nodejs_active_')
}
