import { comparePositions, isWildcard } from '../../event.ts'
import type { Member, Position } from '../../event.ts'
import type { Memory } from '../../memory.ts'
import type { RosterListener } from '../roster.ts'
import type { RosterStore } from './roster-store.ts'
import { memberTextBytes, readMember } from './wire.ts'
import type { MemberChange } from './wire.ts'

/** How many topics are read in one call. */
export const TOPICS_A_CALL = 100

export interface MemberCopyOptions {
  readonly filter: string
  readonly store: RosterStore
  readonly listener: RosterListener
  /** Counts them. */
  readonly memory: Memory
  /** Whether the store may lack members that other instances are about to put back. */
  isRefilling(): boolean
}

/**
 * This instance's copy of the members of all topics that a filter covers. It is read once, and changed by what is
 * announced from then on. Each change has an id, and what is read is true up to an id: so the two fit together whichever
 * comes first. When announcements may have been missed the copy is in doubt: it is read again, and the listener is told
 * what is different.
 */
export class MemberCopy {
  readonly #options: MemberCopyOptions
  readonly #topics = new Map<string, Map<string, MemberRecord>>()
  /** The changes that were announced since the copy has been in doubt; null while it is true. */
  #changes: MemberChange[] | null = []
  /** Whether it was true once: before, the listener is told nothing. */
  #isRead = false
  #isClosed = false
  #reading: Promise<void> | null = null
  /** How many bytes it holds. */
  #bytes = 0

  constructor(options: MemberCopyOptions) {
    this.#options = options
  }

  /** Whether it was true once and is in doubt now. */
  get needsReading(): boolean {
    return this.#isRead && this.#changes !== null
  }

  members(topic: string): Member[] {
    return [...(this.#topics.get(topic) ?? [])].map(([id, { text }]) => readMember(id, text))
  }

  /** From now on the copy is in doubt until it has been read. */
  doubt(): void {
    this.#changes = []
  }

  /** Takes a change that was announced. */
  receive(change: MemberChange): void {
    this.#changes?.push(change)
    if (this.#isRead) this.apply(change)
  }

  /** Makes a change, unless a later one of the same member was made before, and tells the listener. */
  apply({ topic, id, text, at }: MemberChange): void {
    const { filter, listener } = this.#options
    const members = this.#topics.get(topic) ?? new Map<string, MemberRecord>()
    const before = members.get(id)
    if (before && comparePositions(at, before.at) <= 0) return
    alter(members, id, text, at)
    this.#keep(topic, members)
    this.#count(memberTextBytes(topic, id, text) - memberTextBytes(topic, id, before?.text ?? null))
    if (text !== null && text !== before?.text) listener.joined(filter, topic, readMember(id, text))
    if (text === null && before) listener.left(filter, topic, readMember(id, before.text))
  }

  /** Resolves once the copy is true; it stays in doubt where the store may lack members. Rejects with `BrokerUnavailable`. */
  read(): Promise<void> {
    return (this.#reading ??= this.#readUntilTrue().finally(() => (this.#reading = null)))
  }

  /** Ends it: nothing more is told, and nothing is held. */
  close(): void {
    this.#isClosed = true
    this.#topics.clear()
    this.#count(-this.#bytes)
  }

  async #readUntilTrue(): Promise<void> {
    let found: Map<string, TopicMembers>
    let changes: MemberChange[]
    do {
      this.#changes = changes = []
      found = await this.#find()
      // members that are still to be put back must not be told as gone
      if (this.#isClosed || (this.#isRead && this.#options.isRefilling())) return
      // other changes: it has come into doubt again since
    } while (this.#changes !== changes)
    this.#changes = null
    addChanges(found, changes)
    this.#adopt(found)
  }

  /** Reads the members of all topics that the filter covers, and of those that the copy has members of. */
  async #find(): Promise<Map<string, TopicMembers>> {
    const { filter, store } = this.#options
    const named = isWildcard(filter) ? await store.topics(filter) : [filter]
    const topics = [...new Set([...named, ...this.#topics.keys()])]
    const found = new Map<string, TopicMembers>()
    for (let from = 0; from < topics.length; from += TOPICS_A_CALL) {
      const { at, topics: read } = await store.members(topics.slice(from, from + TOPICS_A_CALL))
      for (const [topic, members] of read) {
        const records = [...members].map(([id, text]): [string, MemberRecord] => [id, { text, at }])
        found.set(topic, { at, members: new Map(records) })
      }
    }
    return found
  }

  /** Takes over what was found. Tells what is different from what was told before. */
  #adopt(found: ReadonlyMap<string, TopicMembers>): void {
    const isFirst = !this.#isRead
    this.#isRead = true
    for (const [topic, { members }] of found) {
      const before = this.#topics.get(topic) ?? new Map<string, MemberRecord>()
      this.#keep(topic, members)
      this.#count(bytesOf(topic, members) - bytesOf(topic, before))
      if (!isFirst) this.#tellDifferences(topic, before, members)
    }
  }

  #tellDifferences(topic: string, before: TopicRecords, after: TopicRecords): void {
    const { filter, listener } = this.#options
    for (const [id, { text }] of before)
      if (!after.has(id)) listener.left(filter, topic, readMember(id, text))
    for (const [id, { text }] of after)
      if (text !== before.get(id)?.text) listener.joined(filter, topic, readMember(id, text))
  }

  /** Who is a member of others can't be refused: what else is kept makes room for it. */
  #count(bytes: number): void {
    this.#bytes += bytes
    this.#options.memory.add('members', bytes)
    this.#options.memory.settle()
  }

  #keep(topic: string, members: Map<string, MemberRecord>): void {
    if (members.size > 0) this.#topics.set(topic, members)
    else this.#topics.delete(topic)
  }
}

/** What a member is, and the id of the change that made it so, or up to which it was read. */
interface MemberRecord {
  readonly text: string
  readonly at: Position
}

type TopicRecords = ReadonlyMap<string, MemberRecord>

function bytesOf(topic: string, members: TopicRecords): number {
  let bytes = 0
  for (const [id, { text }] of members) bytes += memberTextBytes(topic, id, text)
  return bytes
}

/** The members of a topic as they were read, with every change up to an id. */
interface TopicMembers {
  readonly members: Map<string, MemberRecord>
  readonly at: Position
}

/** Makes the changes that came after what was read. */
function addChanges(found: Map<string, TopicMembers>, changes: readonly MemberChange[]): void {
  for (const { topic, id, text, at } of changes) {
    // a topic that was not asked for had no members then
    const read = found.get(topic) ?? { members: new Map<string, MemberRecord>(), at: ZERO }
    found.set(topic, read)
    if (comparePositions(at, read.at) > 0) alter(read.members, id, text, at)
  }
}

function alter(members: Map<string, MemberRecord>, id: string, text: string | null, at: Position): void {
  if (text === null) members.delete(id)
  else members.set(id, { text, at })
}

const ZERO: Position = { ms: 0, seq: 0 }
