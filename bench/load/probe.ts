import { setTimeout as sleep } from 'node:timers/promises'
import { Caller } from './caller.ts'
import { Samples } from './samples.ts'

/** How far apart two questions are, in milliseconds: a standstill may seem shorter by as much. */
const EVERY_MS = 5

/** How long a server that has nothing else to do is asked first. */
const QUIET_MS = 1000

/**
 * How long a server's event loop stands still, seen from outside: it is asked every few milliseconds for what costs it
 * nothing, and what the longest answer takes beyond an ordinary one is the time in which it did something else.
 */
export class Probe {
  readonly #caller: Caller
  /** Of what was asked last, in microseconds. */
  readonly #answers = new Samples()
  #ordinaryMs = 0

  private constructor(port: number) {
    this.#caller = new Caller(port)
  }

  static async start({ port }: { readonly port: number }): Promise<Probe> {
    const probe = new Probe(port)
    await probe.#askDuring(() => sleep(QUIET_MS))
    probe.#ordinaryMs = probe.#answers.percentile(50)
    return probe
  }

  /** The longest standstill while something runs, in milliseconds, and what has come of it. */
  async during<T>(run: () => Promise<T>): Promise<{ readonly result: T; readonly standstill: number }> {
    const result = await this.#askDuring(run)
    return { result, standstill: Math.max(0, this.#answers.percentile(100) - this.#ordinaryMs) }
  }

  stop(): Promise<void> {
    return this.#caller.stop()
  }

  async #askDuring<T>(run: () => Promise<T>): Promise<T> {
    let running = true
    this.#answers.clear()
    const asking = (async () => {
      while (running) {
        const { milliseconds } = await this.#caller.get('/livez')
        this.#answers.add(milliseconds * 1000)
        if (running) await sleep(Math.max(0, EVERY_MS - milliseconds))
      }
    })()
    try {
      return await run()
    } finally {
      running = false
      await asking
    }
  }
}
