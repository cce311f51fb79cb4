/** Times in microseconds, and where they lie. */
export class Samples {
  #values = new Float64Array(1 << 16)
  #length = 0

  add(value: number): void {
    if (this.#length === this.#values.length) {
      const grown = new Float64Array(this.#length * 2)
      grown.set(this.#values)
      this.#values = grown
    }
    this.#values[this.#length++] = value
  }

  clear(): void {
    this.#length = 0
  }

  get length(): number {
    return this.#length
  }

  /** In milliseconds; NaN when there are none. */
  percentile(percent: number): number {
    const sorted = this.#values.slice(0, this.#length).sort()
    const rank = Math.min(this.#length - 1, Math.ceil((percent / 100) * this.#length) - 1)
    return this.#length === 0 ? NaN : sorted[Math.max(0, rank)]! / 1000
  }
}
