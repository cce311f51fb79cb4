import { comparePositions, isWildcard, later, textBytes, type Position } from '../../event.ts'
import type { Memory, Reliever } from '../../memory.ts'
import type { Rules, TopicRule } from '../../rules/rules.ts'
import { Ages } from '../embedded/ages.ts'
import { Families, Family } from '../embedded/families.ts'
import { TopicIndex } from '../embedded/topics.ts'
import { MOST_SEQ, type TopicRecord } from './records.ts'

/** What a topic takes besides its name, in bytes of memory: measured. */
const TOPIC_BYTES = 800

/** A topic that the store holds. All of it is replaced when its record is, but for its rule. */
export interface Topic extends TopicRecord {
  readonly name: string
  readonly family: Family<Topic>
  /** What holds for it, as of when the rules were asked last. */
  rule: TopicRule
}

/** Up to here, nothing of a topic is held at a time: it was dropped, or is too old and will be. */
export function floorOf({ base, rule }: Topic, now: number): Position {
  return later(base, { ms: Math.max(0, now - rule.ttl - 1), seq: MOST_SEQ })
}

/** What is let go without the events being dropped first: they must be taken out of the store. */
export interface Forgotten {
  readonly name: string
  /** Its last event. */
  readonly last: Position
}

export interface TopicUsers {
  /** Whether something is being stored on a topic just now, so that it can't be forgotten. */
  isBusy(topic: string): boolean
  /** A topic is forgotten. */
  delete(topic: string): void
}

/**
 * The topics that the store holds, in memory: as they are on disk, and never ahead of it. Their events stay on disk. Where
 * memory is short, the topics whose last events are the oldest are forgotten, with their events.
 */
export class Topics implements Reliever {
  readonly #memory: Memory
  readonly #rules: Rules
  readonly #index = new TopicIndex<Topic>()
  readonly #families: Families<Topic, Family<Topic>>
  /** Those that hold events, by their oldest one. */
  readonly #byFirst = new Ages<Topic>(({ first }) => first)
  /** Those whose state is not kept for ever, by their last event. */
  readonly #stated = new Ages<Topic>(({ last }) => last)
  /** Those without a state, by their last event. */
  readonly #byLast = new Map<string, Topic>()
  #users: TopicUsers | undefined
  /** Topics that were forgotten, and are still in the store. */
  #forgottenTopics: Forgotten[] = []
  /** The last position that any topic has. */
  last: Position
  /** Bytes in the store: of events, and of states. */
  bytes = 0
  stateBytes = 0
  #spare = 0
  #size = 0

