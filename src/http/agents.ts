/** How many different clients are told apart, and how long what one says of itself may be, in characters. */
const MOST = 1000
const LONGEST = 200

/**
 * What clients say that they are (`User-Agent`), each text once: thousands of connections say the same, and none of them is
 * to hold a text of its own for it.
 */
export class Agents {
  readonly #known = new Map<string, string>()

  /** The same text, cut short; null where there is none, or where there are too many others. */
  of(agent: string | undefined): string | null {
    if (agent === undefined || agent === '') return null
    const known = this.#known.get(agent)
    if (known !== undefined) return known
    if (agent.length > LONGEST) return this.of(agent.slice(0, LONGEST))
    if (this.#known.size >= MOST) return null
    // a part of a longer text would keep all of that
    const own = Buffer.from(agent).toString()
    this.#known.set(own, own)
    return own
  }
}
