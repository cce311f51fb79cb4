import type { Gap, StoredEvent } from '../event.ts'
import { base64, envelope, type Format, type GoodbyeReason } from './format.ts'

/**
 * text/event-stream (WHATWG HTML, section 9.2.6). A frame is one block or more, each ended by an empty line.
 * The `id:` line is the last of its block: clients that take an id as soon as they have read its line would lose the event
 * of a block that is torn behind it. What the server tells of itself has an id as well, the cursor of its reader: clients
 * that forget theirs at an event without one lose nothing.
 */
class SseFormat implements Format {
  readonly key: string
  readonly transport = 'sse'
  readonly delivers = true
  readonly #dataOf: (event: StoredEvent, cursor: string) => string

  constructor(enveloped: boolean) {
    this.key = enveloped ? 'sse,envelope' : 'sse'
    this.#dataOf = enveloped ? envelope : plainData
  }

  open(cursor: string, retry: number): Buffer {
    // in one block: some clients take no id, some no retry, from a block without data
    return Buffer.from(`retry: ${retry}\n${cursorBlock(cursor)}`)
  }

  event(event: StoredEvent, cursor: string): Buffer {
    const type = event.type === 'message' ? '' : `event: ${event.type}\n`
    return Buffer.from(`${type}${dataLines(this.#dataOf(event, cursor))}id: ${cursor}\n\n`)
  }

  snapshot(event: StoredEvent, cursor: string): Buffer {
    return this.note('snapshot', this.#dataOf(event, cursor), cursor)
  }

  gap({ reason, topics, after }: Gap, cursor?: string): Buffer {
    return this.note('gap', JSON.stringify({ reason, topics, after }), cursor)
  }

  note(type: string, json: string, cursor?: string): Buffer {
    return Buffer.from(`event: ${type}\n${dataLines(json)}${idLine(cursor)}\n`)
  }

  keepAlive(cursor: string): Buffer {
    return Buffer.from(cursorBlock(cursor))
  }

  heartbeat(time: number, cursor: string): Buffer {
    return this.note('heartbeat', JSON.stringify({ time, cursor }), cursor)
  }

  stale(since: number, cursor: string): Buffer {
    return this.note('stale', JSON.stringify({ since }), cursor)
  }

  fresh(cursor: string): Buffer {
    return Buffer.from(cursorBlock(cursor))
  }

  goodbye(reason: GoodbyeReason, retry: number, cursor?: string): Buffer {
    const data = JSON.stringify({ reason, retry })
    return Buffer.from(`retry: ${retry}\nevent: goodbye\ndata: ${data}\n${idLine(cursor)}\n`)
  }
}

function cursorBlock(cursor: string): string {
  return `event: cursor\ndata: {"cursor":"${cursor}"}\nid: ${cursor}\n\n`
}

function idLine(cursor: string | undefined): string {
  return cursor === undefined ? '' : `id: ${cursor}\n`
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

const bare = new SseFormat(false)
const enveloped = new SseFormat(true)

/** The SSE format; `isEnveloped`: the `data` of each event is the whole event as JSON. */
export function sse(isEnveloped: boolean): Format {
  return isEnveloped ? enveloped : bare
}
