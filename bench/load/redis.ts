import { setTimeout as sleep } from 'node:timers/promises'
import { hasProgram, LOAD_CORE, output } from '../machine.ts'
import { Server } from './server.ts'

/** What is missing of Redis; null when it is there. */
export function missingRedis(): string | null {
  const missing = ['redis-server', 'redis-benchmark'].filter(name => !hasProgram(name))
  return missing.length === 0 ? null : `${missing.join(', ')} (Debian: redis-server, redis-tools)`
}

/** Redis as it comes, on the load's core, without what would write to the disk in the midst of it. */
export function startRedis(optionsFor: (port: number) => readonly string[] = () => []): Promise<Server> {
  return Server.start(
    ({ port, directory }) => ({
      file: 'redis-server',
      args: [
        ...['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--dir', directory],
        ...optionsFor(port)
      ]
    }),
    { core: LOAD_CORE }
  )
}

/** One server, or the nodes of a Cluster. */
export function redisUrl(...servers: readonly Server[]): string {
  return `redis://${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`
}

const SLOTS = 16_384

/** A Cluster of primaries alone, as soon as each of them says that it is whole. */
export async function startRedisCluster(count: number): Promise<Server[]> {
  const nodes = await Promise.all(
    Array.from({ length: count }, () =>
      startRedis(port => ['--cluster-enabled', 'yes', '--cluster-port', String(busPortOf(port))])
    )
  )
  const firstSlot = (index: number) => Math.round((SLOTS * index) / count)
  for (const [index, { port }] of nodes.entries()) {
    ask(port, 'cluster', 'addslotsrange', firstSlot(index), firstSlot(index + 1) - 1)
    if (index > 0) ask(nodes[0]!.port, 'cluster', 'meet', '127.0.0.1', port, busPortOf(port))
  }
  while (!nodes.every(({ port }) => ask(port, 'cluster', 'info').includes('cluster_state:ok')))
    await sleep(50)
  return nodes
}

/** Below the ports that are given to whoever asks for one. */
function busPortOf(port: number): number {
  return port - 30_000
}

function ask(port: number, ...command: (string | number)[]): string {
  return output('redis-cli', ['-p', String(port), ...command.map(String)])
}
