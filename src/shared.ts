import { stopIfGone, type Asker } from './asker.ts'

/**
 * Equal questions at the same time are asked once. Nothing is kept once it was answered, and no answer is older than who
 * gets it: whoever comes while a question is under way shares the next one, which is asked when that one has ended.
 */
export class Shared<T> {
  readonly #underWay = new Map<string, UnderWay<T>>()

  /**
   * The answer to the question of this name; `ask` is told for whom. Rejects as `ask` does, and with `Unwanted` when all
   * who wait for it have gone.
   */
  read(name: string, ask: (askers: Asker) => Promise<T>, asker?: Asker): Promise<T> {
    const underWay = this.#underWay.get(name)
    if (!underWay) return this.#begin(name, new Question(ask)).join(asker)
    if (!underWay.next || underWay.next.isGone) {
      underWay.next = new Question(async askers => {
        await underWay.ended
        stopIfGone(askers)
        return ask(askers)
      })
    }
    return underWay.next.join(asker)
  }

  #begin(name: string, question: Question<T>): Question<T> {
    const underWay: UnderWay<T> = { ended: question.answer.then(ignore, ignore), next: null }
    this.#underWay.set(name, underWay)
    void underWay.ended.then(() => {
      if (underWay.next) this.#begin(name, underWay.next)
      else this.#underWay.delete(name)
    })
    return question
  }
}

/** A question that some ask together. It has gone once all of them have. */
export class Question<T> implements Asker {
  readonly answer: Promise<T>
  readonly #askers: (Asker | undefined)[] = []
  #hasGone = false

  /** Asks at once, on behalf of all who join in this turn or later. What `ask` throws rejects. */
  constructor(ask: (askers: Asker) => Promise<T>) {
    this.answer = new Promise(resolve => resolve(ask(this)))
  }

  /** Nobody may join any more once it has: it may have been given up. */
  get isGone(): boolean {
    while (!this.#hasGone && this.#askers.length > 0 && this.#askers.at(-1)?.isGone) {
      this.#askers.pop()
      this.#hasGone = this.#askers.length === 0
    }
    return this.#hasGone
  }

  /** One more wants the answer, and gets it: until it has gone, or to the end where it is not known. */
  join(asker?: Asker): Promise<T> {
    this.#askers.push(asker)
    return this.answer
  }
}

interface UnderWay<T> {
  /** Settles once it has an answer or has failed. */
  readonly ended: Promise<void>
  /** What those ask who have come since it began. */
  next: Question<T> | null
}

function ignore(): void {}
