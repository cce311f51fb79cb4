/** As little of HTTP/2 (RFC 9113) as subscribers need: requests that ask for streams, and frames of their data. */

const FRAME_HEAD = 9
const DATA = 0
const HEADERS = 1
const SETTINGS = 4
const WINDOW_UPDATE = 8
/** Of a request without a body: the end of the stream, and of its headers. */
const END = 0x05
const ACK = 0x01

const INITIAL_WINDOW_SIZE = 4
const MOST = 2 ** 31 - 1
const DEFAULT_WINDOW = 65_535

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(FRAME_HEAD)
  head.writeUIntBE(payload.length, 0, 3)
  head.writeUInt8(type, 3)
  head.writeUInt8(flags, 4)
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

function setting(name: number, value: number): Buffer {
  const bytes = Buffer.alloc(6)
  bytes.writeUInt16BE(name, 0)
  bytes.writeUInt32BE(value, 2)
  return bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** What a client begins with: windows that no measurement uses up, so that none is ever to be renewed. */
export const PREFACE = Buffer.concat([
  Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  frame(SETTINGS, 0, 0, setting(INITIAL_WINDOW_SIZE, MOST)),
  frame(WINDOW_UPDATE, 0, 0, uint32(MOST - DEFAULT_WINDOW))
])

/** To be said once the server has sent its settings, which come first. */
export const SETTINGS_ACK = frame(SETTINGS, ACK, 0, Buffer.alloc(0))

/** Fields of HPACK's static table (RFC 7541, appendix A). */
const METHOD_GET = 0x82
const SCHEME_HTTPS = 0x87
const PATH = 0x04
const AUTHORITY = 0x01
const NEW_NAME = 0x00

/** The n-th request of a connection (from 0), a GET given as HTTP/1.1 has it. */
export function requestFrame(request: string, index: number): Buffer {
  const [line = '', ...fields] = request.trimEnd().split('\r\n')
  const block = [Buffer.of(METHOD_GET, SCHEME_HTTPS, PATH), text(line.split(' ')[1]!)]
  for (const field of fields) {
    const [name, value] = field.split(/: (.*)/s, 2) as [string, string]
    block.push(...(name === 'host' ? [Buffer.of(AUTHORITY)] : [Buffer.of(NEW_NAME), text(name)]), text(value))
  }
  return frame(HEADERS, END, 2 * index + 1, Buffer.concat(block))
}

/** A string as it is, not packed; longer ones would need more bytes for their length. */
function text(value: string): Buffer {
  if (value.length > 126) throw new RangeError(`too long for the load's HTTP/2: ${value}`)
  return Buffer.from(`${String.fromCharCode(value.length)}${value}`, 'latin1')
}

/** Finds the data in what a server sends on one connection, wherever the reads cut it. */
export class FrameReader {
  readonly #head = Buffer.alloc(FRAME_HEAD)
  #read = 0
  #left = 0

  /** Calls back with where data begins and ends in these bytes. */
  read(bytes: Buffer, size: number, data: (start: number, end: number) => void): void {
    let at = 0
    while (at < size) {
      if (this.#left === 0) {
        this.#head[this.#read++] = bytes[at++]!
        if (this.#read < FRAME_HEAD) continue
        this.#read = 0
        this.#left = this.#head.readUIntBE(0, 3)
      } else {
        const end = Math.min(size, at + this.#left)
        if (this.#head[3] === DATA) data(at, end)
        this.#left -= end - at
        at = end
      }
    }
  }
}
