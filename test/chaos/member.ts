import { setTimeout as delay } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { Instance } from './instance.ts'
import type { Heard, Present, Visit } from './presence.ts'
import type { Random } from './random.ts'

/** How long an answer may take, in milliseconds. */
const ANSWER_MS = 20_000

/** The longest that a member does nothing, in milliseconds. */
const IDLE_MS = 4000

export interface MemberOptions {
  readonly name: string
  /** Where it may go. */
  readonly rooms: readonly string[]
  /** Where it wants to be at first; one of them by default. */
  readonly wanted?: readonly string[]
  readonly random: Random
  /** Where to connect to now: any of the instances, running or not. */
  readonly instance: () => Instance
}

interface Answer {
  readonly op: string
  readonly ref?: number
  readonly code?: string
  readonly message?: string
  readonly members?: readonly Told[]
}

/** Somebody as the server tells of him. */
interface Told {
  readonly id: string
  readonly info: unknown
}

/**
 * Joins rooms, tells other things of itself, leaves, drops its connection, and comes back to any instance; and keeps
 * what it is told of who is there.
 */
export class Member {
  readonly name: string
  readonly visits: Visit[] = []
  /** What no message may say. */
  readonly strange: string[] = []
  /** Where it wants to be now. */
  readonly #wanted: Set<string>
  readonly #options: MemberOptions
  #conversation: Conversation | undefined
  #calm = new AbortController()
  #steady = false
  #isGone = false
  #infos = 0

  constructor(options: MemberOptions) {
    this.#options = options
    this.name = options.name
    this.#wanted = new Set(options.wanted ?? options.random.some(options.rooms, 1))
  }

