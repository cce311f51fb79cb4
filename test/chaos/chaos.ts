import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { GONE_MS } from '../../src/broker/roster.ts'
import { covers, furthest, matches, parseCursor, type Cursor } from '../../src/event.ts'
import { Faults } from './faults.ts'
import { Fleet } from './fleet.ts'
import { Conversation, Member } from './member.ts'
import {
  check,
  FAULTS,
  shardOf,
  type Forgetting,
  type Transport,
  type Verdict,
  type Violation
} from './model.ts'
import { checkPresence, PRESENCE_FAULTS, type PresenceViolation, type Visit } from './presence.ts'
import { FaultyProxy } from './proxy.ts'
import { Publications, Publisher, type Answered } from './publisher.ts'
import { Random } from './random.ts'
import { Store, type StoreKind } from './store.ts'
import { Subscriber } from './subscriber.ts'

export interface ChaosOptions {
  readonly seed: number
  /** For how long it publishes and strikes. */
  readonly seconds: number
  /** One Redis stands behind proxies; a folder has one instance. */
  readonly kind: StoreKind
  readonly shards: number
  readonly ringSize: number
  /** How many replicas must have an event before it counts as stored. */
  readonly waitReplicas: number
  /** MEMORY of every instance, such as `3mb`; undefined: what it takes by itself. */
  readonly memory: string | undefined
  readonly subscribers: number
  /** How many join rooms. */
  readonly members: number
  /** Events a second. */
  readonly rate: number
  /** The built command line. */
  readonly cli: string
}

export interface Outcome {
  /** Everything that must be zero, and what it is. */
  readonly zeros: Readonly<Record<string, number>>
  /** What else there is to tell. */
  readonly figures: Readonly<Record<string, number | string>>
  /** The file that has the evidence; null when all is well. */
  readonly evidence: string | null
}

const INSTANCES = 3
const PUBLISHERS = 8

/** How long all may take to settle once nothing strikes any more, in milliseconds. */
const SETTLE_MS = 40_000

/** How long to wait then for what must not come, in milliseconds. */
const QUIET_MS = 1500

const TOPICS = [
  ...[
    'prices/a',
    'prices/b',
    'prices/c',
    'prices/d',
    'news/x',
    'news/y',
    'rooms/1/in',
    'rooms/1/out',
    'one',
    'two'
  ]
]
const FILTERS = [...TOPICS, 'prices/*', 'news/*', 'rooms/1/*', '*']

/** What members join. */
const ROOMS = ['lobby/1', 'lobby/2', 'halls/a', 'den']

/** Time to hear that somebody has left, on top of the time that leaving may take; in milliseconds. */
const HEARD_MS = 3000

/** Runs several instances on one store, publishes, subscribes and breaks things; then checks what everybody was told. */
export async function runChaos(options: ChaosOptions): Promise<Outcome> {
  const run = new ChaosRun(options)
  try {
    return await run.run()
  } finally {
    await run.stop()
  }
}

class ChaosRun {
  readonly #options: ChaosOptions
  readonly #random: Random
  readonly #dir = mkdtempSync(join(tmpdir(), 'ringside-chaos-'))
  readonly #publications: Publications
  readonly #forgettings: Forgetting[] = []
  #store: Store | undefined
  #fleet: Fleet | undefined
  readonly #proxies: FaultyProxy[] = []
  #subscribers: Subscriber[] = []
  #publishers: Publisher[] = []
  readonly #members: Member[] = []
  readonly #visiting: Promise<void>[] = []
  /** Those that looked in when nothing struck any more. */
  readonly #newcomers: Conversation[] = []
  #keep = false

  constructor(options: ChaosOptions) {
    this.#options = options
    this.#random = new Random(options.seed)
    this.#publications = new Publications(options.shards)
  }

