import type { Gap, StoredEvent } from '../event.ts'
import { envelope, seal, type Format, type Framing, type GoodbyeReason } from './format.ts'

const EMPTY = Buffer.alloc(0)
const NEW_LINE = Buffer.from('\n')

/** application/x-ndjson: an event a line, as in the envelope. A heartbeat is an empty line. */
class NdjsonFormat implements Format {
  readonly key: string
  readonly slot: number
  readonly transport = 'ndjson'
  readonly delivers = true
  readonly #framing: Framing

  constructor(framing: Framing, slot: number) {
    this.key = `ndjson,${framing}`
    this.slot = slot
    this.#framing = framing
  }

  /** Nothing: where the stream starts from is in the head. */
  open(): Buffer {
    return EMPTY
  }

  event(event: StoredEvent, cursor: string): Buffer {
    return Buffer.from(`${envelope(event, cursor)}\n`)
  }

  snapshot(event: StoredEvent, cursor: string): Buffer {
    return this.event(event, cursor)
  }

  gap({ reason, topics, after }: Gap): Buffer {
    return line({ type: 'gap', reason, topics, after })
  }

  note(type: string, json: string): Buffer {
    return Buffer.from(`{"type":${JSON.stringify(type)},"data":${json.replace(/[\r\n]+/g, ' ')}}\n`)
  }

  keepAlive(): Buffer {
    return NEW_LINE
  }

  heartbeat(): Buffer {
    return NEW_LINE
  }

  goodbye(reason: GoodbyeReason, retry: number): Buffer {
    return line({ type: 'goodbye', reason, retry })
  }

  seal(frames: readonly Buffer[]): Buffer {
    return seal(frames, this.#framing)
  }
}

function line(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`)
}

const formats = { chunked: new NdjsonFormat('chunked', 4), plain: new NdjsonFormat('plain', 5) }

/** The ndjson format for a connection. */
export function ndjson(framing: Framing): Format {
  return formats[framing]
}
