/** How often it is shown, in milliseconds. */
const SHOWN_MS = 200

/** How wide a bar is, in characters. */
const BAR = 30

/** How far something is, as a line of a terminal that is written anew; elsewhere nothing. */
export class Progress {
  readonly #terminal = process.stderr
  #shownAt = -Infinity

  /** Whether somebody sees it. */
  get isShown(): boolean {
    return this.#terminal.isTTY
  }

  /** `line` is asked for what to show now and then. */
  show(line: () => string): void {
    if (!this.isShown || performance.now() - this.#shownAt < SHOWN_MS) return
    this.#shownAt = performance.now()
    this.#write(line())
  }

  /** Shows a last line, and leaves it there. */
  end(line: () => string): void {
    if (this.isShown) this.#write(line(), '\n')
  }

  #write(line: string, end = ''): void {
    // what is left of a longer line before it is cleared
    this.#terminal.write(`\r${line}\x1b[K${end}`)
  }
}

/** A bar that shows how much is done, from 0 to 1. */
export function bar(done: number): string {
  const full = Math.round(done * BAR)
  return `${'█'.repeat(full)}${'░'.repeat(BAR - full)} ${String(Math.floor(done * 100)).padStart(3)} %`
}
