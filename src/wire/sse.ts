import type { Gap, StoredEvent } from '../event.ts'
import { base64, envelope, seal, type Format, type Framing, type GoodbyeReason } from './format.ts'

/**
 * text/event-stream (WHATWG HTML, section 9.2.6). A frame is one block or more, each ended by an empty line.
 * Only what moves a cursor has an `id:` line.
 */
class SseFormat implements Format {
  readonly key: string
  readonly slot: number
  readonly transport = 'sse'
  readonly delivers = true
  readonly #framing: Framing
  readonly #dataOf: (event: StoredEvent, cursor: string) => string

  constructor(framing: Framing, enveloped: boolean, slot: number) {
    this.key = `sse,${framing}${enveloped ? ',envelope' : ''}`
    this.slot = slot
    this.#framing = framing
    this.#dataOf = enveloped ? envelope : plainData
  }

  open(cursor: string, retry: number): Buffer {
    // in one block: some clients take no id, some no retry, from a block without data
    return Buffer.from(
      `retry: ${retry}\nid: ${cursor}\nevent: cursor\ndata: ${JSON.stringify({ cursor })}\n\n`
    )
  }

  event(event: StoredEvent, cursor: string): Buffer {
    const type = event.type === 'message' ? '' : `event: ${event.type}\n`
    return Buffer.from(`id: ${cursor}\n${type}${dataLines(this.#dataOf(event, cursor))}\n`)
  }

  snapshot(event: StoredEvent, cursor: string): Buffer {
    return this.note('snapshot', this.#dataOf(event, cursor))
  }

  gap({ reason, topics, after }: Gap): Buffer {
    return this.note('gap', JSON.stringify({ reason, topics, after }))
  }

  note(type: string, json: string): Buffer {
    return Buffer.from(`event: ${type}\n${dataLines(json)}\n`)
  }

  keepAlive(cursor: string): Buffer {
    return Buffer.from(`:\nid: ${cursor}\n\n`)
  }

  heartbeat(time: number, cursor: string): Buffer {
    return this.note('heartbeat', JSON.stringify({ time, cursor }))
  }

  goodbye(reason: GoodbyeReason, retry: number): Buffer {
    return Buffer.from(`retry: ${retry}\nevent: goodbye\ndata: ${JSON.stringify({ reason, retry })}\n\n`)
  }

  seal(frames: readonly Buffer[]): Buffer {
    return seal(frames, this.#framing)
  }
}

/** What was published, as it is. */
function plainData({ data }: StoredEvent): string {
  return typeof data === 'string' ? data : base64(data)
}

/** CR, LF and CRLF all end a line of the stream, so each line of the data becomes a field of its own. */
function dataLines(data: string): string {
  return /[\r\n]/.test(data)
    ? data
        .split(/\r\n|\r|\n/)
        .map(line => `data: ${line}\n`)
        .join('')
    : `data: ${data}\n`
}

const formats = {
  chunked: { bare: new SseFormat('chunked', false, 0), enveloped: new SseFormat('chunked', true, 1) },
  plain: { bare: new SseFormat('plain', false, 2), enveloped: new SseFormat('plain', true, 3) }
}

/** The SSE format for a connection; `enveloped`: the `data` of each event is the whole event as JSON. */
export function sse(framing: Framing, enveloped: boolean): Format {
  return formats[framing][enveloped ? 'enveloped' : 'bare']
}
