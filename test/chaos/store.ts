import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { allOf, openEvent } from '../../src/broker/disk/records.ts'
import { Store as DiskStore } from '../../src/broker/disk/store.ts'
import { formatPosition } from '../../src/event.ts'
import { startCluster, startRedis, startSentinel } from '../support/redis-server.ts'
import type { ClusterSetup, RedisServer, SentinelSetup } from '../support/redis-server.ts'
import type { Acknowledged } from './model.ts'

/** How long a Cluster may take to be whole again, in milliseconds. */
const WHOLE_MS = 30_000

export type StoreKind = 'disk' | 'single' | 'sentinel' | 'cluster'

/** The store of a run: a folder; or Redis as one server, as one with a replica that Sentinels watch, or as a Cluster. */
export class Store {
  readonly folder: string | null
  readonly servers: readonly RedisServer[]
  readonly cluster: ClusterSetup | null
  readonly sentinel: SentinelSetup | null

  private constructor(
    servers: readonly RedisServer[],
    {
      folder = null,
      cluster = null,
      sentinel = null
    }: Partial<Pick<Store, 'folder' | 'cluster' | 'sentinel'>>
  ) {
    this.servers = servers
    this.folder = folder
    this.cluster = cluster
    this.sentinel = sentinel
  }

  static async start(kind: StoreKind): Promise<Store> {
    if (kind === 'disk')
      return new Store([], { folder: mkdtempSync(join(tmpdir(), 'ringside-chaos-store-')) })
    const options = { persistent: true }
    if (kind === 'single') return new Store([await startRedis(options)], {})
    if (kind === 'sentinel') {
      const sentinel = await startSentinel(options)
      return new Store(sentinel.servers, { sentinel })
    }
    const cluster = await startCluster(options)
    return new Store(cluster.nodes, { cluster })
  }

  /** Where instances find it; null where each has a proxy of its own before it. */
  get url(): string | null {
    return this.cluster?.url ?? this.sentinel?.url ?? null
  }

  async stop(): Promise<void> {
    await Promise.all([this.sentinel?.stop(), ...this.servers.map(server => server.stop())])
    if (this.folder) rmSync(this.folder, { recursive: true, force: true })
  }

  async primaries(): Promise<RedisServer[]> {
    const roles = await Promise.all(this.servers.map(server => server.info('replication').catch(() => null)))
    return this.servers.filter((_, index) => roles[index]?.['role'] === 'master')
  }

  /** Forgets everything. A folder must not be in use. */
  async flush(): Promise<void> {
    if (this.folder) rmSync(this.folder, { recursive: true })
    for (const server of await this.primaries()) await server.flush()
  }

  /** The keys that a pattern matches. */
  async keys(pattern: string): Promise<string[]> {
    const found = await Promise.all((await this.primaries()).map(server => server.command('KEYS', pattern)))
    return found.flat() as string[]
  }

  /** The node that serves a key has ended as by a power cut, and its replica has taken over; resolves with the node. */
  killPrimary(key: string): Promise<RedisServer> {
    return this.sentinel?.killMaster() ?? this.cluster!.killPrimary(key)
  }

  /** Asks all servers that answer. */
  async tell(...command: (string | number)[]): Promise<void> {
    await Promise.allSettled(this.servers.map(server => server.command(...command)))
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

  /** Resolves when every node follows or leads. */
  async whole(): Promise<void> {
    const deadline = performance.now() + WHOLE_MS
    while (!(await this.#isWhole())) {
      if (performance.now() > deadline) throw new Error('the store is not whole again')
      await delay(100)
    }
  }

  async #isWhole(): Promise<boolean> {
    const states = this.servers.map(async server => {
      const { role, master_link_status: link } = await server.info('replication')
      const isServing =
        !this.cluster || String(await server.command('CLUSTER', 'INFO')).includes('cluster_state:ok')
      return { primary: role === 'master', good: (role === 'master' || link === 'up') && isServing }
    })
    const found = await Promise.all(states).catch(() => [])
    return (
      found.length > 0 &&
      found.every(({ good }) => good) &&
      found.filter(({ primary }) => primary).length === this.servers.length / 2
    )
  }

  /** Every event that is stored. A folder must not be in use. */
  async contents(): Promise<Acknowledged[]> {
    if (this.folder) return contentsOf(this.folder)
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

async function contentsOf(folder: string): Promise<Acknowledged[]> {
  const found: Acknowledged[] = []
  const store = await DiskStore.open(folder)
  for await (const part of store.parts(allOf('events'))) {
    for (const [key, value] of part) {
      const { data, id } = openEvent(key, value)
      const { topic, n } = JSON.parse(String(data)) as { topic: string; n: number }
      found.push({ topic, n, id: formatPosition(id) })
    }
  }
  await store.close()
  return found
}
