import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Publishers } from '../load/publishers.ts'
import { eventData } from '../load/event.ts'
import { Server } from '../load/server.ts'
import { hasProgram, LOAD_CORE, pinned, SERVER_CORE } from '../machine.ts'
import { RINGSIDE, type Bench, type Figures, type Scenario } from '../scenario.ts'

const CONNECTIONS = 16
const PIPELINED = 32
const BATCH = 50

export const publishRate: Scenario = {
  name: 'publish-rate',
  about:
    'Events stored a second with nobody there: 16 connections with 32 requests under way each, one event a request, ' +
    'and 50 (two requests under way). On the memory broker, and on Redis (on the load’s core), beside ' +
    'redis-benchmark’s bare XADD of the same event from as many connections, so many pipelined.',
  peers: RINGSIDE,
  columns: [
    { key: 'memory', title: 'memory, events/s' },
    { key: 'memoryBatch', title: 'batches of 50' },
    { key: 'redis', title: 'Redis, events/s' },
    { key: 'redisBatch', title: 'batches of 50' },
    { key: 'xadd', title: 'bare XADD/s' }
  ],
  async measure(bench) {
    const memory = await publishTo(bench, {})
    const figures: Figures = { memory: memory.single, memoryBatch: memory.batch }
    if (!hasProgram('redis-server') || !hasProgram('redis-benchmark')) return figures
    const redis = bench.onStop(await startRedis())
    const stored = await publishTo(bench, { REDIS_URL: `redis://127.0.0.1:${redis.port}` })
    return { ...figures, redis: stored.single, redisBatch: stored.batch, xadd: bareXadd(bench, redis.port) }
  }
}

/** Redis as it comes, without what would write to the disk in the midst of it. */
function startRedis(): Promise<Server> {
  return Server.start(
    ({ port, directory }) => ({
      file: 'redis-server',
      args: ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', directory]
    }),
    { core: LOAD_CORE }
  )
}

async function publishTo(bench: Bench, settings: Record<string, string>) {
  const server = await bench.start(settings)
  const publishers = await bench.publishers(server, CONNECTIONS)
  const single = await closedLoop(bench, publishers, PIPELINED, 1)
  const batch = await closedLoop(bench, publishers, 2, BATCH)
  await publishers.settled()
  await server.stop()
  return { single, batch }
}

/** Each connection always has so many requests under way; answers how many events were stored a second. */
async function closedLoop(
  bench: Bench,
  publishers: Publishers,
  underWay: number,
  size: number
): Promise<number> {
  let running = true
  for (const connection of publishers.connections) {
    connection.onAnswer = () => {
      if (!running) return
      const room = underWay - connection.underWay
      if (size === 1) publishers.publish(room, undefined, connection)
      else for (let left = room; left > 0; left--) publishers.publishBatch(size, undefined, connection)
    }
    connection.onAnswer()
  }
  await sleep(bench.size(2000, 400))
  const { answered } = publishers
  const started = performance.now()
  await sleep(bench.size(8000, 600))
  const seconds = (performance.now() - started) / 1000
  const stored = (publishers.answered - answered) * size
  running = false
  await publishers.settled()
  return Math.round(stored / seconds)
}

function bareXadd(bench: Bench, port: number): number {
  const [file, args] = pinned(SERVER_CORE, 'redis-benchmark', [
    ...['-p', String(port), '-q', '--csv', '-c', String(CONNECTIONS), '-P', String(PIPELINED)],
    ...['-n', String(bench.size(2_000_000, 100_000))],
    ...['XADD', 'bench', 'MAXLEN', '~', '1000', '*', 'data', eventData(0)]
  ])
  const { stdout } = spawnSync(file, args, { encoding: 'utf8' })
  // "name","rps",…; the name holds commas and quotes
  const rates =
    stdout
      .trim()
      .split('\n')
      .at(-1)
      ?.match(/"\d+\.\d+"/g) ?? []
  return Math.round(Number(rates[0]?.slice(1, -1)))
}
