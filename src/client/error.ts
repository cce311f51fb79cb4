/**
 * What could not be done. `code`: as the server says (`bad_request`, `forbidden`, `too_large`, `rate_limited`,
 * `unavailable`), or `closed`. A publish that is `unavailable` may have been stored: with the same `key` it is safe to
 * repeat it.
 */
export class RingsideError extends Error {
  override name = 'RingsideError'
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }

  /** Whichever file of the library it comes from: each has a class of its own. */
  static override [Symbol.hasInstance](value: { readonly name?: unknown } | undefined): boolean {
    return value?.name === 'RingsideError'
  }
}
