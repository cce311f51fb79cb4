import { connect } from '/live/client.js'
import { onToken, signedIn } from '/login/session.js'

const TOPIC = 'boards/1'
const RATE = 30 // positions a second

const find = selector => document.querySelector(selector)
const name = await signedIn()
const board = find('#board')

const hub = connect({
  url: '/live',
  onToken,
  onState: state => (find('#state').textContent = find('#state').dataset.state = state)
})

// --- one's own: only the newest position counts ---

/** One's id as a member: of this connection, and so another one after each break. */
let self
/** From 0 to 1 of the board's width and height, because another one's board is of another size. */
let position
let isSent = true
let isBusy = false

board.addEventListener('pointermove', ({ clientX, clientY }) => {
  const { left, top } = board.getBoundingClientRect()
  position = {
    x: (clientX - left - board.clientLeft) / board.clientWidth,
    y: (clientY - top - board.clientTop) / board.clientHeight
  }
  isSent = false
})

/** Sends the newest position. One at a time: over a slow connection there are fewer, and none of them waits in a queue. */
async function send() {
  if (isSent || isBusy || !self) return
  isSent = isBusy = true
  try {
    await hub.signal(TOPIC, { id: self, ...position })
  } catch {
    isSent = false // the one that is newest then, when there is a connection again
  }
  isBusy = false
}

setInterval(send, 1000 / RATE)

// --- the others ---

/** Their elements, by the id of the member: with tokens a user may have several pages open. */
const cursors = new Map()

function come({ id, sub: who }) {
  const cursor = document.createElement('div')
  const label = document.createElement('b')
  cursor.className = 'cursor'
  cursor.hidden = true // until it moves
  cursor.style.color = colourOf(who)
  label.textContent = who
  cursor.append(document.createElement('span'))
  cursor.firstChild.append(label)
  cursors.get(id)?.remove()
  cursors.set(id, cursor)
  board.append(cursor)
  count()
}

function go({ id }) {
  cursors.get(id)?.remove()
  cursors.delete(id)
  count()
}

function count() {
  find('#members').textContent = `${name}, and ${cursors.size} more`
}

function colourOf(text) {
  const sum = [...text].reduce((sum, each) => 31 * sum + each.codePointAt(0), 7)
  // of the same lightness all of them, which can be told from the page and read under white, in both themes
  return `oklch(53% 0.13 ${sum % 360})`
}

/** What has come since the last frame, by the id of the member. */
const moved = new Map()

function draw() {
  const positions = [...moved]
  moved.clear()
  for (const [id, { x, y }] of positions) {
    const cursor = cursors.get(id)
    if (!cursor) continue
    cursor.hidden = false
    cursor.style.transform = `translate(${x * board.clientWidth}px, ${y * board.clientHeight}px)`
  }
}

await hub.subscribe(TOPIC, {
  onEvent() {}, // nothing is published here
  onSignal({ data }) {
    // whoever may publish here may send anything
    if (!cursors.has(data?.id) || !Number.isFinite(data.x) || !Number.isFinite(data.y)) return
    if (moved.size === 0) requestAnimationFrame(draw)
    moved.set(data.id, data)
  }
})
await hub.join(TOPIC, {
  // also after each break: the first one is oneself
  onMembers([own, ...others]) {
    self = own.id
    isSent = position === undefined
    for (const id of [...cursors.keys()]) go({ id })
    others.forEach(come)
    count()
  },
  onJoined(member) {
    come(member)
    isSent = position === undefined // so that who has come sees where one is
  },
  onLeft: go
})
