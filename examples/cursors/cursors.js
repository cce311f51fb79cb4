import { connect } from '/live/client.js'

const TOPIC = 'boards/1'
const RATE = 30 // positions a second

const find = selector => document.querySelector(selector)
const name = new URLSearchParams(location.search).get('name') ?? `guest ${Math.floor(1000 * Math.random())}`
const board = find('#board')

const hub = connect({
  url: '/live',
  onState: state => (find('#state').textContent = find('#state').dataset.state = state)
})

// --- one's own: only the newest position counts ---

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
  if (isSent || isBusy) return
  isSent = isBusy = true
  try {
    await hub.signal(TOPIC, position)
  } catch {
    isSent = false // the one that is newest then, when there is a connection again
  }
  isBusy = false
}

setInterval(send, 1000 / RATE)

// --- the others ---

/** Their elements, by connection. Without tokens that is what a signal is `from`; with tokens it is the member's `sub`. */
const cursors = new Map()

function come({ id, info }) {
  const cursor = document.createElement('div')
  const label = document.createElement('b')
  cursor.className = 'cursor'
  cursor.hidden = true // until it moves
  cursor.style.color = colourOf(info.name)
  label.textContent = info.name
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
  return `hsl(${sum % 360} 65% 45%)`
}

/** What has come since the last frame, by connection. */
const moved = new Map()

function draw() {
  for (const [id, { x, y }] of moved) {
    const cursor = cursors.get(id)
    if (!cursor) continue
    cursor.hidden = false
    cursor.style.transform = `translate(${x * board.clientWidth}px, ${y * board.clientHeight}px)`
  }
  moved.clear()
}

await hub.subscribe(TOPIC, {
  onEvent() {}, // nothing is published here
  onSignal({ from, data }) {
    if (moved.size === 0) requestAnimationFrame(draw)
    moved.set(from, data)
  }
})
await hub.join(TOPIC, {
  info: { name },
  // also after each break: the first one is oneself
  onMembers([, ...others]) {
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
