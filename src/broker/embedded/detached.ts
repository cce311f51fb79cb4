import type { Data } from '../../event.ts'

/** The same once more: what came in may be a part of a much larger body, which it would keep alive as a whole. */
export function detached<D extends Data>(data: D): D
export function detached(data: Data): Data {
  return typeof data === 'string' ? Buffer.from(data).toString() : new Uint8Array(data)
}
