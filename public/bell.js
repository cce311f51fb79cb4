/** The bell's panel: the inbox of whoever this page is. Its events say when to read it again. */
import { ask, token, user } from './access.js'
import { $, element, show } from './dom.js'
import { INBOX, on, stream } from './stream.js'
import { clockTime, number } from './text.js'

const SHOWN = 4
/** How long to wait for more events before the inbox is read, in milliseconds. */
const CALM_MS = 150

/** Where the server asks nobody who they are, the query says so. */
const query = token || user === undefined ? '' : `?user=${encodeURIComponent(user)}`

let reading = 0

export function startBell() {
  if (INBOX === undefined) return
  on('event', ({ topic }) => topic === INBOX && soon())
  on('gap', ({ topics }) => topics.includes(INBOX) && soon())
  on('state', before => before !== 'live' && stream.state === 'live' && soon())
  $('read-all').addEventListener('click', () => void readAll())
  show($('bell-user'), user)
}

function soon() {
  clearTimeout(reading)
  reading = setTimeout(() => void read(), CALM_MS)
}

async function read() {
  try {
    const { notifications, unread } = await (await ask(`notifications${query}`)).json()
    // an empty one is not worth a panel, unless something is about to ring it
    $('bell').hidden &&= notifications.length === 0 && $('job').hidden
    $('panels').hidden &&= $('bell').hidden
    show($('unread'), `${number(unread)} unread`)
    $('read-all').disabled = unread === 0
    $('inbox').replaceChildren(...notifications.slice(0, SHOWN).map(itemOf))
  } catch {
    // the stream's state says what there is to say
  }
}

function itemOf({ title, body, time, read, priority }) {
  const item = element('li', read ? 'read' : `unread ${priority}`)
  item.append(element('strong', '', title), element('time', '', clockTime(time)))
  if (body) item.append(element('p', '', body))
  return item
}

async function readAll() {
  const headers = { 'content-type': 'application/json' }
  await ask(`notifications/read${query}`, { method: 'POST', headers, body: '{"all":true}' }).catch(() => {})
  soon()
}
