import { comparePositions, isWildcard, later, wildcardOf, type Position } from '../../event.ts'
import type { Memory } from '../../memory.ts'
import { Order } from './order.ts'

/** What a wildcard takes, in bytes of memory: measured. */
const FAMILY_BYTES = 1300

/** The most topics that a page names one by one whose events are gone: past it, it names the wildcard. */
const NAMED_TOPICS = 100

/** What families need to know of a topic. */
export interface Relative {
  readonly name: string
  /** The id of its last event. */
  readonly last: Position
  /** The id of the last event that is gone. */
  readonly base: Position
}

/** What all topics under one wildcard have together. */
export class Family<Topic extends Relative> {
  readonly wildcard: string
  /** How many topics it has. */
  size = 0
  /** Up to here, topics may have been forgotten whose events a reader could still have asked for. */
  forgotten: Position
  /** The topics that hold events, by their last one. */
  readonly newest = new Order<Topic>(({ last }) => last)
  /** The topics that have lost events, by the last that is gone. */
  readonly losses = new Order<Topic>(({ base }) => base)

  constructor(wildcard: string, forgotten: Position) {
    this.wildcard = wildcard
    this.forgotten = forgotten
  }
}

/** The families of the topics that are known, and what is gone of them. */
export class Families<Topic extends Relative, Own extends Family<Topic>> {
  readonly #make: (wildcard: string, forgotten: Position) => Own
  readonly #memory: Memory
  readonly #families = new Map<string, Own>()
  /** The same as `forgotten` of a family, of those that have no topic any more. */
  forgotten: Position

  constructor(make: (wildcard: string, forgotten: Position) => Own, memory: Memory, birth: Position) {
    this.#make = make
    this.#memory = memory
    this.forgotten = birth
  }

  get(wildcard: string): Own | undefined {
    return this.#families.get(wildcard)
  }

  /** Up to where topics may have been forgotten of which this is one. */
  forgottenOf(topic: string): Position {
    return this.get(wildcardOf(topic))?.forgotten ?? this.forgotten
  }

  /** Topics of a wildcard were forgotten up to a position; where it has none any more, all others stand for it. */
  forget(wildcard: string, position: Position): void {
    const family = this.get(wildcard)
    if (!family) return void (this.forgotten = later(this.forgotten, position))
    family.forgotten = later(family.forgotten, position)
    // what any of its topics has lost up to there is told with that
    const isTold = (topic: Topic) => comparePositions(topic.base, family.forgotten) <= 0
    for (let { first } = family.losses; first && isTold(first); { first } = family.losses)
      family.losses.delete(first)
  }

  /** The family of a topic, which has one more now. */
  join(topic: string): Own {
    const wildcard = wildcardOf(topic)
    let family = this.#families.get(wildcard)
    if (!family) {
      this.#families.set(wildcard, (family = this.#make(wildcard, this.forgotten)))
      this.#memory.add('topics', FAMILY_BYTES)
    }
    family.size++
    return family
  }

  /** One of its topics is no longer known. */
  leave(family: Own, topic: Topic): void {
    family.losses.delete(topic)
    if (--family.size > 0) return
    this.#families.delete(family.wildcard)
    this.#memory.give('topics', FAMILY_BYTES)
    this.forgotten = later(this.forgotten, family.forgotten)
  }

  /** What it would take to know these topics as well, in bytes: each for itself, and their families. */
  bytesOf(topics: ReadonlySet<string>, topicBytes: (topic: string) => number): number {
    let bytes = 0
    const families = new Set<string>()
    for (const topic of topics) {
      bytes += topicBytes(topic)
      if (!this.#families.has(wildcardOf(topic))) families.add(wildcardOf(topic))
    }
    return bytes + families.size * FAMILY_BYTES
  }

  /**
   * The topics of which events after a position are gone; where they are many, or no longer known, the filter itself.
   * `topic`: the one that the filter names, where it is known.
   */
  gaps(filter: string, topic: Topic | undefined, after: Position): Map<string, Position> {
    if (topic) return gapAt(filter, topic.base, after)
    const family = this.get(wildcardOf(filter))
    const gaps = gapAt(filter, family?.forgotten ?? this.forgotten, after)
    if (!family || !isWildcard(filter)) return gaps
    const losses = family.losses.after(after, NAMED_TOPICS + 1)
    if (losses.length > NAMED_TOPICS)
      return gapAt(filter, later(family.losses.last!.base, family.forgotten), after)
    for (const { name, base } of losses) gaps.set(name, base)
    return gaps
  }
}

/** What is gone up to `base`, to who has come as far as `after`. */
function gapAt(name: string, base: Position, after: Position): Map<string, Position> {
  return new Map(comparePositions(base, after) > 0 ? [[name, base]] : [])
}
