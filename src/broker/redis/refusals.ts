/** What Redis is asked for, as a metric tells it. */
export type RefusedOp = 'append' | 'tick' | 'read' | 'presence'

/** Why it refuses: it has no room, its user may not, or anything else. */
export type RefusalKind = 'full' | 'denied' | 'other'

/** How often the log is told that Redis is full, in milliseconds. */
const TELL_MS = 60_000

/** What Redis says to a user who may not do something; the last, in a script of Redis 7. */
const DENIED = ['NOPERM', 'NOAUTH', 'WRONGPASS', "can't run this command"]

export interface RefusalsOptions {
  /** Counts one. */
  readonly count: (op: RefusedOp, kind: RefusalKind) => void
  /** Is told that Redis is full: at most once a minute. */
  readonly warn: (stage: string, error: Error) => void
  /** Milliseconds of a clock that never steps. */
  readonly elapsed?: () => number
}

/** Counts what Redis answers and refuses, and says when it is full. */
export class Refusals {
  readonly #options: RefusalsOptions
  #toldAt = -Infinity

  constructor(options: RefusalsOptions) {
    this.#options = options
  }

  /** Passes on what Redis answers, or its refusal. */
  async watch<T>(op: RefusedOp, answer: Promise<T>): Promise<T> {
    try {
      return await answer
    } catch (error) {
      this.#note(op, error as Error)
      throw error
    }
  }

  #note(op: RefusedOp, error: Error): void {
    // what had no answer is no refusal
    if (error.name !== 'ReplyError') return
    const kind = kindOf(error)
    this.#options.count(op, kind)
    if (kind === 'full') this.#tellOfFull()
  }

  #tellOfFull(): void {
    const now = this.#options.elapsed?.() ?? performance.now()
    if (now - this.#toldAt < TELL_MS) return
    this.#toldAt = now
    this.#options.warn(
      'memory',
      new Error('is full (maxmemory): what needs room is refused, readers are served')
    )
  }
}

/** Whether Redis has refused for want of room: 6.2 has its own words before that, and 7 has them after it. */
export function isFull({ message }: Error): boolean {
  return message.includes('OOM command not allowed')
}

function kindOf(error: Error): RefusalKind {
  if (isFull(error)) return 'full'
  return DENIED.some(words => error.message.includes(words)) ? 'denied' : 'other'
}
