/** Makes the bytes of one write from frames, for all connections of an audience. */
export interface Packing {
  /** No other packing has it. */
  readonly key: string
  pack(frames: readonly Buffer[]): Buffer
}

/** Frames as they are: what carries them delimits them itself (HTTP/2, HTTP/1.0, a WebSocket's own frames). */
export const plain: Packing = {
  key: 'plain',
  pack: frames => (frames.length === 1 ? frames[0]! : Buffer.concat(frames))
}

const CRLF = Buffer.from('\r\n')

/** One chunk of the chunked transfer coding (RFC 9112, section 7.1). */
export const chunked: Packing = {
  key: 'chunked',
  pack(frames) {
    const size = frames.reduce((sum, frame) => sum + frame.length, 0)
    // a chunk of no bytes would end the body
    if (size === 0) return Buffer.alloc(0)
    return Buffer.concat([Buffer.from(`${size.toString(16)}\r\n`, 'latin1'), ...frames, CRLF])
  }
}

/** The end of a chunked body. */
export const LAST_CHUNK = '0\r\n\r\n'
