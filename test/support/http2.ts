import {
  connect,
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type IncomingHttpHeaders
} from 'node:http2'
import type { Test } from 'tap'
import { Inbox, inTime } from './inbox.ts'
import { StrictParser, type Frame } from './sse-parser.ts'

/** A connection of HTTP/2, which trusts this certificate alone. */
export async function openSession(t: Test, url: string, ca: Buffer): Promise<ClientHttp2Session> {
  const session = connect(url, { ca })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  await inTime(new Promise(resolve => session.once('connect', resolve)), 'a connection')
  return session
}

export interface Http2Answer {
  readonly stream: ClientHttp2Stream
  readonly headers: IncomingHttpHeaders & { ':status'?: number | undefined }
  readonly frames: Inbox<Frame>
}

/** One request on it; resolves with the head of its answer. A body is text, if no header says otherwise. */
export function openStream(
  session: ClientHttp2Session,
  path: string,
  headers: Record<string, string> = {},
  body?: string
): Promise<Http2Answer> {
  const typed = body === undefined ? {} : { 'content-type': 'text/plain' }
  const all = { ':path': path, ':method': 'GET', ...typed, ...headers }
  const stream = session.request(all, { endStream: body === undefined })
  const frames = new Inbox<Frame>()
  const parser = new StrictParser()
  const answered = new Promise<Http2Answer>((resolve, reject) => {
    stream.on('response', head => {
      if (head['content-type']?.startsWith('text/event-stream')) {
        stream.on('data', (chunk: Buffer) => parser.push(chunk).forEach(frame => frames.push(frame)))
        stream.on('end', () => frames.end('the stream has ended'))
      } else {
        stream.resume()
      }
      resolve({ stream, headers: head, frames })
    })
    stream.on('error', reject)
  })
  if (body !== undefined) stream.end(body)
  return inTime(answered, `an answer to ${path}`)
}
