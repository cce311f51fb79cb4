/** What happened to the stream, with its times: in a list, and as marks in the chart. Nothing stays for ever. */
import { $, element } from './dom.js'
import { render } from './frame.js'
import { isOpen, on, resume, seen, stream } from './stream.js'
import { clockTime, count, duration } from './text.js'

/** How many are listed, and how long, in milliseconds. */
const KEPT = 6
const KEPT_MS = 300_000
const KEPT_MARKS = 50

/** What happened: `kind` is `break`, `resume`, `gap`, `stale` or `refused`; newest first. */
const entries = []

/** For the chart: where the line has a gap, and from when to when nothing came; milliseconds since the epoch. */
export const marks = []

let brokenAt = 0

export function startTimeline() {
  on('state', before => {
    const { state, reason } = stream
    if (isOpen(before) && !isOpen()) {
      brokenAt = Date.now()
      marks.push({ kind: 'break', from: brokenAt, to: Infinity })
      add('break', state === 'dropped' ? 'Dropped by this page' : reason || 'The connection was lost')
    }
    if (seen.opened === 1 && before === 'catching-up' && isOpen()) {
      add('resume', `Open: ${count(seen.events, 'event')} from the ring`)
    }
    if (brokenAt && isOpen()) {
      marks.findLast(({ kind }) => kind === 'break').to = Date.now()
      add('resume', '')
      brokenAt = 0
    }
    if (state === 'stale' && before !== 'stale') add('stale', reason)
    if (state === 'closed' && before !== 'closed') add('refused', reason)
  })
  on('event', (_event, isMissed) => isMissed && render(draw))
  on('gap', ({ reason, topics }) => {
    marks.push({ kind: 'gap', from: Date.now(), to: Date.now() })
    add('gap', `Gap (${reason}): ${topics.join(', ')}`)
  })
  setInterval(() => entries.length > 0 && render(draw), 5000)
}

function add(kind, text) {
  entries.unshift({ kind, text, time: Date.now(), opened: seen.opened, lasted: Date.now() - brokenAt })
  entries.splice(KEPT)
  marks.splice(0, marks.length - KEPT_MARKS)
  render(draw)
}

function draw() {
  const now = Date.now()
  while (entries.length > 0 && now - entries.at(-1).time > KEPT_MS) entries.pop()
  // how much was missed is known when it has come
  const current = entries.find(
    ({ kind, opened }) => kind === 'resume' && opened === seen.opened && opened > 1
  )
  if (current) {
    current.text = `Back after ${duration(current.lasted / 1000)}: ${count(resume.events, 'event')} replayed`
  }
  $('timeline').replaceChildren(
    ...entries.map(({ kind, text, time }) => {
      const item = element('li', kind)
      // the older, the paler: in three steps, so that it stays readable
      item.dataset.age = Math.floor((3 * (now - time)) / KEPT_MS)
      const at = element('time', '', clockTime(time))
      item.append(at, ` ${text}`)
      return item
    })
  )
}
