/** What Redis is asked for, as a metric tells it. */
export type RefusedOp = 'append' | 'tick' | 'listen' | 'read' | 'presence'

/** Why it refuses: it has no room, its user may not, or anything else. */
export type RefusalKind = 'full' | 'denied' | 'other'

/** How often the log is told of a kind of refusal, in milliseconds. */
const TELL_MS = 60_000

/** What Redis says to a user who may not do something; the last, in a script of Redis 7. */
const DENIED = ['NOPERM', 'NOAUTH', 'WRONGPASS', "user executing the script can't"]

export interface RefusalsOptions {
  /** Counts one. */
  readonly count: (op: RefusedOp, kind: RefusalKind) => void
  /** Is told what Redis refuses, with its own words: each kind at most once a minute. */
  readonly warn: (stage: string, error: Error) => void
  /** Milliseconds of a clock that never steps. */
  readonly elapsed?: () => number
}

/** Counts what Redis answers and refuses, and tells the log why: nobody else hears its own words. */
export class Refusals {
  readonly #options: RefusalsOptions
  /** When each was told last. */
  readonly #toldAt = new Map<string, number>()

  constructor(options: RefusalsOptions) {
    this.#options = options
  }

  /** Passes on what Redis answers, or its refusal. */
  async watch<T>(op: RefusedOp, answer: Promise<T>): Promise<T> {
    try {
      return await answer
    } catch (error) {
      this.note(op, error as Error)
      throw error
    }
  }

  /** Takes what Redis has said instead of doing what it was asked for. */
  note(op: RefusedOp, error: Error): void {
    const kind = refusalKind(error)
    if (!kind) return
    this.#options.count(op, kind)
    // a connection without ticks ends, and its end is told
    if (op !== 'tick') this.tell(op, error)
  }

  /** Tells the log of a refusal. */
  tell(op: RefusedOp, error: Error): void {
    if (refusalKind(error) === 'full') this.#tellSeldom('memory', FULL)
    else this.#tellSeldom(op, new Error(`refused it (${error.message})`))
  }

  #tellSeldom(stage: string, error: Error): void {
    const now = this.#options.elapsed?.() ?? performance.now()
    if (now - (this.#toldAt.get(stage) ?? -Infinity) < TELL_MS) return
    this.#toldAt.set(stage, now)
    this.#options.warn(stage, error)
  }
}

const FULL = new Error('is full (maxmemory): what needs room is refused, readers are served')

/** What Redis says where it refuses: as ioredis has it, and as a script has it of one append. */
export function refusal(message: string): Error {
  return Object.assign(new Error(message), { name: 'ReplyError' })
}

/** Why Redis has refused; null for what had no answer. 6.2 has its own words before those of 7, which are the same. */
export function refusalKind({ name, message }: Error): RefusalKind | null {
  if (name !== 'ReplyError') return null
  if (message.includes('OOM command not allowed')) return 'full'
  return DENIED.some(words => message.includes(words)) ? 'denied' : 'other'
}
