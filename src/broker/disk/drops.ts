import { comparePositions, wildcardOf, type Position } from '../../event.ts'
import type { Commits } from './commits.ts'
import type { Decisions, Kept } from './decisions.ts'
import { Heads, type Head } from './heads.ts'
import { putState, takeEvent } from './puts.ts'
import { allOf, forgottenKey, OTHERS, Positions, sealPosition, sealTopic, topicKey } from './records.ts'
import type { Batch } from './store.ts'
import type { Forgotten } from './topics.ts'

/** How many topics are dropped from at a time, and the most events that go in one step: others want to write as well. */
const TOPICS = 64
const EVENTS = 2000

/** Lets go of what is too old, and of the oldest where there is too much: each step alone with the store. */
export class Drops {
  readonly #kept: Kept
  readonly #commits: Commits
  readonly #decisions: Decisions
  #isCompacting = false

  constructor(kept: Kept, commits: Commits, decisions: Decisions) {
    this.#kept = kept
    this.#commits = commits
    this.#decisions = decisions
  }

  /** Whether any state is too old by now. */
  get hasOldState(): boolean {
    const { topics, clock } = this.#kept
    return topics.withOldState(clock.now(), 1).length > 0
  }

  /** Drops what is too old by now, of each topic by its rule: events, and states. Rejects with `BrokerUnavailable`. */
  async expire(): Promise<void> {
    const { topics, clock } = this.#kept
    const now = clock.now()
    for (let ttl = topics.tooOld(now); ttl !== undefined; ttl = topics.tooOld(now)) {
      const oldest = now - ttl
      await this.#step(first => first.ms < oldest, ttl)
    }
    while (topics.withOldState(now, 1).length > 0) await this.#forgetStates(now)
  }

