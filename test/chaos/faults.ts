import { setTimeout as delay } from 'node:timers/promises'
import type { Fleet } from './fleet.ts'
import type { Forgetting } from './model.ts'
import type { FaultyProxy } from './proxy.ts'
import type { Random } from './random.ts'
import type { Store } from './store.ts'

export interface World {
  readonly fleet: Fleet
  readonly store: Store
  /** One for each instance; none before a Cluster, whose nodes tell their own addresses. */
  readonly proxies: readonly FaultyProxy[]
  readonly forgettings: Forgetting[]
  readonly note: (what: string) => void
}

/** A fault takes its choices from the random numbers at once, so that a seed repeats them. */
type Prepare = (
  world: World,
  random: Random
) => { readonly target: string; readonly strike: () => Promise<void> }

const instanceKilled: Prepare = ({ fleet }, random) => {
  const slot = random.whole(0, fleet.size - 1)
  const down = random.whole(0, 1500)
  const strike = async () => {
    await fleet.at(slot).kill()
    await delay(down)
    await fleet.start(slot)
  }
  return { target: `instance ${slot}`, strike }
}

const instanceStopped: Prepare = ({ fleet }, random) => {
  const slot = random.whole(0, fleet.size - 1)
  const strike = async () => {
    const leaving = fleet.at(slot)
    leaving.signal('SIGTERM')
    await fleet.start(slot)
    const code = await leaving.exited
    if (code !== 0) throw new Error(`${leaving.name} ended with ${code} after SIGTERM`)
  }
  return { target: `instance ${slot}`, strike }
}

/** Two at a time can't be on one folder. */
const instanceRestarted: Prepare = ({ fleet }) => {
  const strike = async () => {
    const leaving = fleet.at(0)
    leaving.signal('SIGTERM')
    const code = await leaving.exited
    if (code !== 0) throw new Error(`${leaving.name} ended with ${code} after SIGTERM`)
    await fleet.start(0)
  }
  return { target: 'instance 0', strike }
}

const instanceFrozen: Prepare = ({ fleet }, random) => {
  const slot = random.whole(0, fleet.size - 1)
  const frozen = random.whole(200, 3000)
  const strike = async () => {
    fleet.at(slot).signal('SIGSTOP')
    await delay(frozen)
    fleet.at(slot).signal('SIGCONT')
  }
  return { target: `instance ${slot}`, strike }
}

const redisKilled: Prepare = ({ store }, random) => {
  const down = random.whole(0, 2000)
  const strike = async () => {
    const server = store.servers[0]!
    await server.kill()
    await delay(down)
    await server.start()
  }
  return { target: 'redis', strike }
}

const redisFrozen: Prepare = ({ store }, random) => {
  const frozen = random.whole(200, 4000)
  const strike = async () => {
    const server = store.servers[0]!
    server.freeze()
    await delay(frozen)
    server.thaw()
  }
  return { target: 'redis', strike }
}

const cut: Prepare = ({ proxies }, random) => {
  const slot = random.whole(0, proxies.length - 1)
  return { target: `proxy ${slot}`, strike: async () => proxies[slot]!.cut() }
}

function halfOpen(...directions: ('up' | 'down')[]): Prepare {
  return ({ proxies }, random) => {
    const slot = random.whole(0, proxies.length - 1)
    const blocked = random.whole(200, 6000)
    // what was held back comes late, or never
    const late = random.chance(0.5)
    const strike = async () => {
      const proxy = proxies[slot]!
      proxy.block(...directions)
      await delay(blocked)
      if (!late) proxy.cut()
      proxy.open()
    }
    return { target: `proxy ${slot}`, strike }
  }
}

const slow: Prepare = ({ proxies }, random) => {
  const slot = random.whole(0, proxies.length - 1)
  const [ms, lasts] = [random.whole(20, 400), random.whole(500, 4000)]
  const strike = async () => {
    proxies[slot]!.delay(ms)
    await delay(lasts)
    proxies[slot]!.delay(0)
  }
  return { target: `proxy ${slot}`, strike }
}

const primaryKilled: Prepare = ({ store, forgettings }, random) => {
  const [chosen, down] = [random.next(), random.whole(300, 3000)]
  const strike = async () => {
    const from = Date.now()
    const killed = await store.killPrimary(await clockKey(store, chosen))
    forgettings.push({ from, to: Date.now() })
    await delay(down)
    await killed.start()
    await store.whole()
  }
  return { target: 'redis', strike }
}

const nodeRestarted: Prepare = ({ store, forgettings }, random) => {
  const server = random.pick(store.servers)
  const strike = async () => {
    const from = Date.now()
    await server.restart()
    await store.whole()
    forgettings.push({ from, to: Date.now() })
  }
  return { target: 'redis', strike }
}

const nodeFrozen: Prepare = ({ store, forgettings }, random) => {
  const server = random.pick(store.servers)
  const frozen = random.whole(200, 4000)
  const strike = async () => {
    const from = Date.now()
    server.freeze()
    await delay(frozen)
    server.thaw()
    await store.whole()
    forgettings.push({ from, to: Date.now() })
  }
  return { target: 'redis', strike }
}

const slotMoved: Prepare = ({ store }, random) => {
  const chosen = random.next()
  const strike = async () => {
    await store.moveSlot(await clockKey(store, chosen))
    await store.whole()
  }
  return { target: 'redis', strike }
}

/** All that it knows of our scripts is gone. */
const scriptsForgotten: Prepare = ({ store }) => ({
  target: 'scripts',
  strike: () => store.tell('SCRIPT', 'FLUSH')
})

