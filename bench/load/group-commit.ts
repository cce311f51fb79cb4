import { setImmediate } from 'node:timers/promises'

/** Commits all that waits at once, and what comes meanwhile after that: one flush for many. */
export class GroupCommit<Item> {
  readonly #commit: (items: readonly Item[]) => Promise<void> | void
  #waiting: { item: Item; resolve: () => void; reject: (reason: unknown) => void }[] = []
  #isRunning = false

  constructor(commit: (items: readonly Item[]) => Promise<void> | void) {
    this.#commit = commit
  }

  /** Resolves once it is committed. */
  append(item: Item): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject })
      if (!this.#isRunning) void this.#run()
    })
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    // those that came in the same turn go together
    await setImmediate()
    while (this.#waiting.length > 0) {
      const group = this.#waiting
      this.#waiting = []
      try {
        await this.#commit(group.map(({ item }) => item))
        for (const { resolve } of group) resolve()
      } catch (error) {
        for (const { reject } of group) reject(error)
      }
      // a commit that blocks lets come what waits at the door
      await setImmediate()
    }
    this.#isRunning = false
  }
}