  #forgetStates(now: number): Promise<void> {
    return this.#commits.exclusively(async () => {
      const { topics, heads, store } = this.#kept
      const changed = topics.withOldState(now, EVENTS).map(({ name }) => heads.of(name))
      const batch = store.batch()
      for (const head of changed) {
        putState(batch, head.name, null, head.last)
        Heads.setState(head, null, head.last)
      }
      await this.#write(batch, changed)
    })
  }

  /** Writes what was dropped from these topics. */
  async #write(batch: Batch, changed: Iterable<Head>): Promise<void> {
    const { topics, store } = this.#kept
    for (const head of changed) {
      const key = topicKey(head.name)
      batch.put(key, sealTopic(key, Heads.record(head)))
    }
    this.#decisions.seal(batch)
    await store.write(batch, false)
    for (const head of changed) topics.set(head.name, Heads.record(head))
  }

  /** Drops the oldest events until all that is stored takes so many bytes at most. Rejects with `BrokerUnavailable`. */
  async beyond(bytes: number): Promise<void> {
    const { topics } = this.#kept
    const isTooMuch = () => topics.bytes + topics.stateBytes > bytes && topics.oldest !== undefined
    while (isTooMuch()) {
      const surplus = topics.bytes + topics.stateBytes - bytes
      await this.#step((_, freed) => freed < surplus)
    }
  }

  /**
   * Drops all events of a topic, some at a time, and its state; resolves with the id of its last event, null where it is not
   * known. Rejects with `BrokerUnavailable`.
   */
  async clear(name: string): Promise<Position | null> {
    const { topics } = this.#kept
    const last = topics.get(name)?.last ?? null
    // what is stored meanwhile comes after it, and stays
    for (let isDone = last === null; !isDone;) isDone = await this.#clearSome(name, last!)
    return last
  }

  /** Whether nothing of a topic is left up to a position. */
  async #clearSome(name: string, last: Position): Promise<boolean> {
    let isDone = true
    await this.#commits.exclusively(async () => {
      const { heads, store } = this.#kept
      const head = heads.of(name)
      const batch = store.batch()
      await heads.fill(head, EVENTS + 1, () => Promise.resolve())
      for (let left = EVENTS; left > 0 && isUpTo(head, last); left--) takeEvent(batch, head, Heads.drop(head))
      isDone = !isUpTo(head, last)
      if (isDone && head.version && comparePositions(head.version, last) <= 0) {
        putState(batch, name, null, head.last)
        Heads.setState(head, null, head.last)
      }
      await this.#write(batch, [head])
    })
    return isDone
  }

  /**
   * Keeps the files within so many bytes: what is stored takes two thirds of them at most, because what was dropped goes
   * from the files later, or now where it has become too much. Rejects with `BrokerUnavailable`.
   */
  async within(bytes: number): Promise<void> {
    const { store, topics } = this.#kept
    await this.beyond((bytes * 2) / 3)
    // what is held is hardly ever less than a quarter of the files
    const isFar = topics.bytes + topics.stateBytes < bytes / 4
    if (isFar || this.#isCompacting || (await store.bytes()) < bytes * 0.9) return
    this.#isCompacting = true
    const { gte } = allOf('events')
    const { lt } = allOf('families')
    // nobody waits for it; where it fails, so does the next write
    void store
      .compact({ gte, lt })
      .catch(() => {})
      .finally(() => (this.#isCompacting = false))
  }

  /**
   * Drops the oldest events for as long as they are wanted to go, in the order of their ids, some at a time: of all topics,
   * or of those whose events are kept for so many milliseconds.
   */
  #step(isWanted: (first: Position, freed: number) => boolean, ttl?: number): Promise<void> {
    return this.#commits.exclusively(async () => {
      const { topics, heads, store } = this.#kept
      const oldest = topics.oldestOnes(TOPICS + 1, ttl)
      const bound = oldest[TOPICS]?.first
      const changed = new Set<Head>()
      const candidates = oldest.slice(0, TOPICS).map(({ name }) => heads.of(name))
      for (const head of candidates) await heads.fill(head, 2, () => Promise.resolve())
      const batch = store.batch()
      let freed = 0
      for (let left = EVENTS; left > 0; left--) {
        const head = oldestOf(candidates)
        if (!head || !isWanted(head.ids[0]!, freed)) break
        if (bound && comparePositions(head.ids[0]!, bound) > 0) break
        // its next one must be known
        if (head.ids.length === 1 && !head.isWhole) break
        const before = head.bytes
        takeEvent(batch, head, Heads.drop(head))
        freed += before - head.bytes
        changed.add(head)
      }
      await this.#write(batch, changed)
    })
  }

  /** Forgets the topics that hold nothing, and had their last event before a time. Rejects with `BrokerUnavailable`. */
  async forgetBefore(ms: number): Promise<void> {
    const { topics, heads, store } = this.#kept
    for (;;) {
      const emptied = topics.emptiedBefore(ms, EVENTS)
      if (emptied.length === 0) return
      await this.#commits.exclusively(async () => {
        const batch = store.batch()
        // one may have got an event meanwhile
        const gone = emptied.filter(({ name, last }) => topics.get(name)?.last === last)
        for (const { name } of gone) {
          batch.del(topicKey(name))
          topics.delete(name)
          heads.delete(name)
        }
        this.#noteForgotten(gone, batch)
        this.#decisions.seal(batch)
        await store.write(batch, false)
      })
    }
  }

  /** Takes out of the store what was forgotten for want of memory. Rejects with `BrokerUnavailable`. */
  async purge(): Promise<void> {
    for (let left = this.#kept.topics.takeForgotten(); left.length > 0;) {
      const some = left.slice(0, TOPICS)
      const unfinished: Forgotten[] = []
      await this.#commits.exclusively(async () => {
        const batch = this.#kept.store.batch()
        for (const topic of some) if (!(await this.#purgeOne(topic, batch))) unfinished.push(topic)
        this.#noteForgotten(some, batch)
        this.#decisions.seal(batch)
        await this.#kept.store.write(batch, false)
      })
      left = [...unfinished, ...left.slice(TOPICS)]
    }
  }

  /** Whether all of a topic goes with this batch. */
  async #purgeOne({ name, last }: Forgotten, batch: Batch): Promise<boolean> {
    const { topics, store } = this.#kept
    const events = Positions.ofTopic(name)
    const places = Positions.ofFamily(wildcardOf(name))
    const keys = await store.keys(events.between({ ms: 0, seq: 0 }, last), EVENTS)
    for (const key of keys) {
      batch.del(key)
      batch.del(places.key(Positions.in(key)))
    }
    if (keys.length === EVENTS) return false
    // it may have come again
    if (!topics.get(name)) batch.del(topicKey(name))
    return true
  }

  /** Keeps up to where topics were forgotten: of each wildcard that still has any, and of all others together. */
  #noteForgotten(gone: readonly Forgotten[], batch: Batch): void {
    const { topics } = this.#kept
    for (const wildcard of new Set(gone.map(({ name }) => wildcardOf(name)))) {
      const key = forgottenKey(wildcard)
      const forgotten = topics.forgottenOf(wildcard)
      if (forgotten) batch.put(key, sealPosition(key, forgotten))
      else batch.del(key)
    }
    const others = forgottenKey(OTHERS)
    batch.put(others, sealPosition(others, topics.forgotten))
  }
}

/** Whether the oldest event of a topic lies at or before a position. */
function isUpTo({ ids: [oldest] }: Head, last: Position): boolean {
  return oldest !== undefined && comparePositions(oldest, last) <= 0
}

/** The one of some topics that holds the oldest event. */
function oldestOf(heads: readonly Head[]): Head | undefined {
  let oldest: Head | undefined
  for (const head of heads) {
    if (head.ids.length === 0) continue
    if (!oldest || comparePositions(head.ids[0]!, oldest.ids[0]!) < 0) oldest = head
  }
  return oldest
}
