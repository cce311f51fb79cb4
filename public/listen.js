/** Listening to any topic: what comes, readable, with a filter and a pause; and who else is there. */
import { lacking, token } from './access.js'
import { subscribe } from './client.js'
import { $, element, mark, show } from './dom.js'
import { render } from './frame.js'
import { join, leave, presence } from './presence.js'
import { note } from './topics.js'
import { count } from './text.js'

/** How many are kept, how many of these are shown, how many more of them at a time, and how much of one. */
const KEPT = 500
const SHOWN = 100
const MOST_AT_ONCE = 20
const MOST_TEXT = 2000
const REWIND = 20

/** What came: an event, a signal or a gap, the oldest first; how many of all are not shown yet. */
const heard = []
let undrawn = 0
let isPaused = false
let listening

export function startListening() {
  $('listen').addEventListener('submit', event => {
    event.preventDefault()
    if (listening) stop('Stopped')
    else listenTo($('topic').value.trim())
  })
  $('topic').addEventListener('input', showCommand)
  $('event-filter').addEventListener('input', redraw)
  $('pause').addEventListener('click', () => {
    isPaused = !isPaused
    render(draw)
  })
  $('join').addEventListener('click', () => void toggleJoin())
  presence.onChange = drawPresence
  presence.onSignal = ({ topic, from, data }) =>
    add({ kind: 'signal', topic, type: 'signal', time: Date.now(), id: from.id, data })
  showCommand()
  drawPresence()
}

/** Listens to a topic in place of the one before. */
export function listenTo(topic) {
  if (listening) stop('')
  $('topic').value = topic
  showCommand()
  heard.length = 0
  redraw()
  show($('listen-button'), 'Stop')
  const state = (name, { reason = '' } = {}) => {
    if (name === 'closed' || name === 'ended')
      stop(name === 'ended' ? 'The topic has ended' : `Refused: ${reason}`)
    else show($('topic-state'), `${name === 'live' ? 'Listening' : 'Connecting'} to ${topic}`)
  }
  try {
    listening = subscribe(topic, {
      ...{ url: '.', rewind: REWIND, heartbeat: 5, shared: true, ...(token && { token }) },
      onEvent: event => {
        note(event, listening?.state === 'catching-up')
        add(event)
      },
      onGap: ({ reason, topics, after }) =>
        add({
          kind: 'gap',
          topic: topics.join(', '),
          type: `gap (${reason})`,
          time: Date.now(),
          id: after,
          data: 'Events are no longer held.'
        }),
      onState: state
    })
    state('connecting')
  } catch (error) {
    stop(`Refused: ${error.message}`)
  }
}

function stop(why) {
  listening?.close()
  listening = undefined
  show($('listen-button'), 'Listen')
  show($('topic-state'), why)
}

function showCommand() {
  const topic = $('topic').value.trim() || 'hello'
  const encoded = encodeURIComponent(topic).replaceAll('%2F', '/').replaceAll("'", '%27')
  const more = topic.endsWith('*') ? '&envelope=true' : ''
  const url = new URL(`events?topic=${encoded}&rewind=10${more}`, document.baseURI).href
  show($('listen-command'), `curl -N ${token ? '-H "Authorization: Bearer $TOKEN" ' : ''}'${url}'`)
  const lack = lacking('subscribe', topic)
  $('listen-lack').hidden = !lack
  show($('listen-lack'), `To read it, this page needs ${lack}.`)
}

// --- what came ---

function add(item) {
  heard.push(item)
  if (heard.length > 2 * KEPT) heard.splice(0, KEPT)
  undrawn++
  render(draw)
}

/** Shows what is kept anew, also while nothing else is shown: to look at what came is what a pause is for. */
function redraw() {
  $('heard').replaceChildren()
  undrawn = heard.length
  showHeard()
}

function draw() {
  if (!isPaused) showHeard()
  mark($('pause'), 'aria-pressed', String(isPaused))
  show($('pause'), isPaused ? `Go on${undrawn > 0 ? ` (${undrawn})` : ''}` : 'Pause')
}

function showHeard() {
  if (undrawn === 0) return
  const wanted = $('event-filter').value.trim().toLowerCase()
  const items = heard.slice(-Math.min(undrawn, KEPT)).filter(item => !wanted || textOf(item).includes(wanted))
  const list = $('heard')
  // a list that begins anew shows all that it can
  const most = list.children.length === 0 ? SHOWN : MOST_AT_ONCE
  undrawn = 0
  list.prepend(...items.slice(-most).reverse().map(itemOf))
  if (items.length > most)
    list.children[most - 1].after(
      element('li', 'more', `${count(items.length - most, 'event')} more, too fast to be shown`)
    )
  while (list.children.length > SHOWN) list.lastChild.remove()
}

function textOf({ topic, type, data }) {
  return `${topic} ${type} ${pretty(data)}`.toLowerCase()
}

function itemOf({ kind = 'event', topic, type, time, id, data }) {
  const item = element('li', kind)
  const head = element('p')
  const at = new Date(time)
  const clock = element(
    'time',
    '',
    `${at.toLocaleTimeString('en-GB')}.${String(at.getMilliseconds()).padStart(3, '0')}`
  )
  head.append(
    clock,
    element('strong', '', type),
    element('span', 'mono', topic),
    element('span', 'mono id', id)
  )
  item.append(head, element('pre', '', pretty(data)))
  return item
}

function pretty(data) {
  if (data instanceof Uint8Array) return `${count(data.length, 'byte')}`
  const text = typeof data === 'string' ? data : JSON.stringify(data, null, 2)
  return text.length > MOST_TEXT ? `${text.slice(0, MOST_TEXT)} …` : text
}

// --- who else is there ---

async function toggleJoin() {
  if (presence.topic !== undefined) return leave()
  try {
    await join($('topic').value.trim())
  } catch (error) {
    show($('members'), `Not joined: ${error.message}`)
  }
}

function drawPresence() {
  const { topic, members } = presence
  show($('join'), topic === undefined ? 'Join' : 'Leave')
  const names = [...members.values()].map(({ sub, info }) => sub ?? String(info?.name ?? 'somebody'))
  show(
    $('members'),
    topic === undefined
      ? 'Join to be seen by the others on this topic, and to hear their signals.'
      : `Here on ${topic}: ${names.join(', ')}`
  )
}
