import { Ended, refusal } from './reconnect.ts'

/** A frame of the stream: `id` is undefined where it has none, `type` is `message` where it has none. */
export type OnFrame = (type: string, data: string, id: string | undefined) => void

/** What the server itself says on a stream. */
const OWN_TYPES = ['cursor', 'end', 'gap', 'goodbye', 'heartbeat', 'stale']

const LOST = 'the connection was lost'

/**
 * Reads until the stream ends, which is a rejection, as is everything else. `onLife`: something came, whatever it is;
 * nothing more is read until its answer is there.
 */
export async function overFetch(
  address: URL,
  init: RequestInit,
  onFrame: OnFrame,
  onLife?: () => unknown,
  onRetry?: (ms: number) => void
): Promise<never> {
  const parse = parser(onFrame, onRetry)
  await readText(address, init, 'text/event-stream', text => {
    parse(text)
    return onLife?.()
  })
  throw new Ended(LOST)
}

/**
 * Hands on an answer of this type piece by piece, until it ends; nothing more is read until what is returned for a piece is
 * there. Rejects with what was answered instead, and with the reason of `init.signal` once that is aborted: a runtime's own
 * read may then neither resolve nor reject.
 */
export async function readText(
  address: URL,
  init: RequestInit,
  type: string,
  onText: (text: string) => unknown
): Promise<void> {
  const response = await fetch(address, init)
  const isOfType = response.headers.get('content-type')?.startsWith(type)
  if (response.status !== 200 || !isOfType) throw await refusal(response)
  const signal = init.signal!
  const decoder = new TextDecoder()
  const reader = response.body!.getReader()
  // ends a read that is under way, with `done` (Streams Standard, ReadableStreamCancel)
  signal.addEventListener('abort', () => void reader.cancel().catch(() => {}))
  for (;;) {
    const { done, value } = await reader.read()
    signal.throwIfAborted()
    if (done) return
    await onText(decoder.decode(value, { stream: true }))
  }
}

/** The same over an EventSource, which is never left to come back by itself: it knows no backoff. */
export function overEventSource(
  address: URL,
  { types, withCredentials }: { readonly types: readonly string[]; readonly withCredentials: boolean },
  onFrame: OnFrame,
  onLife: () => unknown,
  signal: AbortSignal
): Promise<never> {
  return new Promise((_resolve, reject) => {
    const source = new EventSource(address, { withCredentials })
    const end = () => {
      source.close()
      reject(new Ended(LOST))
    }
    source.onerror = end
    signal.addEventListener('abort', end)
    for (const type of new Set([...OWN_TYPES, ...types])) {
      source.addEventListener(type, event => {
        const { data, lastEventId } = event as Event & { readonly data: string; readonly lastEventId: string }
        try {
          onLife()
          onFrame(type, data, lastEventId)
        } catch {
          end() // what can't be read is not passed over: it is asked for again
        }
      })
    }
  })
}

/** Reads text/event-stream (WHATWG HTML, section 9.2.6), piece by piece. */
export function parser(onFrame: OnFrame, onRetry?: (ms: number) => void): (text: string) => void {
  let rest = ''
  let type = ''
  let data = ''
  let id: string | undefined
  return text => {
    // a CR at the very end may be the first half of a CRLF
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop()!
    for (const line of lines) {
      const [, name, value = ''] = /^([^:]*):? ?(.*)$/s.exec(line)!
      if (name === 'data') data += `${value}\n`
      else if (name === 'event') type = value
      else if (name === 'id' && !value.includes('\0')) id = value
      else if (name === 'retry' && /^\d+$/.test(value)) onRetry?.(Number(value))
      if (line) continue
      if (data || id !== undefined) onFrame(data ? type || 'message' : '', data.slice(0, -1), id)
      type = data = ''
      id = undefined
    }
  }
}
