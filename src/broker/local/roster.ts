import { wildcardOf, type Member, type Signal } from '../../event.ts'
import type { Roster, RosterListener } from '../roster.ts'

/** The embedded roster: all members are of this process, which is the only instance. */
export class LocalRoster implements Roster {
  readonly #followed = new Set<string>()
  readonly #members = new Map<string, Map<string, Member>>()
  #listener: RosterListener | undefined

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
    const members = this.#members.get(topic) ?? new Map<string, Member>()
    this.#members.set(topic, members)
    const before = members.get(member.id)
    members.set(member.id, member)
    if (before?.info !== member.info || before.sub !== member.sub) {
      for (const filter of this.#followedOf(topic)) this.#listener?.joined(filter, topic, member)
    }
    return Promise.resolve()
  }

  leave(topic: string, id: string): Promise<void> {
    const members = this.#members.get(topic)
    const member = members?.get(id)
    if (!members || !member) return Promise.resolve()
    members.delete(id)
    if (members.size === 0) this.#members.delete(topic)
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
