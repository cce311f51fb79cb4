/**
 * A store of members in memory, with several instances on it: no socket, and a clock that is held. What the store tells an
 * instance can be held up, or dropped on the way.
 */
import { BrokerUnavailable } from '../../src/broker/unavailable.ts'
import type {
  MembersRead,
  MemberUpdate,
  Renewal,
  Renewed,
  RosterStore
} from '../../src/broker/redis/roster-store.ts'
import { ShardRoster } from '../../src/broker/redis/shard-roster.ts'
import { signalBytes } from '../../src/broker/redis/wire.ts'
import type { RosterListener } from '../../src/broker/roster.ts'
import { formatPosition, matches, wildcardOf } from '../../src/event.ts'
import type { Member, Position, Signal } from '../../src/event.ts'
import { Memory } from '../../src/memory.ts'
import { HeldClock, settled } from '../support/clock.ts'

const CHANNELS = 'p:m:'

interface StoredMember {
  readonly instance: string
  readonly topic: string
  readonly id: string
  readonly text: string
}

/** What all instances share. */
export class RosterStage {
  readonly clock = new HeldClock()
  readonly #instances: StagedInstance[] = []
  /** When each lease expires, by instance. */
  readonly #leases = new Map<string, number>()
  #members: StoredMember[] = []
  #life = 1
  /** When the store was back after it was away. */
  #returned = -Infinity
  #last = 0

  /** Another instance, started. */
  instance(name: string, memory = new Memory(Infinity)): StagedInstance {
    const instance = new StagedInstance(this, name, memory)
    this.#instances.push(instance)
    instance.roster.start()
    return instance
  }

  get birth(): string {
    return `${this.#life}-0`
  }

