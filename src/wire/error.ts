/** A message, or a part of one, that is not what it should be. The text says what is wrong. */
export class WireError extends Error {
  override name = 'WireError'
}
