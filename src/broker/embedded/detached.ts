import type { Data } from '../../event.ts'

/** Where texts are copied through: a buffer for each would cost more than the copy. */
const COPIED = Buffer.allocUnsafeSlow(65_536)

/** The same once more: what came in may be a part of a much larger body, which it would keep alive as a whole. */
export function detached<D extends Data>(data: D): D
export function detached(data: Data): Data {
  if (typeof data !== 'string') return new Uint8Array(data)
  // a character has three bytes at most, one that has more is two of them
  if (3 * data.length > COPIED.length) return Buffer.from(data).toString()
  return COPIED.toString('utf8', 0, COPIED.write(data))
}
