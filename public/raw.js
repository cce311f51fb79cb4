/** How long a stream may be silent before it counts as dead: three of the heartbeats that it asks for. */
const HEARTBEAT_S = 5
const SILENCE_MS = 3 * HEARTBEAT_S * 1000

/** How long to wait before coming back, until the server says something else. */
const RETRY_MS = 2000

/** The longest that a timer waits: with more it would fire at once. */
const MOST_MS = 2 ** 31 - 1

/**
 * Reads an event stream as the text that it is, block by block, and resumes it until `signal` says stop. The client
 * library would not do here: it shows what events say, not how the stream says it. Rejects when the server refuses.
 */
export async function readRaw(query, token, block, signal) {
  let after = ''
  let retry = RETRY_MS
  let isBegun = false
  const read = text => {
    const lines = text.split('\n')
    const field = name => lines.findLast(line => line.startsWith(`${name}: `))?.slice(name.length + 2)
    after = field('id') ?? after
    retry = Number(field('retry') ?? retry)
    // what only keeps the connection alive: a heartbeat, and a cursor that doesn't begin the stream
    const isQuiet = field('event') === 'heartbeat' || (field('event') === 'cursor' && isBegun)
    isBegun ||= field('event') === 'cursor'
    if (!isQuiet && field('data') !== undefined) block(text)
  }
  while (!signal.aborted) {
    const url = `events?${query}&heartbeat=${HEARTBEAT_S}${after && `&after=${encodeURIComponent(after)}`}`
    isBegun = false
    await readOnce(url, token, read, signal)
    await wait(retry, signal)
  }
}

/** Reads until the connection ends or falls silent. */
async function readOnce(url, token, block, signal) {
  const silent = new AbortController()
  let timer
  const alive = () => {
    clearTimeout(timer)
    timer = setTimeout(() => silent.abort(), SILENCE_MS)
  }
  alive()
  try {
    const response = await fetch(url, {
      headers: { accept: 'text/event-stream', ...(token && { authorization: `Bearer ${token}` }) },
      signal: AbortSignal.any([signal, silent.signal]),
      cache: 'no-store'
    })
    if (!response.ok) throw new Refused(await problemOf(response))
    let rest = ''
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      alive()
      const blocks = (rest + part.value).split('\n\n')
      rest = blocks.pop()
      blocks.forEach(block)
    }
  } catch (error) {
    if (error instanceof Refused) throw error
  } finally {
    clearTimeout(timer)
  }
}

class Refused extends Error {}

async function problemOf(response) {
  const problem = await response.json().catch(() => ({}))
  return problem.detail ?? `the server answered ${response.status}`
}

function wait(ms, signal) {
  return new Promise(resolve => {
    if (signal.aborted) return resolve()
    const timer = setTimeout(resolve, Math.min(ms, MOST_MS))
    signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true })
  })
}
