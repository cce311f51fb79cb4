/** How long a test waits for what must come. It only ends a test that fails. */
const PATIENCE_MS = 60_000

/** Rejects when what is awaited has not come for much longer than it could take. `have` says what there is instead. */
export function inTime<T>(awaited: Promise<T>, what: string, have: () => unknown = () => ''): Promise<T> {
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error(`waited in vain for ${what}; have: ${preview(have())}`))
    const timer = setTimeout(fail, PATIENCE_MS)
    awaited.then(resolve, reject).finally(() => clearTimeout(timer))
  })
}

function preview(value: unknown): string {
  return String(JSON.stringify(value)).slice(-500)
}

/** Everything that has come, in order, and a way to wait for more. */
export class Inbox<T> {
  readonly all: T[] = []
  #read = 0
  #ended: string | undefined
  readonly #waiting = new Set<() => void>()

  push(item: T): void {
    this.all.push(item)
    this.#wake()
  }

  /** Nothing more will come; who still waits for something is told why it doesn't. */
  end(why: string): void {
    this.#ended ??= why
    this.#wake()
  }

  /** The next one that was not taken yet. */
  async next(what = 'the next'): Promise<T> {
    await this.until(() => this.all.length > this.#read, what)
    return this.all[this.#read++]!
  }

  /** Resolves as soon as something is true of what has come. */
  until(condition: () => boolean, what: string): Promise<void> {
    const met = new Promise<void>((resolve, reject) => {
      const look = () => {
        if (condition()) resolve()
        else if (this.#ended !== undefined) reject(new Error(`${what}: ${this.#ended}`))
        else return
        this.#waiting.delete(look)
      }
      this.#waiting.add(look)
      look()
    })
    return inTime(met, what, () => this.all.slice(-10))
  }

  /** What of it was not taken with `next` yet. */
  get rest(): T[] {
    return this.all.slice(this.#read)
  }

  #wake(): void {
    for (const look of [...this.#waiting]) look()
  }
}

/** Asks again and again, until the answer is the one: for what tells nobody when it changes. */
export async function eventually<T>(
  ask: () => T | Promise<T>,
  good: (answer: T) => boolean,
  what: string
): Promise<T> {
  const started = Date.now()
  for (;;) {
    const answer = await ask()
    if (good(answer)) return answer
    if (Date.now() - started > PATIENCE_MS)
      throw new Error(`waited in vain for ${what}; have: ${preview(answer)}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
