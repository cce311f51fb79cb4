import { KIB, round, type Scenario } from '../scenario.ts'

const AT_ONCE = 500

export const churn: Scenario = {
  name: 'churn',
  about:
    '100,000 streams that come and go, 500 at a time: by how much the memory (PSS) of the process has grown after ' +
    '50,000 and after all, its garbage collected. What were kept of each would show twice in the second.',
  peers: ['net', 'http', 'ringside', 'ws', 'better-sse'],
  quickPeers: ['ringside'],
  columns: [
    { key: 'half', title: 'after 50,000, MiB', digits: 1 },
    { key: 'all', title: 'after 100,000, MiB', digits: 1 },
    { key: 'refused', title: 'refused' },
    { key: 'rate', title: 'streams/s' }
  ],
  async measure(bench) {
    const server = await bench.start({}, { collectable: true })
    const subscribers = bench.subscribers(server)
    const cycles = bench.size(100_000, 1000)
    const comeAndGo = async (total: number) => {
      const started = performance.now()
      for (let done = 0; done < total; done += AT_ONCE) {
        await subscribers.open(AT_ONCE)
        await subscribers.close()
      }
      return (performance.now() - started) / 1000
    }
    await comeAndGo(bench.size(10_000, 500))
    const before = await server.restingMemory()
    const grown = async () => round(((await server.restingMemory()) - before) / KIB / KIB, 2)
    const firstSeconds = await comeAndGo(cycles / 2)
    const half = await grown()
    const seconds = firstSeconds + (await comeAndGo(cycles / 2))
    const { refused } = subscribers
    return { half, all: await grown(), refused, rate: Math.round(cycles / seconds) }
  }
}
