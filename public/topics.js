/** The topics' panel: those of the whole hub for who operates it, and else those that this page has heard of. */
import { ask, isAdmin, server, token } from './access.js'
import { $, element, show } from './dom.js'
import { render } from './frame.js'
import { isFresh, on, stream } from './stream.js'
import { bytesText, duration, number } from './text.js'

/** How often it is drawn, and how often the hub is asked, in milliseconds. */
const DRAW_MS = 1000
const ASK_MS = 3000
/** How many are shown at the most. */
const SHOWN = 200
/** How much the last second counts in the rate of a topic. */
const WEIGHT = 0.2

/** What this page has heard, by topic: how many since the last drawing, how many a second, and the last one's type and time. */
const heard = new Map()
/** What the hub says, by topic. */
let told = new Map()
/** By topic. */
const rows = new Map()
let choose = () => {}
let mayAsk = true

/** `chosen` is called with a topic that somebody wants to listen to. */
export function startTopics(chosen) {
  choose = chosen
  on('event', event => note(event, stream.state === 'catching-up'))
  setInterval(tick, DRAW_MS)
  setInterval(() => void askHub(), ASK_MS)
  void askHub()
  $('topics-filter').addEventListener('input', () => render(draw))
}

/** Takes notice of an event that has come, on whatever stream; what is old counts for nothing in the rate. */
export function note({ topic, type, time }, isOld) {
  const known = heard.get(topic) ?? { count: 0, rate: 0 }
  heard.set(topic, Object.assign(known, { count: known.count + (isOld ? 0 : 1), type, time }))
}

async function askHub() {
  // without a token the server may ask nobody for one
  if (!mayAsk || server.wantsToken || document.hidden || (token && !isAdmin) || !isFresh()) return lack()
  try {
    const { topics } = await (await ask(`admin/api/topics?limit=${SHOWN}`)).json()
    $('operator').hidden = false
    told = new Map(topics.map(row => [row.topic, row]))
  } catch ({ status }) {
    if (status >= 400 && status < 500 && status !== 429) mayAsk = false
  }
  lack()
}

function lack() {
  $('topics-lack').hidden = told.size > 0 || (mayAsk && !token)
  show(
    $('topics-lack'),
    'These are the topics that this page has heard of. All of them, what their rings hold and who reads them: “admin”: true in the claim “ringside” of a token.'
  )
}

function tick() {
  for (const each of heard.values()) {
    each.rate += WEIGHT * (each.count - each.rate)
    each.count = 0
  }
  render(draw)
}

function draw() {
  if (document.hidden || $('rest').hidden) return
  const wanted = $('topics-filter').value.trim().toLowerCase()
  const all = [...new Set([...told.keys(), ...heard.keys()])].sort()
  const shown = all.filter(topic => topic.toLowerCase().includes(wanted)).slice(0, SHOWN)
  show($('topics-count'), shown.length < all.length ? `${shown.length} of ${all.length}` : `${all.length}`)
  for (const [topic, row] of rows) if (!shown.includes(topic)) forget(topic, row)
  shown.forEach((topic, at) => {
    if (!rows.has(topic)) insert(topic, at)
    drawRow(topic)
  })
}

function forget(topic, row) {
  row.remove()
  rows.delete(topic)
}

function insert(topic, at) {
  const row = element('tr')
  const name = element('th')
  const button = element('button', 'link', topic)
  name.scope = 'row'
  button.type = 'button'
  button.addEventListener('click', () => choose(topic))
  name.append(button)
  row.append(name, ...Array.from({ length: 4 }, () => element('td', 'number')))
  $('topics').insertBefore(row, $('topics').children[at] ?? null)
  rows.set(topic, row)
}

function drawRow(topic) {
  const [, rate, ring, readers, last] = rows.get(topic).children
  const own = heard.get(topic)
  const all = told.get(topic)
  const perSecond = all?.rate ?? own?.rate
  show(rate, perSecond < 0.05 ? '0' : number(perSecond, 1))
  show(ring, all ? `${number(all.events)} · ${bytesText(all.bytes)}` : '–')
  show(readers, all ? number(all.subscribers) : '–')
  const time = Math.max(all?.last?.time ?? 0, own?.time ?? 0)
  show(last, time > 0 ? `${duration((Date.now() - time) / 1000)} ago` : '–')
}
