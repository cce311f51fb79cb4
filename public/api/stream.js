import { readerOf } from './events.js'
import { Received } from './received.js'

/** A stream that was asked for here, and what comes on it. */
class Stream {
  received = new Received()
  #controller

  constructor(controller) {
    this.#controller = controller
  }

  stop() {
    this.received.end('stopped')
    this.#controller.abort()
  }

  async read(body, read) {
    try {
      for await (const text of textOf(body)) read(text).forEach(event => this.received.add(event))
      this.received.end('ended')
    } catch (error) {
      this.received.end('broken', error.message)
      this.#controller.abort()
    }
  }
}

/** A body as text. `for await` over a stream is not in all browsers. */
async function* textOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    yield value
  }
}

/**
 * `fetch`, which hands a stream over to `opened` and answers its head alone; every other answer as it is, errors too.
 */
export async function openStream(url, init, opened) {
  const controller = new AbortController()
  const response = await fetch(url, { ...init, signal: controller.signal })
  const read = response.ok ? readerOf(response.headers.get('content-type') ?? '') : undefined
  if (!read) return response
  const stream = new Stream(controller)
  opened(stream)
  void stream.read(response.body, read)
  const { status, statusText, headers } = response
  return new Response('', { status, statusText, headers })
}
