/**
 * The event that is published: JSON text of 94 bytes, which makes a frame of 122 bytes in text/event-stream. It holds a
 * marker that nothing else on the wire has, then when it was published and its number, in digits of a fixed length.
 */

/** One byte, so that it never lies across two chunks, and none that a WebSocket frame of ours begins with. */
export const MARKER = 0x7c // |

const TIME_DIGITS = 16
const NUMBER_DIGITS = 8
/** In bytes; so the next event's marker lies at least so far from this one's. */
export const EVENT_SIZE = 94

const HEAD = '{"event":"|'
const TAIL = `","note":"${'.'.repeat(EVENT_SIZE - HEAD.length - TIME_DIGITS - NUMBER_DIGITS - 12)}"}`

/** Microseconds since the epoch. */
export function now(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1000)
}

export function eventData(number: number): string {
  return HEAD + now() + String(number).padStart(NUMBER_DIGITS, '0') + TAIL
}

/** How many bytes after the marker `timeAt` and `numberAt` read. */
export const STAMP = TIME_DIGITS + NUMBER_DIGITS

/** When the event was published whose marker is at this place; NaN when that is not in these bytes. */
export function timeAt(bytes: Uint8Array, marker: number): number {
  return digits(bytes, marker + 1, TIME_DIGITS)
}

export function numberAt(bytes: Uint8Array, marker: number): number {
  return digits(bytes, marker + 1 + TIME_DIGITS, NUMBER_DIGITS)
}

function digits(bytes: Uint8Array, start: number, count: number): number {
  let value = 0
  for (let at = start; at < start + count; at++) value = value * 10 + bytes[at]! - 0x30
  return value
}
