import { RingsideError } from './error.ts'
import type { Member, Said } from './messages.ts'
import { call } from './reconnect.ts'
import type { Lasting, Requests } from './requests.ts'

export type OnMember = (member: Member, topic: string) => void

export interface JoinOptions {
  /** What the others are told of this one. */
  readonly info?: unknown
  /** All who are there, this one included: at first, and anew after each reconnect. */
  readonly onMembers?: ((members: readonly Member[]) => void) | undefined
  readonly onJoined?: OnMember | undefined
  readonly onLeft?: OnMember | undefined
  /** The server did not let this one join again. */
  readonly onEnd?: ((error: RingsideError) => void) | undefined
}

export interface Membership {
  leave(): Promise<void>
}

/** A topic that somebody has joined, whatever happens to the connection. */
interface Joining extends Lasting {
  readonly topic: string
  readonly options: JoinOptions
}

/** What a connection has joined. It joins again when it has come back. */
export class Joins {
  readonly #requests: Requests
  readonly #joinings = new Map<string, Joining>()

  constructor(requests: Requests) {
    this.#requests = requests
  }

  /** Resolves once the server has taken it. */
  async add(topic: string, options: JoinOptions): Promise<Membership> {
    if (this.#joinings.has(topic)) throw new RingsideError('bad_request', `${topic}: has joined already`)
    const joining: Joining = { topic, options, settle: undefined }
    await this.#requests.taken(joining, () => {
      this.#joinings.set(topic, joining)
      if (this.#requests.isConnected) this.#join(joining)
    })
    return {
      leave: async () => {
        if (this.#joinings.get(topic) !== joining) return
        this.#joinings.delete(topic)
        await this.#requests.giveUp({ op: 'leave', topic })
      }
    }
  }

  /** There is a connection: joins all of them. */
  begin(): void {
    for (const joining of this.#joinings.values()) this.#join(joining)
  }

  close(error: RingsideError): void {
    for (const { settle } of this.#joinings.values()) settle?.(error)
    this.#joinings.clear()
  }

  /** Somebody has joined a topic, or left it. */
  receiveMember(change: 'onJoined' | 'onLeft', { member, topic }: Said): void {
    call(this.#joinings.get(topic)?.options[change], member, topic)
  }

  #join(joining: Joining): void {
    const { topic, options } = joining
    this.#requests.request(
      { op: 'join', topic, info: options.info },
      'here',
      ({ members }) => {
        call(options.onMembers, members)
        joining.settle?.()
        joining.settle = undefined
      },
      error => {
        if (this.#joinings.get(topic) === joining) this.#joinings.delete(topic)
        if (joining.settle) joining.settle(error)
        else call(options.onEnd, error)
      }
    )
  }
}
