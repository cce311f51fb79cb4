import type { Server } from '../load/server.ts'
import { EVERYONE, KIB, round, type Bench, type Figures, type Scenario } from '../scenario.ts'

export const idle: Scenario = {
  name: 'idle',
  about:
    'Growth of the memory (PSS) of the process by 10,000 streams that wait: on connections of their own, and on ' +
    'connections that served a page before, as a browser’s do; as it is, and after the garbage was collected. Then ' +
    'the growth after 100,000 connects and disconnects, in all.',
  peers: EVERYONE,
  quickPeers: ['net', 'http', 'ringside'],
  columns: [
    { key: 'fresh', title: 'a stream, KiB', digits: 1, floor: 'net' },
    { key: 'freshCollected', title: 'collected, KiB', digits: 1 },
    { key: 'kept', title: 'after a page, KiB', digits: 1, floor: 'net' },
    { key: 'keptCollected', title: 'collected, KiB', digits: 1 },
    { key: 'churn', title: 'growth by the cycles, MiB', digits: 1 }
  ],
  async measure(bench) {
    const count = bench.size(10_000, 2000)
    return {
      connections: count,
      ...(await growth(bench, count, false, 'fresh')),
      ...(await growth(bench, count, true, 'kept')),
      ...(await churn(bench, bench.size(100_000, 5000)))
    }
  }
}

async function growth(bench: Bench, count: number, page: boolean, key: string): Promise<Figures> {
  const server = await bench.start({}, { collectable: true })
  const collectable = isCollectable(bench)
  await warmUp(bench, server, page)
  const before = await rest(server, collectable)
  const subscribers = bench.subscribers(server)
  await subscribers.open(count, { page })
  if (subscribers.refused > 0) throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
  const perStream = (memory: number) => round((memory - before) / count / KIB, 2)
  const asItIs = perStream(await server.settledMemory())
  const collected = collectable ? { [`${key}Collected`]: perStream(await server.collectedMemory()) } : {}
  await subscribers.close()
  await server.stop()
  return { [key]: asItIs, ...collected }
}

/** What is only loaded, compiled or allocated once isn't any stream's. */
async function warmUp(bench: Bench, server: Server, page: boolean): Promise<void> {
  const subscribers = bench.subscribers(server)
  await subscribers.open(500, { page })
  await subscribers.close()
}

async function churn(bench: Bench, cycles: number): Promise<Figures> {
  const server = await bench.start({}, { collectable: true })
  const collectable = isCollectable(bench)
  const subscribers = bench.subscribers(server)
  const AT_ONCE = 500
  const some = async (total: number) => {
    for (let done = 0; done < total; done += AT_ONCE) {
      await subscribers.open(AT_ONCE)
      await subscribers.close()
    }
  }
  await some(bench.size(5000, 2000))
  const before = await rest(server, collectable)
  await some(cycles)
  const after = await rest(server, collectable)
  await server.stop()
  return { cycles, churn: round((after - before) / KIB / KIB), refused: subscribers.refused }
}

function rest(server: Server, collectable: boolean): Promise<number> {
  return collectable ? server.collectedMemory() : server.settledMemory()
}

function isCollectable({ peer }: Bench): boolean {
  return peer.command({})({ port: 0, directory: '/nonexistent' }).file === process.execPath
}
