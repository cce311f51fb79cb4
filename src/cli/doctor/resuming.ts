import { formatCursor, parseCursor } from '../../event.ts'
import { ok, skipped, wrong, type Check, type Outcome } from './check.ts'
import { LeftOut } from './faults.ts'
import { Listening } from './listening.ts'
import type { Reply, Way } from './way.ts'

/** The most shards that a server has. */
const MOST_SHARDS = 8

/** How far back a cursor is set, in milliseconds: it is another than the one of now, and nothing lies between. */
const BACK_MS = 1

/** Whether Ringside hears where an EventSource that comes back wants to go on. */
export const resuming: Check = {
  name: 'Last-Event-ID',
  needs: ['read'],
  async run(way) {
    const fresh = await cursorOf(way, {})
    const older = back(fresh)
    if (older === undefined) throw new LeftOut(`a position that this doctor can't read: ${fresh}`)
    const begun = await cursorOf(way, { 'last-event-id': older })
    if (begun === older) return ok('a stream goes on where the header says')
    return wrong('it does not come through: a client that comes back misses what came meanwhile', 'resuming')
  }
}

/** Where a stream with these headers says that it begins, or what it says is missing after. */
async function cursorOf(way: Way, headers: Readonly<Record<string, string>>): Promise<string> {
  const stream = await Listening.open(way, { headers, version: way.version })
  try {
    const { type, data } = await stream.begin()
    const said = JSON.parse(data) as { cursor?: string; after?: string }
    const cursor = type === 'gap' ? said.after : said.cursor
    if (cursor === undefined) throw new Error(`a stream began with ${type}, which is not Ringside's`)
    return cursor
  } finally {
    stream.close()
  }
}

function back(text: string): string | undefined {
  for (let shards = 1; shards <= MOST_SHARDS; shards++) {
    const cursor = parseCursor(text, shards)
    if (cursor) return formatCursor(cursor.map(({ ms, seq }) => ({ ms: ms - BACK_MS, seq })))
  }
  return undefined
}

/** Whether browsers let a page of another origin read, and send what a client sends that comes back. */
export const preflight: Check = {
  name: 'CORS',
  needs: [],
  async run(way) {
    const { pageOrigin = way.origin } = way.options
    const reply = await way.ask({
      path: way.eventsPath(),
      method: 'OPTIONS',
      isBare: true,
      headers: {
        origin: pageOrigin,
        'access-control-request-method': 'GET',
        'access-control-request-headers': 'authorization,last-event-id'
      }
    })
    const fault = faultOfPreflight(reply)
    if (fault) return wrong(fault, 'preflight')
    if (way.options.pageOrigin === undefined)
      return ok('a preflight for Last-Event-ID reaches Ringside (--origin names a page to be tested)')
    return (await faultForPage(way, pageOrigin, reply)) ?? ok(`pages of ${pageOrigin} may read and come back`)
  }
}

/** A browser takes any status from 200 to 299. */
function faultOfPreflight({ status, headers }: Reply): string | undefined {
  if (status < 200 || status > 299) return `a preflight (OPTIONS) is answered ${status}`
  const allowed = (headers['access-control-allow-headers'] ?? '').toLowerCase()
  if (allowed === '*' || allowed.includes('last-event-id')) return undefined
  return "a preflight (OPTIONS) is answered by something else than Ringside: it doesn't allow Last-Event-ID"
}

async function faultForPage(way: Way, page: string, preflight: Reply): Promise<Outcome | undefined> {
  const read = await way.ask({
    path: way.eventsPath('limit=1'),
    headers: { origin: page, accept: 'application/json' }
  })
  for (const { headers } of [preflight, read]) {
    const allowed = headers['access-control-allow-origin']
    // where two say it, browsers take neither
    if (allowed?.includes(',')) return wrong(`two say Access-Control-Allow-Origin: ${allowed}`, 'preflight')
    if (allowed !== page && allowed !== '*')
      return wrong(`pages of ${page} may not read: the answer allows ${allowed ?? 'none'}`, 'origins')
  }
  return undefined
}

/** What an EventSource is answered while nobody is there, which can be seen only while nobody is. */
export const away: Check = {
  name: 'while away',
  needs: [],
  async run() {
    return skipped(
      'Ringside is there: what an EventSource is answered while it is not shows this command while all instances are stopped'
    )
  }
}

/** The same while something on the way answers for a Ringside that is not there. */
export async function lookWhileAway(way: Way): Promise<Outcome> {
  const { pageOrigin = 'https://page.example' } = way.options
  const answer = await way.ask({
    path: way.eventsPath(),
    isBare: true,
    headers: { accept: 'text/event-stream', origin: pageOrigin }
  })
  const { status, headers, text } = answer
  if (status !== 200 || !(headers['content-type'] ?? '').startsWith('text/event-stream'))
    return wrong(`an EventSource is answered ${status}: a browser's never comes back after that`, 'away')
  const allowed = headers['access-control-allow-origin']
  if (allowed !== pageOrigin && (allowed !== '*' || way.options.pageOrigin !== undefined))
    return wrong(
      'an EventSource of a page of another origin ends for good: there are no CORS headers',
      'away'
    )
  const [, retry] = /^retry: *(\d+)/m.exec(text) ?? []
  return ok(`an EventSource is told to come back${retry ? ` in ${Number(retry) / 1000} s` : ''}`)
}
