import { connect } from '/live/client.js'
import { onToken, signedIn } from '/login/session.js'

const TYPING_MS = 3000

const find = selector => document.querySelector(selector)
const name = await signedIn()

const hub = connect({
  url: '/live',
  onToken,
  onState: state => (find('#state').textContent = find('#state').dataset.state = state)
})

// --- the room ---

let topic
let room = Promise.resolve(async () => {})

/** Leaves the room, once it has been entered, and enters another one. Without a connection it does so when there is one. */
function enter(button) {
  for (const each of find('#rooms').children) each.ariaCurrent = String(each === button)
  room = room
    .then(leave => leave())
    .then(() => begin(`rooms/${button.textContent}`))
    .catch(error => {
      find('#typing').textContent = error.message
      return async () => {}
    })
}

async function begin(next) {
  topic = next
  members.clear()
  typing.clear()
  showAllTyping()
  find('#messages').replaceChildren()
  const subscription = await hub.subscribe(topic, {
    rewind: 50, // the history; after a break it goes on where it was
    onEvent: showMessage,
    onGap: () => addMessage('messages are missing here').classList.add('gap'),
    onSignal: ({ data }) => data?.name && showTyping(data.name)
  })
  const joining = hub.join(topic, {
    // all of them, also after each break
    onMembers(all) {
      members.clear()
      for (const { id, sub } of all) members.set(id, sub)
      showMembers()
    },
    onJoined({ id, sub }) {
      members.set(id, sub)
      showMembers()
    },
    onLeft({ id }) {
      members.delete(id)
      showMembers()
    }
  })
  const membership = await joining.catch(async error => {
    await subscription.unsubscribe() // else the room could not be entered again
    throw error
  })
  return () => Promise.all([subscription.unsubscribe(), membership.leave()])
}

find('#rooms').addEventListener('click', ({ target }) => target.matches('button') && enter(target))

// --- messages ---

function showMessage({ time, data }) {
  if (!data?.text) return // whoever may publish here may publish anything
  const item = addMessage(data.text, data.name)
  const at = document.createElement('time')
  at.textContent = new Date(time).toLocaleTimeString()
  item.append(' ', at)
  hideTyping(data.name)
}

function addMessage(text, from, list = find('#messages')) {
  const item = document.createElement('li')
  const who = document.createElement('strong')
  who.textContent = from ? `${from}: ` : ''
  item.append(who, text)
  list.append(item)
  item.scrollIntoView({ block: 'end' })
  return item
}

/** A message waits below the others until it is stored. With the same key it may be sent again: it is stored once. */
async function send(to, text, key) {
  const item = addMessage(text, name, find('#waiting'))
  try {
    await hub.publish(to, { name, text }, { key })
    item.remove()
  } catch (error) {
    const again = document.createElement('button')
    again.textContent = 'send again'
    again.onclick = () => {
      item.remove()
      void send(to, text, key)
    }
    item.append(` (not sent: ${error.message}) `, again)
  }
}

find('#write').addEventListener('submit', event => {
  event.preventDefault()
  const { text } = event.target.elements
  void send(topic, text.value, crypto.randomUUID())
  event.target.reset()
  saidAt = -Infinity
})

// --- who is here, and who is typing ---

/** Names, by connection: somebody with two tabs is here twice. */
const members = new Map()

function showMembers() {
  const items = [...members.values()].map(each => {
    const item = document.createElement('li')
    item.textContent = each
    return item
  })
  find('#members').replaceChildren(...items)
}

/** Timers, by name. */
const typing = new Map()
let saidAt = -Infinity

find('#write').addEventListener('input', () => {
  if (performance.now() - saidAt < TYPING_MS / 2) return
  saidAt = performance.now()
  hub.signal(topic, { name }).catch(() => {}) // it is about now: what could not be sent at once is not sent
})

function showTyping(who) {
  clearTimeout(typing.get(who))
  typing.set(
    who,
    setTimeout(() => hideTyping(who), TYPING_MS)
  )
  showAllTyping()
}

function hideTyping(who) {
  clearTimeout(typing.get(who))
  typing.delete(who)
  showAllTyping()
}

function showAllTyping() {
  const names = [...typing.keys()].join(', ')
  find('#typing').textContent = names && `${names} … typing`
}

enter(find('#rooms button'))
