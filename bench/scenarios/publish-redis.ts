import { closedLoop } from '../load/closed-loop.ts'
import { eventData } from '../load/event.ts'
import { missingRedis, redisUrl, startRedis } from '../load/redis.ts'
import type { Server } from '../load/server.ts'
import { output, pinned, script, SERVER_CORE } from '../machine.ts'
import { connected } from '../metrics.ts'
import { RINGSIDE, type Bench, type Scenario } from '../scenario.ts'

const CONNECTIONS = 16
const PIPELINED = 32

export const publishRedis: Scenario = {
  name: 'publish-redis',
  about:
    'Events of one instance stored a second in Redis (on the load’s core), with nobody there: over HTTP from 16 ' +
    'connections, one event a request (32 under way), and in batches of 50 and 100 (two under way); by the broker ' +
    'alone, called in its process for batches of 50 and 100, 16 under way; and, beside these, a bare XADD of the same ' +
    'data to a stream of the same length by redis-benchmark, from 16 connections that pipeline 50 and 100.',
  peers: RINGSIDE,
  missing: missingRedis,
  columns: [
    { key: 'single', title: 'HTTP, one a request', per: 'broker50' },
    { key: 'http50', title: 'HTTP, 50', per: 'broker50' },
    { key: 'http100', title: 'HTTP, 100', per: 'broker100' },
    { key: 'broker50', title: 'broker, 50', per: 'xadd50' },
    { key: 'broker100', title: 'broker, 100', per: 'xadd100' },
    { key: 'xadd50', title: 'bare XADD, 50' },
    { key: 'xadd100', title: 'bare XADD, 100' }
  ],
  async measure(bench) {
    const redis = bench.onStop(await startRedis())
    const server = await bench.start({ REDIS_URL: redisUrl(redis) })
    await connected(server)
    const publishers = await bench.publishers(server, CONNECTIONS)
    const rate = async (underWay: number, size: number) =>
      (await closedLoop(bench, server, publishers, { underWay, size })).rate
    const single = await rate(PIPELINED, 1)
    const http50 = await rate(2, 50)
    const http100 = await rate(2, 100)
    await server.stop()
    return {
      ...{ single, http50, http100 },
      broker50: appends(bench, redis, 50),
      broker100: appends(bench, redis, 100),
      xadd50: bareXadds(bench, redis, 50),
      xadd100: bareXadds(bench, redis, 100)
    }
  }
}

/** What the broker stores a second, in a process of its own on the server's core. */
function appends(bench: Bench, redis: Server, batch: number): number {
  const job = { url: redisUrl(redis), batch, underWay: CONNECTIONS, milliseconds: bench.size(6000, 400) }
  return Number(
    output(...pinned(SERVER_CORE, process.execPath, [script('load/appender'), JSON.stringify(job)]))
  )
}

/** What Redis adds a second to a stream of as many events as a ring has. */
function bareXadds(bench: Bench, { port }: Server, pipelined: number): number {
  const lines = output(
    ...pinned(SERVER_CORE, 'redis-benchmark', [
      ...['-p', String(port), '-q', '--csv', '-c', String(CONNECTIONS), '-P', String(pipelined)],
      ...['-n', String(bench.size(2_000_000, 50_000))],
      ...['XADD', 'bench', 'MAXLEN', '1000', '*', 'data', eventData(0)]
    ])
  )
  // "name","rps",…; the name holds commas and quotes
  const rates =
    lines
      .split('\n')
      .at(-1)
      ?.match(/"\d+\.\d+"/g) ?? []
  return Math.round(Number(rates[0]?.slice(1, -1)))
}
