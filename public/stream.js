/** The one stream of the page: what it subscribes to, what it knows of itself, and the button that drops it. */
import { mayRead, token, user } from './access.js'
import { subscribe } from './client.js'

export const HOST = 'dashboards/host'
export const TICKERS = 'tickers/*'
export const JOB = 'jobs/demo'
export const INBOX = user === undefined ? undefined : `notifications/${user}`

/** What the ring holds of each topic at most that the page begins with: two minutes of what comes once a second. */
const REWIND = 120
const HEARTBEAT_S = 5
const DROP_MS = 3000
const KEPT_IDS = 10_000
/** Over how long the rate of events is measured, in milliseconds. */
const RATE_MS = 5000

/** For whoever wants to check the promise: every id that came, in order. */
export const seen = { ids: [], start: '', opened: 0, events: 0, replayed: 0, gaps: 0 }

/**
 * The client's state, or `dropped` while the button holds; why, and until when it waits, by the clock that measures;
 * since when nothing new can come, in milliseconds since the epoch; the topics, and those that may not be read.
 */
export const stream = {
  ...{ state: 'connecting', reason: '', until: 0, oldSince: 0 },
  topics: [HOST, TICKERS, JOB, INBOX].filter(Boolean),
  refused: [],
  get cursor() {
    return subscription?.cursor ?? ''
  }
}

/** What came back with the last resume. */
export const resume = { after: '', at: 0, events: 0 }

/** When live events came, by the clock that measures, and what the last of them took to come, in milliseconds. */
const arrivals = []
let journey
/** The quickest journey, by two clocks that need not agree. */
let quickest = Infinity

let subscription
let returning = 0
let hasAsked = false
const listeners = { event: [], gap: [], state: [] }

/**
 * Calls back what happens: `event` with an event and whether it was missed, `gap` with a gap, `state` with the state
 * that was before.
 */
export function on(what, listener) {
  listeners[what].push(listener)
}

function tell(what, ...args) {
  for (const listener of listeners[what]) listener(...args)
}

/** Opens it, or opens it anew where it stopped. */
export function open() {
  clearTimeout(returning)
  subscription = subscribe(stream.topics, {
    ...{ url: '.', rewind: REWIND, after: subscription?.cursor, heartbeat: HEARTBEAT_S },
    // known beforehand, so that an EventSource will do
    types: ['message', 'patch', 'snapshot', 'deleted', 'quote', 'progress', 'notification', 'read'],
    ...(token && { token }),
    // a browser opens six connections at the most, over all its tabs
    shared: true,
    ...{ onEvent: received, onGap: missed, onState: became }
  })
  became('connecting')
}

export function drop() {
  subscription.close()
  returning = setTimeout(open, DROP_MS)
  became('dropped', { reason: 'Closed by this page', delay: DROP_MS })
}

export function isOpen(state = stream.state) {
  return ['catching-up', 'live', 'stale', 'polling'].includes(state)
}

/** Whether what the page shows is what is. */
export function isFresh() {
  return isOpen() && stream.state !== 'stale'
}

function became(state, { reason = '', delay = 0, since } = {}) {
  const before = stream.state
  const wasFresh = isFresh()
  Object.assign(stream, { state, reason, until: performance.now() + delay })
  if (wasFresh && !isFresh()) stream.oldSince = since ?? Date.now()
  if (isOpen() && !isOpen(before)) opened()
  tell('state', before)
  if (state === 'closed') void narrow()
}

function opened() {
  seen.opened++
  seen.start ||= stream.cursor
  Object.assign(resume, { after: stream.cursor, at: Date.now(), events: 0 })
}

/** One topic that may not be read refuses all of them: asks which may, and goes on with those. */
async function narrow() {
  if (hasAsked) return
  hasAsked = true
  const may = await Promise.all(stream.topics.map(mayRead))
  stream.refused = stream.topics.filter((_topic, at) => !may[at])
  stream.topics = stream.topics.filter((_topic, at) => may[at])
  if (stream.topics.length > 0) open()
  else tell('state', 'closed')
}

function received(event) {
  seen.events++
  seen.ids.push(event.id)
  if (seen.ids.length > 2 * KEPT_IDS) seen.ids.splice(0, KEPT_IDS)
  const isMissed = stream.state === 'catching-up' && seen.opened > 1
  if (isMissed) {
    seen.replayed++
    resume.events++
  } else if (stream.state !== 'catching-up') measure(event.time)
  tell('event', event, isMissed)
}

function missed(gap) {
  seen.gaps++
  tell('gap', gap)
}

function measure(time) {
  const ms = Date.now() - time
  quickest = Math.min(quickest, ms)
  // clocks that disagree by more than a second: then it is by how much longer than the quickest
  journey = Math.abs(quickest) > 1000 || ms < 0 ? ms - quickest : ms
  arrivals.push(performance.now())
}

/** Live events a second, and what the last one took from its publisher to here, in milliseconds. */
export function pulse() {
  const from = performance.now() - RATE_MS
  const at = arrivals.findIndex(time => time >= from)
  arrivals.splice(0, at < 0 ? arrivals.length : at)
  return { rate: (1000 * arrivals.length) / RATE_MS, journey: isFresh() ? journey : undefined }
}