  /** Whether it is where it wants to be, or gone for good. */
  get isSettled(): boolean {
    if (this.#isGone) return !this.#conversation?.isOpen
    return this.#steady && !!this.#conversation?.isOpen && this.#isWhereItWants
  }

  /** Runs until `stop`. */
  async run(): Promise<void> {
    const { random } = this.#options
    while (!this.#isGone) {
      await this.#visit()
      // now and then one is away for longer
      const away = random.chance(0.2) ? random.whole(1000, 6000) : random.whole(0, 500)
      if (!this.#isGone) await this.#pause(this.#steady ? 100 : away)
    }
  }

  /** From now on it stays where it is, and comes back if its connection ends. */
  settle(): void {
    this.#steady = true
    this.#calm.abort()
  }

  /** Goes for good, in the middle of whatever it does. */
  stop(): void {
    this.#isGone = true
    this.#conversation?.drop()
    this.#calm.abort()
  }

  /** Resolves when the connection has ended. */
  async #visit(): Promise<void> {
    const { instance } = this.#options
    const { name, port } = instance()
    const conversation = new Conversation(this.name, name, port)
    this.#conversation = conversation
    this.visits.push(conversation)
    await Promise.all([this.#talk(conversation), conversation.ended])
    this.strange.push(...conversation.strange)
  }

  async #talk(conversation: Conversation): Promise<void> {
    const { random } = this.#options
    if (!(await conversation.opened)) return
    while (conversation.isOpen) {
      if (!(await this.#go(conversation))) await this.#pause(random.whole(100, 400))
      else if (this.#steady) return
      else {
        await this.#pause(random.whole(50, IDLE_MS))
        if (!this.#steady && conversation.isOpen) await this.#act(conversation)
      }
    }
  }

  /** Goes to where it wants to be; false where it was told to try again. */
  async #go(conversation: Conversation): Promise<boolean> {
    for (const room of conversation.rooms) {
      if (!this.#wanted.has(room) && !(await conversation.ask('leave', room))) return false
    }
    for (const room of this.#wanted) {
      if (!conversation.rooms.has(room) && !(await this.#join(conversation, room))) return false
    }
    return true
  }

  async #act(conversation: Conversation): Promise<void> {
    const { random } = this.#options
    const what = random.next()
    if (what < 0.2) conversation.drop()
    else if (what < 0.3) conversation.close()
    else if (what < 0.5) this.#wantMore()
    else if (what < 0.75) this.#wanted.delete(random.pick([...this.#wanted, '']))
    else if (this.#wanted.size > 0) await this.#join(conversation, random.pick([...this.#wanted]))
  }

  #wantMore(): void {
    this.#wanted.add(this.#options.random.pick(this.#options.rooms))
  }

  #join(conversation: Conversation, room: string): Promise<boolean> {
    return conversation.ask('join', room, { name: this.name, n: ++this.#infos })
  }

  get #isWhereItWants(): boolean {
    const rooms = this.#conversation!.rooms
    return rooms.size === this.#wanted.size && [...this.#wanted].every(room => rooms.has(room))
  }

  /** A pause that becoming steady or going ends. */
  async #pause(ms: number): Promise<void> {
    if (this.#calm.signal.aborted) this.#calm = new AbortController()
    await delay(ms, undefined, { signal: this.#calm.signal }).catch(() => {})
  }
}

/** One WebSocket that asks for one thing after the other. */
export class Conversation implements Visit {
  readonly name: string
  readonly instance: string
  readonly log: Heard[] = []
  /** What no message may say. */
  readonly strange: string[] = []
  /** Where it is. */
  readonly rooms = new Set<string>()
  /** Whether it is open; false when it never will be. */
  readonly opened: Promise<boolean>
  readonly ended: Promise<void>
  isOpen = false
  readonly #ws: WebSocket
  #ref = 0
  #asked: { readonly op: 'join' | 'leave'; readonly room: string } | undefined
  #answer: ((answer: Answer) => void) | undefined

  constructor(name: string, instance: string, port: number) {
    this.name = name
    this.instance = instance
    const ws = (this.#ws = new WebSocket(`ws://127.0.0.1:${port}/ws`, { perMessageDeflate: false }))
    this.opened = new Promise(resolve => {
      ws.on('open', () => resolve((this.isOpen = true)))
      ws.on('close', () => resolve(false))
    })
    this.ended = new Promise(resolve =>
      ws.on('close', () => {
        this.isOpen = false
        this.#answer?.({ op: 'closed' })
        resolve()
      })
    )
    ws.on('message', (bytes: Buffer) => this.#receive(JSON.parse(bytes.toString()) as Answer))
    ws.on('error', (error: Error & { code?: string }) => {
      // 'close' follows
      if (error.code?.startsWith('WS_ERR')) this.strange.push(`${name}: ${error.message}`)
    })
  }

  /** Joins or leaves; false where it was told to try again, or the connection has ended. */
  async ask(op: 'join' | 'leave', room: string, info?: object): Promise<boolean> {
    if (!this.isOpen) return false
    const ref = ++this.#ref
    const answered = new Promise<Answer>(resolve => (this.#answer = resolve))
    this.#asked = { op, room }
    this.#ws.send(JSON.stringify({ op, ref, topic: room, info }))
    const answer = await Promise.race([answered, delay(ANSWER_MS, null, { ref: false })])
    this.#answer = undefined
    const isExpected = answer !== null && (answer.op !== 'error' || answer.code === 'unavailable')
    if (!isExpected) {
      this.strange.push(`${this.name}: ${op} ${room} in ${ANSWER_MS} ms: ${JSON.stringify(answer)}`)
      this.drop()
    }
    // what it tells may be known all the same, or not: it tells again until it has an answer
    if (op === 'join' && answer?.op === 'error') this.rooms.delete(room)
    return answer?.op === 'ok'
  }

  /** Joins all these; false where it couldn't. */
  async visit(rooms: readonly string[]): Promise<boolean> {
    await this.opened
    for (const room of rooms) if (!(await this.ask('join', room))) return false
    return true
  }

  /** Says goodbye, as a page does. */
  close(): void {
    this.#ws.close()
  }

  /** Is gone without a word. */
  drop(): void {
    this.isOpen = false
    this.#ws.terminate()
  }

  #receive(message: Answer & { readonly topic?: string; readonly member?: Told }): void {
    const at = Date.now()
    const { op, topic: room, member, members } = message
    if ((op === 'joined' || op === 'left') && room !== undefined && member) {
      this.log.push({ at, room, kind: op, member: presentOf(member) })
      return
    }
    if (message.ref !== this.#ref || !this.#answer || !this.#asked) {
      this.strange.push(`${this.name}: ${JSON.stringify(message)}`)
      return
    }
    if (op === 'ok') {
      const { op: asked, room } = this.#asked
      const kind = asked === 'join' ? 'in' : 'out'
      // in the turn of the answer: what comes next already adds to it
      this.log.push({ at, room, kind, members: (members ?? []).map(presentOf) })
      if (kind === 'in') this.rooms.add(room)
      else this.rooms.delete(room)
    }
    this.#answer(message)
  }
}

function presentOf({ id, info }: Told): Present {
  return { id, info: JSON.stringify(info) }
}
