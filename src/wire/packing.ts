import { block, HEADER, trailer, type History } from './gzip.ts'
import { Sum } from './sum.ts'

/** Frames as the bytes of one write. */
export interface Piece {
  readonly bytes: Buffer
  /** Of the text, where that is compressed: what the end of the stream has to say. */
  readonly sum: Sum | null
}

/** Makes the bytes of one write from frames, for all connections of an audience. */
export interface Packing {
  /** No other packing has it. */
  readonly key: string
  /** How its streams are compressed; null where they are not. */
  readonly gzip: Gzip | null
  /** What any of its connections can be given at any time. */
  pack(frames: readonly Buffer[]): Piece
}

/** What a compressed stream has besides. */
export interface Gzip {
  /** What it begins with. */
  readonly header: Buffer
  /** The bytes of one write for those connections alone that were given all that is in the history. */
  pack(frames: readonly Buffer[], history: History): Piece
  /** What it ends with; `sum`: of all that it had. */
  trailer(sum: Sum): Buffer
}

/** Delimits the bytes of one write. */
type Delimit = (parts: readonly Buffer[]) => Buffer

const asTheyAre: Delimit = parts => (parts.length === 1 ? parts[0]! : Buffer.concat(parts))

const CRLF = Buffer.from('\r\n')

const asChunk: Delimit = parts => {
  const size = parts.reduce((sum, part) => sum + part.length, 0)
  // a chunk of no bytes would end the body
  if (size === 0) return Buffer.alloc(0)
  return Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`, 'latin1'), ...parts, CRLF])
}

/** Frames as they are: what carries them delimits them itself (HTTP/2, HTTP/1.0, a WebSocket's own frames). */
export const plain: Packing = uncompressed('plain', asTheyAre)

/** One chunk of the chunked transfer coding (RFC 9112, section 7.1). */
export const chunked: Packing = uncompressed('chunked', asChunk)

/** The end of a chunked body. */
export const LAST_CHUNK = '0\r\n\r\n'

const COMPRESSED: ReadonlyMap<Packing, Packing> = new Map([
  [plain, compressed('gzip', asTheyAre)],
  [chunked, compressed('gzip,chunked', asChunk)]
])

/** The same packing, compressed (the content coding `gzip`: RFC 9110, section 8.4.1.3). */
export function gzipped(packing: Packing): Packing {
  return COMPRESSED.get(packing)!
}

function uncompressed(key: string, delimit: Delimit): Packing {
  return { key, gzip: null, pack: frames => ({ bytes: delimit(frames), sum: null }) }
}

function compressed(key: string, delimit: Delimit): Packing {
  const piece = (frames: readonly Buffer[], compress: (text: Buffer) => readonly Buffer[]): Piece => {
    const text = asTheyAre(frames)
    return { bytes: delimit(text.length === 0 ? [text] : compress(text)), sum: Sum.of(text) }
  }
  const gzip: Gzip = {
    header: delimit([HEADER]),
    pack: (frames, history) => piece(frames, text => [history.deflate(text)]),
    trailer: sum => delimit([trailer(sum)])
  }
  return { key, gzip, pack: frames => piece(frames, block) }
}
