import { wildcardOf, type Member, type Signal } from '../../event.ts'
import { Memory } from '../../memory.ts'
import { memberBytes, type Roster, type RosterListener } from '../roster.ts'

/** The embedded roster: all members are of this process, which is the only instance. */
export class LocalRoster implements Roster {
  readonly #followed = new Set<string>()
  readonly #members = new Map<string, Map<string, Member>>()
  readonly #memory: Memory
  #listener: RosterListener | undefined

  constructor(memory: Memory = new Memory(Infinity)) {
    this.#memory = memory
  }

  listen(listener: RosterListener): void {
    this.#listener = listener
  }

  follow(filter: string): Promise<void> {
    this.#followed.add(filter)
    return Promise.resolve()
  }

  unfollow(filter: string): void {
    this.#followed.delete(filter)
  }

  members(topic: string): readonly Member[] {
    return [...(this.#members.get(topic)?.values() ?? [])]
  }

  join(topic: string, member: Member): Promise<void> {
    // what is thrown here rejects
    return new Promise(resolve => resolve(this.#join(topic, member)))
  }

  #join(topic: string, member: Member): void {
    const members = this.#members.get(topic) ?? new Map<string, Member>()
    const before = members.get(member.id)
    this.#memory.take('members', bytesOf(topic, member) - (before ? bytesOf(topic, before) : 0))
    this.#members.set(topic, members)
    members.set(member.id, member)
    if (before?.info === member.info && before.sub === member.sub) return
    for (const filter of this.#followedOf(topic)) this.#listener?.joined(filter, topic, member)
  }

  leave(topic: string, id: string): Promise<void> {
    const members = this.#members.get(topic)
    const member = members?.get(id)
    if (!members || !member) return Promise.resolve()
    members.delete(id)
    if (members.size === 0) this.#members.delete(topic)
    this.#memory.give('members', bytesOf(topic, member))
    for (const filter of this.#followedOf(topic)) this.#listener?.left(filter, topic, member)
    return Promise.resolve()
  }

  signal(signal: Signal): Promise<void> {
    for (const filter of this.#followedOf(signal.topic)) this.#listener?.signalled(filter, signal)
    return Promise.resolve()
  }

  /** Hands nothing over any more. */
  close(): void {
    this.#listener = undefined
  }

  #followedOf(topic: string): string[] {
    return [topic, wildcardOf(topic)].filter(filter => this.#followed.has(filter))
  }
}

function bytesOf(topic: string, { id, sub, info }: Member): number {
  return memberBytes(topic, id, sub ?? '', info ?? '')
}
