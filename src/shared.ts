/**
 * Equal questions at the same time are asked once. Nothing is kept once it was answered, and no answer is older than who
 * gets it: whoever comes while a question is under way shares the next one, which is asked when that one has ended.
 */
export class Shared<T> {
  readonly #underWay = new Map<string, UnderWay<T>>()

  /** The answer to the question of this name. Rejects as `ask` does. */
  read(name: string, ask: () => Promise<T>): Promise<T> {
    const underWay = this.#underWay.get(name)
    if (!underWay) return this.#ask(name, ask)
    return (underWay.next ??= underWay.ended.then(() => this.#ask(name, ask)))
  }

  #ask(name: string, ask: () => Promise<T>): Promise<T> {
    // what is thrown here rejects
    const answer = new Promise<T>(resolve => resolve(ask()))
    const underWay: UnderWay<T> = { ended: answer.then(ignore, ignore), next: null }
    this.#underWay.set(name, underWay)
    void underWay.ended.then(() => {
      if (!underWay.next) this.#underWay.delete(name)
    })
    return answer
  }
}

interface UnderWay<T> {
  /** Settles once it has an answer or has failed. */
  readonly ended: Promise<void>
  /** The answer for those who have come since it began. */
  next: Promise<T> | null
}

function ignore(): void {}
