/** The stream's state, in the card above all, in the tab's title and icon, and to screen readers. */
import { $, mark, say, show } from './dom.js'
import { render } from './frame.js'
import { drop, isFresh, on, open, pulse, resume, seen, stream } from './stream.js'
import { clockTime, count, duration, milliseconds, number } from './text.js'

const NAMES = {
  ...{ connecting: 'Connecting', 'catching-up': 'Catching up', live: 'Live', stale: 'Stale' },
  ...{ polling: 'Polling', offline: 'Offline', ended: 'Ended', closed: 'Refused', dropped: 'Dropped' }
}

/** Which icon the tab has. */
const ICONS = { live: 'live', polling: 'live', dropped: 'off', closed: 'off', offline: 'off' }

/** How long what was replayed and what is missing is shown, in milliseconds. */
const TOLD_MS = 30_000
const HINT = 'Drop the connection: what is published meanwhile will be replayed, nothing twice.'

let gap
let gapAt = 0

export function startStreamCard() {
  const icons = $('icon').dataset
  on('state', () => {
    const name = NAMES[stream.state]
    // at once: a tab that nobody looks at draws no frames
    document.title = `${name} · Ringside`
    mark($('icon'), 'href', icons[ICONS[stream.state] ?? 'wait'])
    if (stream.state !== 'catching-up') say(`Stream: ${name}. ${stream.reason}`)
    render(draw)
  })
  on('event', () => render(draw))
  on('gap', announced => {
    gap = announced
    gapAt = Date.now()
    say(`Gap: events of ${gap.topics.join(', ')} are missing.`)
    render(draw)
  })
  $('drop').addEventListener('click', () => {
    if (stream.state === 'dropped') open()
    else drop()
  })
  // what grows old does so by itself
  setInterval(() => render(draw), 1000)
}

function draw() {
  const { state } = stream
  mark($('stream'), 'data-state', state)
  show($('state'), NAMES[state])
  const seconds = Math.ceil((stream.until - performance.now()) / 1000)
  const { reason, oldSince } = stream
  show($('detail'), seconds > 0 && reason ? `${reason}, back in ${seconds} s` : reason)
  const isOld = oldSince > 0 && !isFresh()
  show($('age'), isOld ? `values of ${duration((Date.now() - oldSince) / 1000)} ago` : '')
  mark(document.body, 'data-fresh', String(isFresh()))
  const { rate, journey } = pulse()
  show($('rate'), number(rate, rate < 10 ? 1 : 0))
  show($('delay'), journey === undefined ? '–' : milliseconds(journey))
  show($('last-id'), stream.cursor || '–')
  for (const name of ['events', 'replayed', 'gaps']) show($(name), number(seen[name]))
  show($('drop'), state === 'dropped' ? 'Resume now' : 'Drop the connection')
  drawTold()
}

function drawTold() {
  const isTold = seen.opened > 1 && Date.now() - resume.at < TOLD_MS
  $('note').classList.toggle('told', isTold)
  show(
    $('note'),
    isTold
      ? `Resumed at ${clockTime(resume.at)} after ${resume.after}: ${count(resume.events, 'event')} replayed.`
      : HINT
  )
  const isGapTold = gap !== undefined && Date.now() - gapAt < TOLD_MS
  // one of them at a time: what is below stays where it is
  $('gap').hidden = !isGapTold
  $('note').hidden = isGapTold
  if (isGapTold)
    show(
      $('gap'),
      `Gap (${gap.reason}): events of ${gap.topics.join(', ')} after ${gap.after} are no longer held.`
    )
}