/** Either those that ask, or those that listen. Not while something else strikes: what that asks would be cut as well. */
const clientsKilled: Prepare = ({ store }, random) => {
  const type = random.pick(['normal', 'pubsub'])
  return { target: 'redis', strike: () => store.tell('CLIENT', 'KILL', 'TYPE', type) }
}

/** Nobody is answered, or nobody who writes; what was asked is done later. */
const clientsPaused: Prepare = ({ store }, random) => {
  const [mode, ms] = [random.pick(['ALL', 'WRITE']), random.whole(200, 4000)]
  const strike = async () => {
    await store.tell('CLIENT', 'PAUSE', ms, mode)
    await delay(ms)
  }
  return { target: 'redis', strike }
}

/** What needs room is refused. */
const memoryFull: Prepare = ({ store }, random) => {
  const ms = random.whole(300, 3000)
  const strike = async () => {
    await store.tell('CONFIG', 'SET', 'maxmemory-policy', 'noeviction', 'maxmemory', '1')
    await delay(ms)
    await store.tell('CONFIG', 'SET', 'maxmemory', '0')
  }
  return { target: 'redis', strike }
}

/** A key of one of the shards. */
async function clockKey(store: Store, chosen: number): Promise<string> {
  const keys = (await store.keys('ringside:{*}:clock')).sort()
  const key = keys[Math.floor(chosen * keys.length)]
  if (!key) throw new Error('no shard has begun')
  return key
}

const OF_INSTANCES: Record<string, Prepare> = {
  'instance killed': instanceKilled,
  'instance stopped': instanceStopped,
  'instance frozen': instanceFrozen
}

const OF_EVERY_REDIS: Record<string, Prepare> = {
  'scripts forgotten': scriptsForgotten,
  'clients killed': clientsKilled,
  'clients paused': clientsPaused,
  'memory full': memoryFull
}

const OF_ONE_REDIS: Record<string, Prepare> = {
  'Redis killed': redisKilled,
  'Redis frozen': redisFrozen,
  'connections cut': cut,
  'half-open': halfOpen('up', 'down'),
  'half-open to Redis': halfOpen('up'),
  'half-open from Redis': halfOpen('down'),
  'slow network': slow
}

const OF_A_CLUSTER: Record<string, Prepare> = {
  'primary killed': primaryKilled,
  'node restarted': nodeRestarted,
  'node frozen': nodeFrozen,
  'slot moved': slotMoved
}

const OF_SENTINEL: Record<string, Prepare> = {
  'primary killed': primaryKilled,
  'node restarted': nodeRestarted,
  'node frozen': nodeFrozen
}

const OF_A_FOLDER: Record<string, Prepare> = {
  'instance killed': instanceKilled,
  'instance killed again': instanceKilled,
  'instance restarted': instanceRestarted,
  'instance frozen': instanceFrozen
}

function faultsOf({ folder, cluster, sentinel }: Store): Record<string, Prepare> {
  if (folder) return OF_A_FOLDER
  const own = cluster ? OF_A_CLUSTER : sentinel ? OF_SENTINEL : OF_ONE_REDIS
  return { ...OF_INSTANCES, ...OF_EVERY_REDIS, ...own }
}

/** Strikes at random moments, at what is not struck already, and once forgets everything. */
export class Faults {
  readonly counts: Record<string, number> = {}
  /** Faults that went wrong themselves: an instance that doesn't start again, a Cluster that doesn't heal. */
  readonly failures: string[] = []
  readonly #world: World
  readonly #random: Random
  readonly #struck = new Map<string, Promise<void>>()

  constructor(world: World, random: Random) {
    this.#world = world
    this.#random = random
  }

  /** Resolves when all is well again, after so many milliseconds. */
  async run(ms: number): Promise<void> {
    const kinds = Object.entries(faultsOf(this.#world.store))
    const started = performance.now()
    const left = () => ms - (performance.now() - started)
    const flushed = delay(ms / 2).then(() => this.#flush())
    // first all shall have begun
    await delay(Math.min(2000, ms / 10))
    while (left() > 0) {
      const [kind, prepare] = this.#random.pick(kinds)
      const { target, strike } = prepare(this.#world, this.#random.fork())
      const pause = delay(Math.min(this.#random.whole(300, 3000), Math.max(0, left())))
      if (!this.#struck.has(target)) void this.#strike(kind, target, strike)
      await pause
    }
    await flushed
    await Promise.all(this.#struck.values())
  }

  async #flush(): Promise<void> {
    const { fleet, store, forgettings } = this.#world
    const target = store.folder ? 'instance 0' : 'redis'
    while (this.#struck.has(target)) await this.#struck.get(target)
    const flush = async () => {
      const from = Date.now()
      if (store.folder) await fleet.at(0).kill()
      await store.flush()
      if (store.folder) await fleet.start(0)
      forgettings.push({ from, to: Date.now() })
    }
    await this.#strike('all forgotten', target, flush)
  }

  async #strike(kind: string, target: string, strike: () => Promise<void>): Promise<void> {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1
    this.#world.note(`${kind} (${target})`)
    const struck = strike().then(
      () => this.#world.note(`${kind} (${target}): over`),
      (error: unknown) => {
        this.#world.note(`${kind} (${target}): ${String(error)}`)
        this.failures.push(`${kind}: ${String(error)}`)
      }
    )
    this.#struck.set(target, struck)
    await struck
    this.#struck.delete(target)
  }
}
