import { setTimeout as sleep } from 'node:timers/promises'
import { Crowd, type Order } from '../load/crowd.ts'
import { missingRedis, redisUrl, startRedis } from '../load/redis.ts'
import { metric } from '../metrics.ts'
import { RINGSIDE, type Scenario } from '../scenario.ts'

const WORKERS = 2

export const workers: Scenario = {
  name: 'workers',
  about:
    'Two workers on one port, with Redis: streams from two processes of the load, 18,000 each. Then an event to all, half ' +
    'of them vanish without a FIN (their connections are reset), and an event to those that are left.',
  peers: RINGSIDE,
  missing: missingRedis,
  columns: [
    { key: 'limit', title: 'descriptors each' },
    { key: 'streams', title: 'streams' },
    { key: 'refused', title: 'refused' },
    { key: 'delivered', title: 'got the event' },
    { key: 'milliseconds', title: 'within, ms' },
    { key: 'left', title: 'left' },
    { key: 'deliveredAfter', title: 'got the next' }
  ],
  async measure(bench) {
    const each = bench.size(18_000, 500)
    const redis = bench.onStop(await startRedis())
    const server = await bench.start({ REDIS_URL: redisUrl(redis), WORKERS: String(WORKERS) })
    while ((await metric(server, 'ringside_broker_up')) !== 1) await sleep(50)
    const publishers = await bench.publishers(server, 1)
    const crowds = Array.from({ length: WORKERS }, () =>
      bench.onStop(new Crowd(bench.peer.name, server.port))
    )
    const tell = (order: Order) => Promise.all(crowds.map(crowd => crowd.tell(order)))
    const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0)

    const opened = await tell({ order: 'open', count: each })
    const streams = await metric(server, 'ringside_connections')
    const all = await toAll()
    const remaining = sum((await tell({ order: 'vanish', part: 0.5 })).map(crowd => crowd.streams))
    for (let tries = 0; tries < 100; tries++) {
      if ((await metric(server, 'ringside_connections')) <= remaining) break
      await sleep(50)
    }
    const left = await metric(server, 'ringside_connections')
    const rest = await toAll()
    return {
      limit: server.descriptors,
      streams,
      refused: opened.find(({ refusal }) => refusal !== '')?.refusal ?? 0,
      delivered: all.events,
      milliseconds: all.milliseconds,
      left,
      deliveredAfter: rest.events
    }

    async function toAll() {
      const before = await tell({ order: 'wait', events: 0 })
      const started = performance.now()
      publishers.publish()
      const after = await Promise.all(
        crowds.map((crowd, index) => {
          const { events, streams } = before[index]!
          return crowd.tell({ order: 'wait', events: events + streams })
        })
      )
      const milliseconds = Math.round(performance.now() - started)
      const events = (standings: typeof before) => sum(standings.map(standing => standing.events))
      return { events: events(after) - events(before), milliseconds }
    }
  }
}
