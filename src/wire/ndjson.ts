import { envelope, type Format } from './format.ts'

const EMPTY = Buffer.alloc(0)
const NEW_LINE = Buffer.from('\n')

/** application/x-ndjson: an event a line, as in the envelope. A heartbeat is an empty line. */
export const ndjson: Format = {
  key: 'ndjson',
  transport: 'ndjson',
  delivers: true,
  /** Nothing: where the stream starts from is in the head. */
  open: () => EMPTY,
  event: (event, cursor) => Buffer.from(`${envelope(event, cursor)}\n`),
  snapshot: (event, cursor) => ndjson.event(event, cursor),
  gap: ({ reason, topics, after }) => line({ type: 'gap', reason, topics, after }),
  note: (type, json) =>
    Buffer.from(`{"type":${JSON.stringify(type)},"data":${json.replace(/[\r\n]+/g, ' ')}}\n`),
  keepAlive: () => NEW_LINE,
  heartbeat: () => NEW_LINE,
  stale: since => line({ type: 'stale', since }),
  fresh: cursor => line({ type: 'cursor', cursor }),
  goodbye: (reason, retry) => line({ type: 'goodbye', reason, retry })
}

function line(value: unknown): Buffer {
  return Buffer.from(`${JSON.stringify(value)}\n`)
}
