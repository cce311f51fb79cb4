import { setTimeout as sleep } from 'node:timers/promises'
import { Crowds } from '../load/crowd.ts'
import { missingRedis, redisUrl, startRedis } from '../load/redis.ts'
import { lackOfRoom } from '../load/room.ts'
import type { Server } from '../load/server.ts'
import { connected, metric } from '../metrics.ts'
import { KIB, RINGSIDE, round, type Bench, type Scenario } from '../scenario.ts'

/** Events that are published while half of the streams are away. */
const MISSED = 10

const MIB = KIB * KIB

/** New connections go to the workers in turn, whoever has left: so one of them may come to have more than its part. */
const SLACK = 0.1

export const hundredThousand: Scenario = {
  name: 'hundred-thousand',
  about:
    '100,000 streams on one machine: six workers on one port, with Redis, and six processes of the load. An event to all; ' +
    'half of the streams vanish without a FIN (their connections are reset), ten events are published, and they come ' +
    'back with their cursor; then another event to all. Memory is that of the whole server: the supervisor and its ' +
    'workers, as they are.',
  peers: RINGSIDE,
  missing: missingRedis,
  columns: [
    { key: 'streams', title: 'streams' },
    { key: 'opened', title: 'opened within, s', digits: 1 },
    { key: 'memory', title: 'server, MiB' },
    { key: 'each', title: 'a stream, KiB', digits: 2 },
    { key: 'delivered', title: 'got the event' },
    { key: 'milliseconds', title: 'the last within, ms' },
    { key: 'left', title: 'left' },
    { key: 'noticed', title: 'noticed within, s', digits: 1 },
    { key: 'resumed', title: 'came back' },
    { key: 'seconds', title: 'with all they missed within, s', digits: 1 },
    { key: 'missing', title: 'events missing' },
    { key: 'deliveredAfter', title: 'got the last event' },
    { key: 'millisecondsAfter', title: 'the last within, ms' },
    { key: 'memoryAfter', title: 'server then, MiB' }
  ],
  async measure(bench) {
    const streams = bench.size(100_000, 1000)
    const processes = bench.size(6, 2)
    const lack = lackOfRoom({ streams, processes })
    if (lack !== null) throw new Error(lack)

    const redis = bench.onStop(await startRedis())
    const server = await bench.start({
      REDIS_URL: redisUrl(redis),
      WORKERS: String(processes),
      MAX_CONNECTIONS: String(streams + streams * SLACK),
      // all come from a few addresses
      MAX_CONNECTIONS_PER_CLIENT: '0',
      CONNECT_RATE: '0'
    })
    await connected(server)
    const crowds = bench.onStop(new Crowds(bench.peer.name, server.port, processes))
    const empty = await server.settledMemory()

    const opened = await crowds.open(streams)
    if (crowds.streams !== streams)
      throw new Error(`${crowds.streams} streams of ${streams} have begun: ${crowds.refusal}`)
    const memory = await server.settledMemory()
    const first = await toAll(bench, server, crowds, 1)

    const leaving = performance.now()
    await crowds.vanish(0.5)
    const stayed = crowds.streams
    const left = await connectionsOnce(server, stayed)
    const noticed = performance.now() - leaving
    const live = await toAll(bench, server, crowds, MISSED)

    const away = { after: first.id, missed: MISSED }
    const returned = await crowds.open(streams - stayed, away)
    const last = await toAll(bench, server, crowds, 1)
    return {
      streams,
      opened: round(opened.milliseconds / 1000),
      memory: Math.round(memory / MIB),
      each: round((memory - empty) / streams / KIB, 2),
      delivered: first.events,
      milliseconds: first.milliseconds,
      left,
      noticed: round(noticed / 1000),
      resumed: crowds.streams - stayed,
      seconds: round(returned.milliseconds / 1000),
      missing: streams * MISSED - live.events - returned.events,
      deliveredAfter: last.events,
      millisecondsAfter: last.milliseconds,
      memoryAfter: Math.round((await server.settledMemory()) / MIB)
    }
  }
}

/** Publishes some events, until all who are there have them; with the id of the last. */
async function toAll(bench: Bench, server: Server, crowds: Crowds, events: number) {
  // a connection of its own each time: what is not used for a while is ended
  const publishers = await bench.publishers(server, 1)
  const arrival = await crowds.receive(events, () => publishers.publish(events))
  await publishers.settled()
  const id = /"id":"([^"]+)"/.exec(publishers.connections[0]!.lastAnswer)?.[1]
  if (id === undefined) throw new Error('what was published has no id')
  return { ...arrival, id }
}

/** Waits until the server has just so many streams: a worker that is too busy to tell its own is missing in the sum. */
async function connectionsOnce(server: Server, expected: number): Promise<number> {
  for (let tries = 0; ; tries++) {
    const connections = await metric(server, 'ringside_connections')
    if (connections === expected || tries === 600) return connections
    await sleep(50)
  }
}
