import type { Server } from '../load/server.ts'
import { EVERYONE, KIB, round, type Bench, type Figures, type Scenario } from '../scenario.ts'

export const idle: Scenario = {
  name: 'idle',
  about:
    'Growth of the memory (PSS) of the process by 10,000 streams that wait: on connections of their own (over HTTP/2: ' +
    '100 on each), and on connections that served a page before, as a browser’s do; as it is, and after the garbage ' +
    'was collected.',
  peers: EVERYONE.filter(name => name !== 'ringside-disk'),
  quickPeers: ['net', 'ringside'],
  columns: [
    { key: 'fresh', title: 'a stream, KiB', digits: 1, floor: 'net' },
    { key: 'freshCollected', title: 'collected, KiB', digits: 1 },
    { key: 'kept', title: 'after a page, KiB', digits: 1, floor: 'net' },
    { key: 'keptCollected', title: 'collected, KiB', digits: 1 }
  ],
  async measure(bench) {
    const count = bench.size(10_000, 300)
    const fresh = await growth(bench, count, false, 'fresh')
    if (bench.peer.transport === 'http2') return { streams: count, ...fresh }
    return { streams: count, ...fresh, ...(await growth(bench, count, true, 'kept')) }
  }
}

async function growth(bench: Bench, count: number, page: boolean, key: string): Promise<Figures> {
  const server = await bench.start({}, { collectable: true })
  await warmUp(bench, server, page)
  const before = await server.restingMemory()
  const subscribers = bench.subscribers(server)
  await subscribers.open(count, { page })
  if (subscribers.refused > 0) throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
  const perStream = (memory: number) => round((memory - before) / count / KIB, 2)
  const asItIs = perStream(await server.settledMemory())
  const collected = server.collectable ? { [`${key}Collected`]: perStream(await server.restingMemory()) } : {}
  await subscribers.close()
  await server.stop()
  return { [key]: asItIs, ...collected }
}

/** What is only loaded, compiled or allocated once isn't any stream's. */
async function warmUp(bench: Bench, server: Server, page: boolean): Promise<void> {
  const subscribers = bench.subscribers(server)
  await subscribers.open(bench.size(500, 100), { page })
  await subscribers.close()
}
