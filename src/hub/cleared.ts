import { comparePositions, later, type Position } from '../event.ts'

/** Of how many topics it is remembered that they were cleared: of older ones a gap says that its events have expired. */
const MOST = 1000

/** The topics that an operator has cleared, and up to where: who has missed their events is told that these were lost. */
export class Cleared {
  readonly #topics = new Map<string, Position>()

  /** All events of a topic up to a position are gone. */
  add(topic: string, upTo: Position): void {
    const position = later(upTo, this.#topics.get(topic) ?? upTo)
    this.#topics.delete(topic)
    this.#topics.set(topic, position)
    if (this.#topics.size > MOST) this.#topics.delete(this.#topics.keys().next().value!)
  }

  /** Whether an event of a topic, by its id, is gone for that. */
  covers(topic: string, id: Position): boolean {
    const position = this.#topics.get(topic)
    return position !== undefined && comparePositions(id, position) <= 0
  }
}
