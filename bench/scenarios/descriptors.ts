import { setTimeout as sleep } from 'node:timers/promises'
import { metric } from '../metrics.ts'
import { RINGSIDE, type Scenario } from '../scenario.ts'

/** The limit when it must be quick. */
const QUICK_LIMIT = 2500

export const descriptors: Scenario = {
  name: 'descriptors',
  about:
    'Streams are opened until the server refuses one, or the load itself can open no more. Then an event to all, half ' +
    'of them vanish without a FIN (their connections are reset), and an event to those that are left.',
  peers: RINGSIDE,
  columns: [
    { key: 'limit', title: 'descriptors' },
    { key: 'opened', title: 'streams' },
    { key: 'refusal', title: 'then' },
    { key: 'delivered', title: 'got the event' },
    { key: 'milliseconds', title: 'within, ms' },
    { key: 'left', title: 'left' },
    { key: 'deliveredAfter', title: 'got the next' }
  ],
  async measure(bench) {
    const server = await bench.start({}, { descriptors: bench.quick ? QUICK_LIMIT : undefined })
    const limit = server.descriptors
    const publishers = await bench.publishers(server, 1)
    const subscribers = bench.subscribers(server)
    while (subscribers.refused === 0) await subscribers.open(100)
    const opened = subscribers.sockets.size
    const { refusal } = subscribers

    const all = await toAll()
    const half = [...subscribers.sockets].filter((_, index) => index % 2 === 0)
    await subscribers.close(true, half)
    for (let tries = 0; tries < 100; tries++) {
      if ((await metric(server, 'ringside_connections')) <= subscribers.sockets.size) break
      await sleep(50)
    }
    const left = await metric(server, 'ringside_connections')
    const rest = await toAll()
    await subscribers.close()
    return {
      limit,
      opened,
      refusal,
      delivered: all.events,
      milliseconds: all.milliseconds,
      left,
      deliveredAfter: rest.events
    }

    async function toAll() {
      const { events } = subscribers
      const started = performance.now()
      publishers.publish()
      await subscribers.received(events + subscribers.sockets.size, 3000)
      return { events: subscribers.events - events, milliseconds: Math.round(performance.now() - started) }
    }
  }
}
