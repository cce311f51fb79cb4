import { setTimeout as delay } from 'node:timers/promises'
import { startCluster, startRedis, type ClusterSetup, type RedisServer } from '../support/redis-server.ts'
import type { Acknowledged } from './model.ts'

/** How long a Cluster may take to be whole again, in milliseconds. */
const WHOLE_MS = 30_000

/** The Redis of a run: one server, or a Cluster. */
export class Store {
  readonly servers: readonly RedisServer[]
  readonly cluster: ClusterSetup | null

  private constructor(servers: readonly RedisServer[], cluster: ClusterSetup | null) {
    this.servers = servers
    this.cluster = cluster
  }

  static async start(cluster: boolean): Promise<Store> {
    if (!cluster) return new Store([await startRedis({ persistent: true })], null)
    const setup = await startCluster({ persistent: true })
    return new Store(setup.nodes, setup)
  }

  async stop(): Promise<void> {
    await Promise.all(this.servers.map(server => server.stop()))
  }

  async primaries(): Promise<RedisServer[]> {
    const roles = await Promise.all(this.servers.map(server => server.info('replication').catch(() => null)))
    return this.servers.filter((_, index) => roles[index]?.['role'] === 'master')
  }

  /** Forgets everything. */
  async flush(): Promise<void> {
    for (const server of await this.primaries()) await server.flush()
  }

  /** The keys that a pattern matches. */
  async keys(pattern: string): Promise<string[]> {
    const found = await Promise.all((await this.primaries()).map(server => server.command('KEYS', pattern)))
    return found.flat() as string[]
  }

  /** The node that serves a key has ended as by a power cut, and its replica has taken over; resolves with the node. */
  killPrimary(key: string): Promise<RedisServer> {
    return this.cluster!.killPrimary(key)
  }

  /** Moves the slot of a key, with its keys, to another node that is a primary now. */
  async moveSlot(key: string): Promise<void> {
    const from = await this.cluster!.primaryOf(key)
    const to = (await this.primaries()).find(server => server !== from)!
    const slot = String(await from.command('CLUSTER', 'KEYSLOT', key))
    const fromId = String(await from.command('CLUSTER', 'MYID'))
    const toId = String(await to.command('CLUSTER', 'MYID'))
    await to.command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', fromId)
    await from.command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', toId)
    for (;;) {
      const keys = (await from.command('CLUSTER', 'GETKEYSINSLOT', slot, 20)) as string[]
      if (keys.length === 0) break
      await from.command('MIGRATE', '127.0.0.1', to.port, '', 0, 5000, 'KEYS', ...keys)
    }
    await to.command('CLUSTER', 'SETSLOT', slot, 'NODE', toId)
    await from.command('CLUSTER', 'SETSLOT', slot, 'NODE', toId)
  }

  /** Resolves when every node of a Cluster follows or leads. */
  async whole(): Promise<void> {
    const deadline = performance.now() + WHOLE_MS
    while (!(await this.#isWhole())) {
      if (performance.now() > deadline) throw new Error('the Cluster is not whole again')
      await delay(100)
    }
  }

  async #isWhole(): Promise<boolean> {
    const states = this.servers.map(async server => {
      const { role, master_link_status: link } = await server.info('replication')
      const state = String(await server.command('CLUSTER', 'INFO'))
      return {
        primary: role === 'master',
        good: (role === 'master' || link === 'up') && state.includes('cluster_state:ok')
      }
    })
    const found = await Promise.all(states).catch(() => [])
    return (
      found.every(({ good }) => good) &&
      found.filter(({ primary }) => primary).length === this.servers.length / 2
    )
  }

  /** Every event that the streams hold. */
  async contents(): Promise<Acknowledged[]> {
    const found: Acknowledged[] = []
    for (const server of await this.primaries()) {
      for (const key of (await server.command('KEYS', 'ringside:{*}:ring:*')) as string[]) {
        const entries = (await server.command('XRANGE', key, '-', '+')) as [id: string, fields: string[]][]
        for (const [id, fields] of entries) {
          const { topic, n } = JSON.parse(fields[fields.indexOf('d') + 1]!) as { topic: string; n: number }
          found.push({ topic, n, id })
        }
      }
    }
    return found
  }
}
