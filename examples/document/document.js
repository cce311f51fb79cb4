import { subscribe } from '/live/client.js'
import { onToken, signedIn } from '/login/session.js'
import * as Y from 'yjs'

/** After so many updates somebody publishes the whole text: then the ring, which holds 1000 events, always has one. */
const WHOLE_EVERY = 100

const find = selector => document.querySelector(selector)
const id = new URLSearchParams(location.search).get('id') ?? 'draft'
const area = find('#text')

const doc = new Y.Doc()
const text = doc.getText('text')

// --- what is sent ---

/** Publishes until it is stored, or refused for good; resolves with whether it is stored. `make` is asked each time, for what is newest. Twice does no harm: Yjs knows what it has. */
async function publish(type, make, ttl = '') {
  for (;;) {
    try {
      const response = await fetch(`/live/events/documents/${encodeURIComponent(id)}?type=${type}${ttl}`, {
        method: 'POST',
        headers: { 'content-type': 'application/octet-stream' },
        body: make(),
        signal: AbortSignal.timeout(10_000)
      })
      const { ok, status } = response
      // a proxy may refuse it as well, and has other words
      const { detail = `HTTP status ${status}` } = ok
        ? { detail: '' }
        : await response.json().catch(() => ({}))
      find('#problem').textContent = detail
      if (ok || (status >= 400 && status < 500 && status !== 429)) return ok
    } catch {
      // there is no connection, which the state shows
    }
    await new Promise(resolve => setTimeout(resolve, 1000))
  }
}

/** What was written here and is not stored yet. */
const unsaved = []
let isSaving = false

doc.on('update', (update, origin) => {
  if (origin === 'stream') return
  unsaved.push(update)
  void save()
})

async function save() {
  if (isSaving) return
  isSaving = true
  find('#saved').textContent = 'saving …'
  let isSaved = true
  while (isSaved && unsaved.length > 0) {
    let count
    isSaved = await publish('update', () => {
      count = unsaved.length // what is written meanwhile comes next
      return Y.mergeUpdates(unsaved)
    })
    if (isSaved) unsaved.splice(0, count)
  }
  isSaving = false
  find('#saved').textContent = isSaved ? 'saved' : 'not saved' // it is tried again with what is written next
}

let offer

/** Publishes the whole text, unless another page has done it a moment before. */
function offerWhole() {
  offer ??= setTimeout(async () => {
    await publish('whole', () => Y.encodeStateAsUpdate(doc))
    offer = undefined
  }, 500 * Math.random())
}

/** Asks the other pages for the whole text. Whoever comes later than in ten seconds is not asked any more. */
function askForWhole() {
  void publish('ask', () => String(doc.clientID), '&ttl=10')
}

// --- what comes ---

let updates = 0

function take({ type, data }) {
  if (type === 'ask') {
    if (new TextDecoder().decode(data) !== String(doc.clientID)) offerWhole()
    return
  }
  apply(data)
  if (type === 'whole') {
    updates = 0
    // somebody has said all that is to be said
    if (String(data) === String(Y.encodeStateAsUpdate(doc))) {
      clearTimeout(offer)
      offer = undefined
    }
  } else if (++updates >= WHOLE_EVERY) offerWhole()
}

let isNew = true

await signedIn()
subscribe(`documents/${id}`, {
  url: '/live',
  onToken,
  rewind: 1000, // all that the ring has
  shared: true, // one stream for all tabs: a browser opens six connections at the most
  onEvent: take,
  // what is missing is no longer here, but other pages have it; or this one alone has what they miss
  onGap() {
    askForWhole()
    offerWhole()
  },
  onState(state) {
    find('#state').textContent = find('#state').dataset.state = state
    if (state !== 'live' || !isNew) return
    isNew = false
    askForWhole() // the ring may have forgotten what is older
  }
})

// --- the text area ---

area.addEventListener('input', () => {
  // by characters, because half a surrogate pair is none
  const [before, after] = [[...text.toString()], [...area.value]]
  const most = Math.min(before.length, after.length)
  let start = 0
  while (start < most && before[start] === after[start]) start++
  let end = 0
  while (end < most - start && before.at(-1 - end) === after.at(-1 - end)) end++
  const at = before.slice(0, start).join('').length
  doc.transact(() => {
    text.delete(at, before.slice(start, before.length - end).join('').length)
    text.insert(at, after.slice(start, after.length - end).join(''))
  })
})

/** Shows an update, with the selection where it was: between the same characters. */
function apply(update) {
  const selection = [area.selectionStart, area.selectionEnd].map(index =>
    Y.createRelativePositionFromTypeIndex(text, index)
  )
  Y.applyUpdate(doc, update, 'stream')
  if (area.value === text.toString()) return
  area.value = text.toString()
  area.setSelectionRange(
    ...selection.map(position => Y.createAbsolutePositionFromRelativePosition(position, doc).index)
  )
}

find('#id').textContent = id