  constructor(memory: Memory, birth: Position, rules: Rules) {
    this.#memory = memory
    this.#rules = rules
    this.#families = new Families((...own) => new Family<Topic>(...own), memory, birth)
    this.last = birth
    memory.onShortage(this)
    rules.onChange(() => this.#refile())
  }

  /** Who keeps more of some topics. */
  usedBy(users: TopicUsers): void {
    this.#users = users
  }

  get(topic: string): Topic | undefined {
    return this.#index.get(topic)
  }

  /** How many there are. */
  get size(): number {
    return this.#size
  }

  /** The topics that a filter covers. */
  *matching(filter: string): Generator<Topic> {
    for (const [, topic] of this.#index.matching(filter)) yield topic
  }

  /** The topic with the oldest event. */
  get oldest(): Topic | undefined {
    return this.#byFirst.first
  }

  /** The topics with the oldest events, of all or of those whose events are kept for so many milliseconds; at most so many. */
  oldestOnes(limit: number, ttl?: number): Topic[] {
    return this.#byFirst.oldest(limit, ttl)
  }

  /** For how long the events of topics are kept of which some are too old at a time; undefined where none are. */
  tooOld(now: number): number | undefined {
    return this.#byFirst.tooOld(now)?.ttl
  }

  /** The topics whose states are too old at a time, some of them. */
  withOldState(now: number, limit: number): Topic[] {
    const old = this.#stated.tooOld(now)
    if (!old) return []
    return this.#stated.oldest(limit, old.ttl).filter(({ last }) => last.ms < now - old.ttl)
  }

  /** The version of a topic's state at a time; null where it has none, or one that is too old. */
  versionOf(name: string, now: number): Position | null {
    const topic = this.#index.get(name)
    return topic && topic.last.ms >= now - topic.rule.stateTtl ? topic.version : null
  }

  /** What a topic that isn't known is taken to have had as its last event. */
  beginningOf(topic: string): Position {
    return this.#families.forgottenOf(topic)
  }

  /** Up to where topics of a wildcard were forgotten; null where it has no topics any more, and the others stand for it. */
  forgottenOf(wildcard: string): Position | null {
    return this.#families.get(wildcard)?.forgotten ?? null
  }

  /** Up to where topics were forgotten of wildcards that have none any more. */
  get forgotten(): Position {
    return this.#families.forgotten
  }

  /** What it would take to remember some topics, those that are not known, in bytes. */
  bytesOf(names: readonly string[]): number {
    const unknown = names.filter(name => !this.#index.get(name))
    return unknown.length > 0 ? this.#families.bytesOf(new Set(unknown), topicBytes) : 0
  }

  // --- changing, as the store has changed ---

  set(name: string, record: TopicRecord): void {
    const before = this.#index.get(name)
    if (before) this.#takeOut(before, record.version !== null)
    else this.#count(topicBytes(name))
    const family = before?.family ?? this.#families.join(name)
    if (!before) this.#size++
    const topic: Topic = { name, family, rule: before?.rule ?? this.#rules.of(name), ...record }
    this.#index.set(name, topic)
    this.bytes += record.bytes
    this.stateBytes += record.stateBytes
    this.last = later(this.last, record.last)
    this.#file(topic)
    if (record.count > 0) family.newest.add(topic)
    if (comparePositions(record.base, family.forgotten) > 0) family.losses.add(topic)
    if (record.version) return
    // one whose last event is still the same keeps its place
    if (before && comparePositions(before.last, record.last) !== 0) this.#byLast.delete(name)
    this.#byLast.set(name, topic)
    this.#spare += topicBytes(name)
  }

  /** `isKept`: from now on it is not forgotten any more, or it is no more. */
  #takeOut(topic: Topic, isKept: boolean): void {
    const { name, family, bytes, stateBytes, count, version } = topic
    this.bytes -= bytes
    this.stateBytes -= stateBytes
    this.#unfile(topic)
    if (count > 0) family.newest.delete(topic)
    family.losses.delete(topic)
    if (version) return
    if (isKept) this.#byLast.delete(name)
    this.#spare -= topicBytes(name)
  }

  /** Puts a topic where its age will be looked at. */
  #file(topic: Topic): void {
    const { count, rule, version } = topic
    if (count > 0) this.#byFirst.add(topic, rule.ttl)
    if (version && rule.stateTtl !== Infinity) this.#stated.add(topic, rule.stateTtl)
  }

  #unfile(topic: Topic): void {
    const { count, rule, version } = topic
    if (count > 0) this.#byFirst.delete(topic, rule.ttl)
    if (version && rule.stateTtl !== Infinity) this.#stated.delete(topic, rule.stateTtl)
  }

  /** Other rules hold. */
  #refile(): void {
    for (const [name, topic] of this.#index.entries) {
      this.#unfile(topic)
      topic.rule = this.#rules.of(name)
      this.#file(topic)
    }
  }

  delete(name: string): void {
    const topic = this.#index.get(name)
    if (!topic) return
    this.#takeOut(topic, true)
    this.#index.delete(name)
    this.#size--
    this.#count(-topicBytes(name))
    this.#families.leave(topic.family, topic)
  }

  /** Up to where topics of a wildcard have been forgotten, as it is stored. */
  setForgotten(wildcard: string, position: Position): void {
    this.#families.forget(wildcard, position)
  }

  #count(bytes: number): void {
    this.#memory.add('topics', bytes)
  }

  /** Lets go of all memory that it counts. */
  clear(): void {
    for (const { name } of [...this.#index.entries].map(([, topic]) => topic)) this.delete(name)
  }

  // --- asking ---

  /** Of the topics that a filter covers, those whose last event comes after a position; at most `limit`, in its order. */
  newest(filter: string, after: Position, limit: number): Topic[] {
    if (isWildcard(filter)) return this.#families.get(filter)?.newest.after(after, limit) ?? []
    const topic = this.#index.get(filter)
    return topic && topic.count > 0 && comparePositions(topic.last, after) > 0 ? [topic] : []
  }

  /** See `Families.gaps`. */
  gaps(filter: string, after: Position): Map<string, Position> {
    return this.#families.gaps(filter, this.#index.get(filter), after)
  }

  /** The topics that hold neither an event nor a state, and had their last event before a time. */
  emptiedBefore(ms: number, limit: number): Topic[] {
    const emptied: Topic[] = []
    for (const topic of this.#byLast.values()) {
      if (topic.last.ms >= ms || emptied.length === limit) break
      if (topic.count === 0) emptied.push(topic)
    }
    return emptied
  }

  // --- where memory is short ---

  get spare(): number {
    return this.#spare
  }

  relieve(bytes: number): void {
    const enough = this.#memory.sum - bytes
    for (const topic of this.#byLast.values()) {
      if (this.#memory.sum <= enough) return
      if (!this.#users?.isBusy(topic.name)) this.#forget(topic)
    }
  }

  #forget({ name, last, family }: Topic): void {
    this.#families.forget(family.wildcard, last)
    this.#forgottenTopics.push({ name, last })
    this.delete(name)
    this.#users?.delete(name)
  }

  /** Those that were forgotten since this was asked. */
  takeForgotten(): Forgotten[] {
    const taken = this.#forgottenTopics
    this.#forgottenTopics = []
    return taken
  }
}

function topicBytes(name: string): number {
  return TOPIC_BYTES + textBytes(name)
}
