import { round, type Scenario } from '../scenario.ts'

export const connectStorm: Scenario = {
  name: 'connect-storm',
  about: '10,000 streams opened as fast as they come, 256 at a time: until each has begun.',
  peers: [
    'net',
    'http',
    'ringside',
    'ws',
    'socket.io',
    'fastify-sse',
    'better-sse',
    'nchan',
    'centrifugo',
    'centrifuge'
  ],
  quickPeers: ['http', 'ringside'],
  columns: [
    { key: 'seconds', title: 'time, s', digits: 2, floor: 'http' },
    { key: 'cpu', title: 'CPU a stream, µs', floor: 'http' },
    { key: 'rate', title: 'streams/s' }
  ],
  async measure(bench) {
    const count = bench.size(10_000, 500)
    const server = await bench.start()
    const warm = bench.subscribers(server)
    await warm.open(bench.size(2000, 200))
    await warm.close()
    const subscribers = bench.subscribers(server)
    const cpu = server.cpu()
    const started = performance.now()
    await subscribers.open(count, { concurrency: 256 })
    const seconds = (performance.now() - started) / 1000
    const used = server.cpu() - cpu
    if (subscribers.refused > 0)
      throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
    return { seconds: round(seconds, 3), cpu: Math.round(used / count), rate: Math.round(count / seconds) }
  }
}
