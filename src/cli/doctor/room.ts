import { ok, skipped, wrong, type Check, type Outcome } from './check.ts'
import { LeftOut } from './faults.ts'
import { isRingside, saidOf, type Asking, type Reply, type Way } from './way.ts'

/** How long a token is that must pass, in bytes. */
const TOKEN_BYTES = 9000

/** How large a batch is that must pass, in bytes, and of how many events. */
const BATCH_BYTES = 6_000_000
const BATCH_EVENTS = 1000

/** How long it may take, in milliseconds: whoever has a slow line learns that it is slow. */
const BATCH_MS = 12_000

/** Whether a token of 9 kB passes: it need not be a good one, as long as it is Ringside that says so. */
export const longToken: Check = {
  name: 'a token of 9 kB',
  needs: [],
  async run(way) {
    const token = 'x'.repeat(TOKEN_BYTES)
    const ways: Readonly<Record<string, Asking>> = {
      'the header Authorization': { path: way.eventsPath(), headers: { authorization: `Bearer ${token}` } },
      'the query': { path: way.eventsPath(`token=${token}`) }
    }
    for (const [name, asking] of Object.entries(ways)) {
      const reply = await way.ask({
        ...asking,
        isBare: true,
        headers: { accept: 'application/json', ...asking.headers }
      })
      if (!isRingside(reply)) return wrong(`in ${name} it is answered ${saidOf(reply)}`, 'headers')
    }
    return ok('it passes, in a header and in the query')
  }
}

/** Whether a batch of 6 MB passes. One of its events is none, so that nothing of it is stored. */
export const largeBatch: Check = {
  name: 'a batch of 6 MB',
  needs: ['publish'],
  kind: 'heavy',
  async run(way) {
    try {
      return outcomeOf(await send(way))
    } catch (error) {
      // who has had enough may end the connection before anybody can read why
      const { code, message } = error as NodeJS.ErrnoException
      if (code === 'EPIPE' || code === 'ECONNRESET' || code === 'ERR_HTTP2_STREAM_ERROR')
        return wrong(`it was cut while it was sent (${code})`, 'body')
      if (!message.startsWith('no answer')) throw error
      return skipped(`it was not there after ${BATCH_MS / 1000} s: the line from here is too slow for it`)
    }
  }
}

function send(way: Way): Promise<Reply> {
  const data = 'x'.repeat(BATCH_BYTES / BATCH_EVENTS)
  const events = Array.from({ length: BATCH_EVENTS }, (_, index) => ({
    topic: way.topic,
    // a type that is the server's own
    ...(index === BATCH_EVENTS - 1 && { type: 'cursor' }),
    data
  }))
  return way.ask(
    {
      path: 'events',
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(events),
      version: 'HTTP/1.1'
    },
    BATCH_MS
  )
}

function outcomeOf(reply: Reply): Outcome {
  if (!isRingside(reply)) return wrong(`it is answered ${saidOf(reply)}`, 'body')
  if (reply.status === 422) return ok('it passes (it was made so that nothing of it is stored)')
  throw new LeftOut(`Ringside itself answers ${saidOf(reply)}`)
}
