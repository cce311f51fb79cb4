import type { Tally } from '../broker/tally.ts'
import type { Clock, Timer } from '../clock.ts'

/** For how long those who were refused are asked to spread themselves, at most, in milliseconds. */
const MOST_BACKLOG_MS = 60_000

/** After how long an allowance of a rate, and so many at once, is whole again, in milliseconds. */
const WHOLE_MS = 1000

/** How long an idle allowance of which only a part may be used is kept, at most, in milliseconds. */
const MOST_IDLE_MS = 60_000

/** A token bucket: so many a second, and so many at once. */
export class Allowance {
  readonly #rate: number
  readonly #most: number
  readonly #clock: Clock
  #left: number
  #refused = 0
  #at: number
  /** How often it was asked for since that was taken. */
  #asked = 0
  #share = 1

  constructor(rate: number, most: number, clock: Clock) {
    this.#rate = rate
    this.#most = this.#left = most
    this.#clock = clock
    this.#at = clock.now()
  }

  /** Which part of it may be used, from above 0 to 1. */
  set share(share: number) {
    this.#share = share
  }

  /** Whether it was idle for so long that all of it is there again; a minute is always enough. */
  get isWhole(): boolean {
    const idle = this.#clock.now() - this.#at
    const left = this.#left + (idle / 1000) * this.#rate * this.#share
    return idle >= MOST_IDLE_MS || left >= this.#most
  }

  /** How often it was asked for since the last call. */
  takeAsked(): number {
    const asked = this.#asked
    this.#asked = 0
    return asked
  }

  /** How long it takes until all who were refused could have had one, in milliseconds; a minute at most. */
  get backlog(): number {
    return (this.#refused / this.#rate) * 1000
  }

  /**
   * Takes so many; false when there are not `least` left, or not all of it where there could never be so many. What it
   * takes more than there is, is owed: the next one waits for it.
   */
  take(count = 1, least = count): boolean {
    this.#gain()
    this.#asked += count
    if (this.#left < Math.min(least, this.#full)) {
      // a client that never stops would make all others at its address wait for hours
      this.#refused = Math.min(this.#refused + count, (this.#rate * MOST_BACKLOG_MS) / 1000)
      return false
    }
    this.#left -= count
    return true
  }

  /** After how long there are so many, in milliseconds. */
  waitFor(least: number): number {
    const missing = Math.min(least, this.#full) - this.#left
    return Math.max(0, missing / (this.#rate * this.#share)) * 1000
  }

  /** How many there are at most. Less than one would never be one. */
  get #full(): number {
    return Math.max(1, this.#most * this.#share)
  }

  #gain(): void {
    const now = this.#clock.now()
    const gained = (Math.max(0, now - this.#at) / 1000) * this.#rate * this.#share
    this.#at = now
    this.#left = Math.min(this.#full, this.#left + gained)
    this.#refused = Math.max(0, this.#refused - gained)
  }
}

/**
 * The part of its rate from which on the other instances are told of a client, so that a quiet one costs them nothing. A
 * client that stays below it on each of more than fifty instances may write more than its rate.
 */
const SHARED_FROM = 0.02

/** Of how many clients they are told at a time, at most: those who ask for most. */
const MOST_SHARED = 256

/** An allowance for each client, for as long as it isn't whole. */
export class Rates {
  readonly #rate: number
  readonly #clock: Clock
  readonly #tally: Tally | undefined
  /** Those that were used since it was last looked, and those that were used before. */
  #used = new Map<string, Allowance>()
  #idle = new Map<string, Allowance>()
  #timer: Timer | null = null

  /** `rate`: so many a second; 0 for no limit. With a tally it is that of all instances together. */
  constructor(rate: number, clock: Clock, tally?: Tally) {
    this.#rate = rate
    this.#clock = clock
    this.#tally = tally
  }

  get size(): number {
    return this.#used.size + this.#idle.size
  }

  /**
   * Takes so many for a client, as `Allowance.take`. Null for what is within the rate; else how long it takes until all who
   * were refused could have one, in milliseconds.
   */
  take(client: string, count = 1, least = count): number | null {
    if (this.#rate === 0) return null
    const allowance = this.#of(client)
    return allowance.take(count, least) ? null : allowance.backlog
  }

  /** After how long a client that was refused may have so many, in whole seconds. */
  retryAfter(client: string, least: number): number {
    return Math.max(1, Math.ceil(this.#of(client).waitFor(least) / 1000))
  }

  #of(client: string): Allowance {
    let allowance = this.#used.get(client)
    if (!allowance) {
      allowance = this.#idle.get(client) ?? new Allowance(this.#rate, this.#rate, this.#clock)
      this.#idle.delete(client)
      this.#used.set(client, allowance)
      this.#timer ??= this.#clock.after(WHOLE_MS, () => this.#forget())
    }
    return allowance
  }

  /**
   * Forgets what was idle all the time since the last call: it is whole again. Only an allowance of which a part may be
   * used can take longer.
   */
  #forget(): void {
    const kept = [...this.#idle].filter(([, allowance]) => !allowance.isWhole)
    this.#idle = this.#used
    this.#used = new Map()
    if (this.#tally) void this.#settle(this.#idle, this.#tally)
    for (const [client, allowance] of kept) this.#idle.set(client, allowance)
    if (this.#idle.size > 0) this.#timer!.refresh()
    else this.#timer = null
  }

  /**
   * Where a client asks for more than its rate on all instances together, each gives it the part of its rate that is
   * the instance's part of what it asks for. So the sum is its rate, and nobody waits for another instance to be let in.
   */
  async #settle(used: ReadonlyMap<string, Allowance>, tally: Tally): Promise<void> {
    const busy: { client: string; asked: number; allowance: Allowance }[] = []
    for (const [client, allowance] of used) {
      const asked = allowance.takeAsked()
      if (asked >= this.#rate * SHARED_FROM) busy.push({ client, asked, allowance })
      else allowance.share = 1
    }
    if (busy.length === 0) return
    if (busy.length > MOST_SHARED) busy.sort((one, other) => other.asked - one.asked)
    const shared = busy.slice(0, MOST_SHARED)
    for (const { allowance } of busy.slice(MOST_SHARED)) allowance.share = 1
    const others = await tally.count(new Map(shared.map(({ client, asked }) => [client, asked])))
    for (const { client, asked, allowance } of shared) {
      const all = asked + (others.get(client) ?? 0)
      allowance.share = all > this.#rate ? asked / all : 1
    }
  }
}