  /** The id given last. */
  get last(): Position {
    return { ms: 1, seq: this.#last }
  }

  /** The instances that have a lease, also one that has expired. */
  get leases(): string[] {
    return [...this.#leases.keys()]
  }

  /** The members that are stored of some topics. */
  stored(...topics: string[]): StoredMember[] {
    return this.#members.filter(({ topic }) => topics.includes(topic))
  }

  storedOf(instance: string): StoredMember[] {
    return this.#members.filter(member => member.instance === instance)
  }

  topics(wildcard: string): string[] {
    return [...new Set(this.#members.map(({ topic }) => topic).filter(topic => matches(wildcard, topic)))]
  }

  /** Loses everything; the next call finds a new life. */
  empty(): void {
    this.#members = []
    this.#leases.clear()
    this.#life++
  }

  /** Loses members and leases, and goes on: they were evicted. */
  evict(): void {
    this.#members = []
    this.#leases.clear()
  }

  /** The store answers again, and nobody could reach it before. */
  comeBack(): void {
    this.#returned = this.clock.now()
  }

  read(topics: readonly string[]): MembersRead {
    const members = (topic: string) => new Map(this.stored(topic).map(({ id, text }) => [id, text]))
    return { at: this.last, topics: new Map(topics.map(topic => [topic, members(topic)])) }
  }

  // --- what the script does ---

  update(instance: string, updates: readonly MemberUpdate[], renewal: Renewal): Renewed {
    const now = this.clock.now()
    const { leaseMs, rejoinMs } = renewal
    const removals = now < this.#returned + rejoinMs ? 0 : renewal.removals
    const wasAlive = (this.#leases.get(instance) ?? 0) > now
    if (leaseMs > 0) this.#leases.set(instance, now + leaseMs)
    for (const { topic, id, text } of updates) this.#change(instance, topic, id, text)
    let left = removals
    for (const [dead, until] of this.#leases) {
      if (until > now || removals === 0) continue
      const gone = this.storedOf(dead).slice(0, left)
      for (const { topic, id } of gone) this.#change(dead, topic, id, null)
      if (gone.length < left) this.#leases.delete(dead)
      left -= gone.length
    }
    return { at: this.last, wasAlive, hasMore: removals > 0 && left === 0 }
  }

  #change(instance: string, topic: string, id: string, text: string | null): void {
    const before = this.#members.find(member => member.topic === topic && member.id === id)
    if (text === (before?.text ?? null)) return
    this.#members = this.#members.filter(member => member !== before)
    if (text !== null) this.#members.push({ instance, topic, id, text })
    this.#last++
    const head = `${text === null ? '-' : '+'} ${formatPosition(this.last)} ${id} ${topic}`
    this.announce(topic, Buffer.from(`${head}\n${text ?? ''}`))
  }

  announce(topic: string, message: Buffer): void {
    for (const filter of [topic, wildcardOf(topic)])
      for (const instance of this.#instances)
        instance.announcements.pass(() => instance.deliver(filter, message))
  }
}

/** A roster on the stage, and what it was told. */
export class StagedInstance implements RosterListener {
  readonly name: string
  readonly memory: Memory
  readonly roster: ShardRoster
  /** Who came and went: `filter: topic +id`, with what it tells of itself, if anything. */
  readonly heard: string[] = []
  /** The calls that it has made. */
  readonly calls: { readonly kind: string; readonly size: number }[] = []
  readonly announcements = new Way()
  readonly answers = new Way()
  readonly listening = new Set<string>()
  /** What doesn't get through: calls on their way to the store, or their answers. */
  lost: 'calls' | 'answers' | null = null
  isLive = true
  readonly #stage: RosterStage

  constructor(stage: RosterStage, name: string, memory: Memory) {
    this.name = name
    this.memory = memory
    this.#stage = stage
    this.roster = new ShardRoster({
      keys: { members: filter => `p:m:${filter}` },
      store: this.#store(),
      listener: this,
      clock: stage.clock,
      memory,
      isLive: () => this.isLive,
      listen: channel => this.#call('listen', 1, () => void this.listening.add(channel)),
      unlisten: channel => void this.listening.delete(channel)
    })
  }

  /** The members of a topic as this instance knows them: `id`, with what it tells of itself, if anything. */
  members(topic: string): string {
    return this.roster.members(topic).map(describe).sort().join(' ')
  }

  join(topic: string, id: string, info: string | null = null): Promise<void> {
    return this.roster.join(topic, { id, sub: null, info })
  }

  deliver(filter: string, message: Buffer): void {
    if (this.listening.has(CHANNELS + filter)) this.roster.receive(CHANNELS + filter, message)
  }

  // --- the listener ---

  joined(filter: string, topic: string, member: Member): void {
    this.heard.push(`${filter}: ${topic} +${describe(member)}`)
  }

  left(filter: string, topic: string, member: Member): void {
    this.heard.push(`${filter}: ${topic} -${describe(member)}`)
  }

  signalled(filter: string, { topic, data }: Signal): void {
    this.heard.push(`${filter}: ${topic} ${data.toString()}`)
  }

  #store(): RosterStore {
    const stage = this.#stage
    return {
      update: (updates, renewal) =>
        this.#call('update', updates.length, () => stage.update(this.name, updates, renewal)),
      members: topics => this.#call('members', topics.length, () => stage.read(topics)),
      topics: wildcard => this.#call('topics', 1, () => stage.topics(wildcard)),
      own: () => this.#call('own', 1, () => stage.storedOf(this.name)),
      signal: signal => this.#call('signal', 1, () => stage.announce(signal.topic, signalBytes(signal)))
    }
  }

  async #call<T>(kind: string, size: number, work: () => T): Promise<T> {
    this.calls.push({ kind, size })
    if (this.lost === 'calls') throw new BrokerUnavailable('it did not arrive')
    const answer = work()
    const birth = this.#stage.birth
    if (this.lost === 'answers') throw new BrokerUnavailable('it was not answered')
    return new Promise((resolve, reject) =>
      this.answers.pass(
        () => {
          this.roster.noteBirth(birth)
          resolve(answer)
        },
        () => reject(new BrokerUnavailable('the answer was lost'))
      )
    )
  }
}

/** The way of messages to an instance, in order: it can be held up, and what is held up can be lost. */
class Way {
  #waiting: Message[] | null = null

  /** `lose`: what happens where it is lost. */
  pass(arrive: () => void, lose: () => void = () => {}): void {
    if (this.#waiting) this.#waiting.push({ arrive, lose })
    else arrive()
  }

  hold(): void {
    this.#waiting ??= []
  }

  /** Lets the first one pass that is held up; the others, and those that follow, are held up still. */
  async passOne(): Promise<void> {
    this.#waiting?.shift()?.arrive()
    await settled()
  }

  /** Loses the first one that is held up. */
  async loseOne(): Promise<void> {
    this.#waiting?.shift()?.lose()
    await settled()
  }

  /** Loses what was held up, and holds nothing up any more. */
  drop(): void {
    const waiting = this.#waiting ?? []
    this.#waiting = null
    for (const { lose } of waiting) lose()
  }

  async release(): Promise<void> {
    const waiting = this.#waiting ?? []
    this.#waiting = null
    for (const { arrive } of waiting) {
      arrive()
      await settled()
    }
  }
}

interface Message {
  readonly arrive: () => void
  readonly lose: () => void
}

function describe({ id, info }: Member): string {
  return id + (info ?? '')
}