  async run(): Promise<Outcome> {
    const { shards, seconds } = this.#options
    const store = (this.#store = await Store.start(this.#options.kind))
    const fleet = await this.#startFleet(store)
    const subscribing = this.#subscribe(fleet)
    const publishing = this.#publish(fleet)
    const faults = new Faults(
      {
        ...{ fleet, store, proxies: this.#proxies, forgettings: this.#forgettings },
        note: what => this.#note(what)
      },
      this.#random.fork()
    )
    this.#join(fleet)
    await faults.run(seconds * 1000)
    this.#note('nothing strikes any more')
    const calm = this.#calm(fleet)
    const late = await this.#settle(publishing)
    for (const subscriber of this.#subscribers) subscriber.stop()
    await subscribing
    const restless = await calm
    const presence = checkPresence(this.#visits, this.#newcomers)
    for (const member of this.#members) member.stop()
    await Promise.all(this.#visiting)
    const { acknowledged } = this.#publications
    if (store.folder) await fleet.stop()
    const verdict = check({
      ...{ shards, acknowledged, lives: this.#subscribers, forgettings: this.#forgettings },
      stored: await store.contents(),
      hasty: store.servers.length > 1 && this.#options.waitReplicas === 0
    })
    return this.#outcome({ verdict, presence, faults, fleet, late, restless })
  }

  async stop(): Promise<void> {
    for (const subscriber of this.#subscribers) subscriber.stop()
    for (const publisher of this.#publishers) publisher.stop()
    for (const member of this.#members) member.stop()
    for (const newcomer of this.#newcomers) newcomer.drop()
    await this.#fleet?.stop()
    await Promise.all(this.#proxies.map(proxy => proxy.close()))
    await this.#store?.stop()
    if (!this.#keep) rmSync(this.#dir, { recursive: true, force: true })
  }

  async #startFleet(store: Store): Promise<Fleet> {
    const { cli, ringSize, memory } = this.#options
    const stores = store.folder ? [{ DATA_DIR: store.folder }] : await this.#redisFor(store)
    const environments = stores.map(own => ({
      ...{ HOST: '127.0.0.1', PORT: '0', DEMO: 'false', LOG_LEVEL: 'warn', ...own },
      ...{ HEARTBEAT: '1s', DRAIN: '1s', RING_SIZE: String(ringSize) },
      ...(memory !== undefined && { MEMORY: memory })
    }))
    const fleet = (this.#fleet = new Fleet({ cli, environments, dir: this.#dir }))
    for (let slot = 0; slot < fleet.size; slot++) await fleet.start(slot)
    return fleet
  }

  /** Where each instance finds Redis. */
  async #redisFor(store: Store): Promise<Record<string, string>[]> {
    const { shards, waitReplicas } = this.#options
    const settings: Record<string, string>[] = []
    for (let slot = 0; slot < INSTANCES; slot++) {
      let { url } = store
      if (url === null) {
        const proxy = await FaultyProxy.start(store.servers[0]!.port)
        this.#proxies.push(proxy)
        url = `redis://127.0.0.1:${proxy.port}`
      }
      settings.push({ REDIS_URL: url, SHARDS: String(shards), WAIT_REPLICAS: String(waitReplicas) })
    }
    return settings
  }

  #subscribe(fleet: Fleet): Promise<unknown> {
    const { subscribers, shards } = this.#options
    this.#subscribers = Array.from({ length: subscribers }, (_, index) => {
      const random = this.#random.fork()
      return new Subscriber({
        ...{ name: `subscriber ${index}`, transport: transportOf(random), random, shards },
        envelope: random.chance(0.3),
        filters: random.some(FILTERS, random.whole(1, 3)),
        instance: () => fleet.at(random.whole(0, fleet.size - 1))
      })
    })
    return Promise.all(this.#subscribers.map(subscriber => subscriber.run()))
  }

  #publish(fleet: Fleet): Promise<unknown> {
    const { rate, seed } = this.#options
    this.#publishers = Array.from({ length: PUBLISHERS }, (_, index) => {
      const random = this.#random.fork()
      return new Publisher({
        ...{ name: `${seed}-${index}`, topics: TOPICS, rate: rate / PUBLISHERS, random },
        ...{ publications: this.#publications, instance: () => fleet.at(random.whole(0, fleet.size - 1)) }
      })
    })
    return Promise.all(this.#publishers.map(publisher => publisher.run()))
  }

  #join(fleet: Fleet): void {
    for (let index = 0; index < this.#options.members; index++) {
      const random = this.#random.fork()
      const instance = () => fleet.at(random.whole(0, fleet.size - 1))
      this.#admit(new Member({ name: `member ${index}`, rooms: ROOMS, random, instance }))
    }
  }

  #admit(member: Member): void {
    this.#members.push(member)
    this.#visiting.push(member.run())
  }

  get #visits(): Visit[] {
    return this.#members.flatMap(({ visits }) => visits)
  }

  /**
   * Waits until all members see who is there and nobody else, and then lets somebody new look in on each instance; how
   * many have not come in time to where they want to be.
   */
  async #calm(fleet: Fleet): Promise<number> {
    const deadline = performance.now() + GONE_MS + HEARD_MS
    for (const [index, member] of this.#members.entries()) {
      if (index % 5 === 0) member.stop()
      else member.settle()
    }
    // in a room without anybody nobody sees ghosts: so on each instance one is everywhere
    for (let slot = 0; slot < fleet.size; slot++) {
      const [random, instance] = [this.#random.fork(), () => fleet.at(slot)]
      const watcher = new Member({ name: `watcher ${slot}`, rooms: ROOMS, wanted: ROOMS, random, instance })
      watcher.settle()
      this.#admit(watcher)
    }
    const isCalm = () =>
      this.#members.every(({ isSettled }) => isSettled) &&
      checkPresence(this.#visits).every(({ fault }) => fault === 'contradictions')
    while (!isCalm() && performance.now() < deadline) await delay(200)
    const restless = this.#members.filter(({ isSettled }) => !isSettled).map(({ name }) => name)
    for (let slot = 0; slot < fleet.size; slot++) {
      const { name, port } = fleet.at(slot)
      const newcomer = new Conversation(`newcomer ${slot}`, name, port)
      this.#newcomers.push(newcomer)
      if (!(await newcomer.visit(ROOMS))) restless.push(newcomer.name)
    }
    for (const name of restless) this.#note(`${name} has not come to where it wants to be`)
    await delay(QUIET_MS)
    return restless.length
  }

  /** Waits until every event is acknowledged and every subscriber has come that far; how many have not in time. */
  async #settle(publishing: Promise<unknown>): Promise<number> {
    const deadline = performance.now() + SETTLE_MS
    for (const subscriber of this.#subscribers) subscriber.steady = true
    for (const publisher of this.#publishers) publisher.stop()
    await Promise.race([publishing, delay(SETTLE_MS, undefined, { ref: false })])
    const targets = this.#targets()
    const late = () =>
      this.#subscribers.filter(({ cursor }, index) => !cursor || !covers(cursor, targets[index]!))
    while (late().length > 0 && performance.now() < deadline) await delay(100)
    const behind = late()
    for (const { name } of behind) this.#note(`${name} has not come to the end`)
    await delay(QUIET_MS)
    return behind.length
  }

  /** Where each subscriber must come to: the last acknowledged events of its topics. */
  #targets(): Cursor[] {
    const { shards } = this.#options
    const nowhere: Cursor = Array.from({ length: shards }, () => ({ ms: 0, seq: 0 }))
    const last = new Map<string, Cursor>()
    for (const { topic, id } of this.#publications.acknowledged) {
      const shard = shardOf(topic, shards)
      const own = nowhere.with(shard, parseCursor(id, shards)![shard]!)
      last.set(topic, furthest(last.get(topic) ?? nowhere, own))
    }
    return this.#subscribers.map(({ filters }) => {
      const topics = [...last.keys()].filter(topic => filters.some(filter => matches(filter, topic)))
      return furthest(nowhere, ...topics.map(topic => last.get(topic)!))
    })
  }

  /** Kept as it goes, so that it is there also when the run never ends. */
  #note(what: string): void {
    appendFileSync(join(this.#dir, 'faults.txt'), `${Date.now()} ${what}\n`)
  }

  #outcome({ verdict, presence, faults, fleet, late, restless }: Findings): Outcome {
    const { published, acknowledged, strange, retries, replayed, falselyRefused, stored503 } =
      this.#publications
    const { violations, gaps } = verdict
    const odd = [...this.#members, ...this.#newcomers].flatMap(({ strange: answers }) => answers)
    const zeros = {
      ...Object.fromEntries(
        FAULTS.map(fault => [fault, violations.filter(each => each.fault === fault).length])
      ),
      ...Object.fromEntries(
        PRESENCE_FAULTS.map(fault => [fault, presence.filter(each => each.fault === fault).length])
      ),
      'never acknowledged': published - acknowledged.length,
      'other answers to publishers': strange.length,
      'refused and yet stored': falselyRefused.length,
      'subscribers that did not come to the end': late,
      'members that did not come to rest': restless,
      'other answers to members': odd.length,
      'instances that died': fleet.deaths.length,
      'faults that went wrong': faults.failures.length
    }
    const polls = this.#subscribers.filter(({ transport }) => transport === 'poll')
    const streams = this.#subscribers.filter(({ transport }) => transport !== 'poll')
    const figures = {
      ...{
        seed: this.#options.seed,
        published,
        acknowledged: acknowledged.length,
        retries,
        replayed,
        'not known, and stored': stored503
      },
      ...Object.fromEntries(
        Object.entries(verdict.delivered).map(([transport, count]) => [`delivered: ${transport}`, count])
      ),
      'stored again after a loss': verdict.storedAgain,
      ...{ connects: sum(streams, 'connects'), resumes: sum(streams, 'resumes') },
      ...{ polls: sum(polls, 'connects'), 'told to come back': sum(this.#subscribers, 'refusals') },
      'visits of members': this.#visits.length,
      'told of members': this.#visits.reduce((all, { log }) => all + log.length, 0),
      gaps: list(gaps),
      ...{ 'gaps without need': list(verdict.needless), 'missing and announced': verdict.announced },
      faults: list(faults.counts)
    }
    if (Object.values(zeros).every(count => count === 0)) return { zeros, figures, evidence: null }
    const others = [...strange, ...falselyRefused, ...odd, ...fleet.deaths, ...faults.failures]
    const shown = [
      ...violations.slice(0, 100).flatMap(violation => this.#show(violation)),
      ...presence.slice(0, 100).flatMap(showPresence)
    ]
    return { zeros, figures, evidence: this.#writeEvidence([...others, ...shown], acknowledged) }
  }

  #writeEvidence(found: readonly string[], acknowledged: readonly Answered[]): string {
    this.#keep = true
    const file = join(this.#dir, 'evidence.txt')
    const parts = [
      `seed ${this.#options.seed}; what struck when, and the instances' logs, lie beside this file`,
      ...found
    ]
    writeFileSync(file, `${parts.join('\n')}\n`)
    const lines = acknowledged.map(
      ({ topic, n, id, at, instance }) => `${at} ${instance}: ${topic} ${n} ${id}`
    )
    writeFileSync(join(this.#dir, 'acknowledged.txt'), `${lines.join('\n')}\n`)
    for (const { name, filters, log } of this.#subscribers) {
      const entries = log.map((entry, index) => `${index} ${JSON.stringify(entry)}`)
      writeFileSync(join(this.#dir, `${name}.log`), `${filters.join(' ')}\n${entries.join('\n')}\n`)
    }
    for (const { name, instance, log } of [...this.#visits, ...this.#newcomers]) {
      const entries = log.map((entry, index) => `${index} ${JSON.stringify(entry)}\n`)
      appendFileSync(join(this.#dir, `${name}.log`), `--- ${instance}\n${entries.join('')}`)
    }
    return file
  }

  #show({ fault, life, index, text }: Violation): string[] {
    const subscriber = this.#subscribers.find(({ name }) => name === life)
    const whose = subscriber ? `${subscriber.transport}: ${subscriber.filters.join(', ')}` : ''
    const head = `\n--- ${fault}: ${life} (${whose}): ${text}`
    const around = subscriber?.log.slice(Math.max(0, index - 25), index + 10) ?? []
    return [head, ...around.map((entry, at) => `${Math.max(0, index - 25) + at} ${JSON.stringify(entry)}`)]
  }
}

/** What a run has come to. */
interface Findings {
  readonly verdict: Verdict
  readonly presence: readonly PresenceViolation[]
  readonly faults: Faults
  readonly fleet: Fleet
  /** How many subscribers have not come to the end, and how many members not to where they want to be. */
  readonly late: number
  readonly restless: number
}

function showPresence({ fault, visit, index, text }: PresenceViolation): string[] {
  const from = Math.max(0, index - 25)
  const around = visit.log.slice(from, index + 10)
  return [
    `\n--- ${fault}: ${visit.name} on ${visit.instance}: ${text}`,
    ...around.map((entry, at) => `${from + at} ${JSON.stringify(entry)}`)
  ]
}

/** A fifth polls, a fifth reads lines, and a fifth has a WebSocket. */
function transportOf(random: Random): Transport {
  const at = random.next()
  if (at < 0.2) return 'poll'
  if (at < 0.4) return 'ndjson'
  return at < 0.6 ? 'ws' : 'sse'
}

function sum(subscribers: readonly Subscriber[], what: 'connects' | 'resumes' | 'refusals'): number {
  return subscribers.reduce((all, subscriber) => all + subscriber[what], 0)
}

function list(counts: Readonly<Record<string, number>>): string {
  const parts = Object.entries(counts).map(([name, count]) => `${name} ${count}`)
  return parts.length > 0 ? parts.sort().join(', ') : 'none'
}
