/** Where each page points on the board: members of a topic, who tell each other by signals, which are never stored. */
import { $, element, show } from './dom.js'
import { connected } from './presence.js'

const TOPIC = 'boards/demo'
/** How many positions a second this page tells at most. */
const RATE = 15
/** How far an arrow key moves, of the width and height. */
const STEP = 0.04

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

const board = $('board')

/** What is shown of each member, by its id: which is another one after each break. */
const cursors = new Map()
let own
/** From 0 to 1 of the width and the height: another page's board is of another size. */
let position
let isTold = true
let isTelling = false

/** Rejects where the server refuses. */
export async function join() {
  const hub = connected()
  await hub.subscribe(TOPIC, { onEvent() {}, onSignal: ({ data }) => point(data) })
  await hub.join(TOPIC, {
    onMembers([first, ...others]) {
      for (const id of [...cursors.keys()]) go(id)
      own = first.id
      for (const { id } of [first, ...others]) come(id)
      isTold = position === undefined
    },
    onJoined({ id }) {
      come(id)
      // so that who has come sees where the others are
      isTold = position === undefined
    },
    onLeft: ({ id }) => go(id)
  })
  board.addEventListener('pointermove', ({ clientX, clientY }) => {
    const { left, top, width, height } = board.getBoundingClientRect()
    move((clientX - left) / width, (clientY - top) / height)
  })
  board.addEventListener('keydown', event => {
    const arrow = ARROWS[event.key]
    if (!arrow) return
    event.preventDefault()
    const { x = 0.5, y = 0.5 } = position ?? {}
    move(x + STEP * arrow[0], y + STEP * arrow[1])
  })
  setInterval(() => void tell(hub), 1000 / RATE)
}

function move(x, y) {
  const inside = part => Math.min(1, Math.max(0, part))
  position = { x: inside(x), y: inside(y) }
  isTold = false
  point({ id: own, ...position })
}

/** One at a time: over a slow connection there are fewer, and none of them waits. */
async function tell(hub) {
  if (isTold || isTelling) return
  isTold = isTelling = true
  // one that is not told now is old when there is a connection again
  await hub.signal(TOPIC, { id: own, ...position }).catch(() => {})
  isTelling = false
}

function come(id) {
  const isOwn = id === own
  const cursor = element('span', isOwn ? 'cursor own' : 'cursor', isOwn ? 'you' : `guest ${id.slice(0, 3)}`)
  cursor.hidden = true // until it is known where
  cursor.style.setProperty('--hue', hueOf(id))
  cursors.set(id, cursor)
  board.append(cursor)
  count()
}

function go(id) {
  cursors.get(id)?.remove()
  cursors.delete(id)
  count()
}

function count() {
  const others = cursors.size - 1
  show($('board-state'), others > 0 ? `${others} more here` : 'Nobody else is here: open another tab')
}

const moved = new Map()

/** Whoever may signal here may say anything. */
function point(data) {
  if (!cursors.has(data?.id) || !Number.isFinite(data.x) || !Number.isFinite(data.y)) return
  // what moves is followed by the eye: each frame counts
  if (moved.size === 0) requestAnimationFrame(draw)
  moved.set(data.id, data)
}

function draw() {
  for (const [id, { x, y }] of moved) {
    const cursor = cursors.get(id)
    if (!cursor) continue
    cursor.hidden = false
    cursor.style.translate = `${x * board.clientWidth}px ${y * board.clientHeight}px`
  }
  moved.clear()
}

function hueOf(id) {
  return [...id].reduce((sum, each) => 31 * sum + each.codePointAt(0), 7) % 360
}
