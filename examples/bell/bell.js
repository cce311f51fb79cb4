import { subscribe } from '/live/client.js'
import { onToken, signedIn } from '/login/session.js'

const find = selector => document.querySelector(selector)

const user = await signedIn()
// whose they are, the cookie says
const at = path => `/live/notifications${path}`

// --- the inbox ---

/** An inbox holds the last 200: what comes then takes the place of the oldest one. */
const INBOX_SIZE = 200

/** Notifications by id, the oldest first. */
let inbox = new Map()

/** The inbox as it is, and where the stream goes on from. */
async function load() {
  const answer = await ask(at(''))
  inbox = new Map(answer.notifications.reverse().map(each => [each.id, each]))
  show()
  return answer.cursor
}

function take({ id, type, time, data }) {
  if (type === 'notification') {
    id = data.id ?? id // with several shards it has a name of its own
    if (inbox.has(id)) return // the inbox that was loaded may be newer than its cursor
    inbox.set(id, { ...data, id, time, read: false })
    if (inbox.size > INBOX_SIZE) inbox.delete(inbox.keys().next().value)
  } else {
    // some or all of them were read, or deleted: here, or in another tab, or on the telephone. All are those that were
    // there then: the inbox may hold later ones already
    const all = () => [...inbox.values()].filter(each => each.time <= time).map(each => each.id)
    for (const each of data.ids ?? all()) {
      if (type === 'deleted') inbox.delete(each)
      else if (inbox.has(each)) inbox.get(each).read = true
    }
  }
  show()
}

// --- the page ---

function show() {
  // counted here, since what an event says of it may be older than the inbox
  const unread = [...inbox.values()].filter(each => !each.read).length
  find('#unread').textContent = find('#unread').dataset.count = unread
  find('#all').disabled = unread === 0
  document.title = unread > 0 ? `(${unread}) Ringside: bell` : 'Ringside: bell'
  find('#list').replaceChildren(...[...inbox.values()].reverse().map(itemOf))
}

function itemOf({ id, title, time, read }) {
  const item = document.createElement('li')
  item.className = read ? '' : 'unread'
  const [text, at, button] = ['strong', 'time', 'button'].map(name => document.createElement(name))
  text.textContent = title
  at.textContent = new Date(time).toLocaleString()
  button.textContent = 'Mark as read'
  button.onclick = () => change('/read', { ids: [id] })
  item.append(text, at, ...(read ? [] : [button]))
  return item
}

/** What it does to the inbox comes over the stream, as it does to the user's other tabs. */
async function change(path, body) {
  try {
    await ask(at(path), body)
    find('#problem').textContent = ''
  } catch (error) {
    find('#problem').textContent = error.message
  }
}

/** GETs JSON, or POSTs it if there is a body. */
async function ask(address, body) {
  const response = await fetch(address, {
    method: body ? 'POST' : 'GET',
    headers: { accept: 'application/json', ...(body && { 'content-type': 'application/json' }) },
    body: JSON.stringify(body)
  })
  const answer = await response.json()
  if (!response.ok) throw new Error(answer.detail)
  return answer
}

find('#user').textContent = find('#send').elements.to.value = user
find('#bell').onclick = () => {
  find('#inbox').hidden = !find('#inbox').hidden
  find('#bell').ariaExpanded = String(!find('#inbox').hidden)
}
find('#all').onclick = () => change('/read', { all: true })
find('#send').onsubmit = event => {
  event.preventDefault()
  const { to, title } = event.target.elements
  void change('', { to: to.value, title: title.value })
  title.value = ''
}

// --- the stream ---

async function start() {
  try {
    const stream = subscribe(`notifications/${user}`, {
      url: '/live',
      after: await load(),
      shared: true, // one stream for all tabs
      onToken,
      onEvent: take,
      // more was missed than the server keeps: the inbox as it is answers that
      onGap() {
        stream.close()
        void start()
      },
      onState: state => (find('#state').textContent = find('#state').dataset.state = state)
    })
  } catch (error) {
    find('#problem').textContent = error.message
    setTimeout(start, 2000)
  }
}

void start()
