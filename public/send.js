/** Publishing from the page: an event, a signal, a notification, or a patch of a dashboard; and the same as curl. */
import { ask, lacking, token } from './access.js'
import { $, mark, show } from './dom.js'
import { signal } from './presence.js'

const BUTTONS = { event: 'Publish', signal: 'Send the signal', notification: 'Notify', dashboard: 'Patch' }
const NAMES = {
  event: 'Data',
  signal: 'Data, JSON or text',
  notification: 'Text',
  dashboard: 'Merge patch, JSON'
}
const EXAMPLES = { event: 'Hello!', signal: '{"typing":true}', notification: '', dashboard: '{"cpu":3}' }

const JSON_TYPE = 'application/json'

export function startSending() {
  const form = $('send')
  form.addEventListener('input', ({ target }) => {
    if (target.name === 'kind') chooseKind()
    showRequest()
  })
  form.addEventListener('submit', event => {
    event.preventDefault()
    void send()
  })
  chooseKind()
  showRequest()
}

/** Publishes on this topic next; what is no single topic can't be published on. */
export function sendTo(topic) {
  const [feed, name, ...rest] = topic.split('/')
  if (topic.endsWith('*')) return
  const { elements } = $('send')
  if (rest.length === 0 && name && feed === 'dashboards') {
    elements.dashboard.value = name
    elements.kind.value = 'dashboard'
  } else if (rest.length === 0 && name && feed === 'notifications') {
    elements.to.value = name
    elements.kind.value = 'notification'
  } else {
    elements.topic.value = topic
    if (elements.kind.value !== 'signal') elements.kind.value = 'event'
  }
  chooseKind()
  showRequest()
}

function chooseKind() {
  const form = $('send')
  const { kind, data } = fields()
  // what was written stays
  if (data === EXAMPLES[form.dataset.kind]) form.elements.data.value = EXAMPLES[kind]
  mark(form, 'data-kind', kind)
  show($('send-button'), BUTTONS[kind])
  show($('data-name'), NAMES[kind])
  for (const label of form.querySelectorAll('[data-of]'))
    label.hidden = !label.dataset.of.split(' ').includes(kind)
  show($('sent'), '')
}

function fields() {
  return Object.fromEntries(new FormData($('send')))
}

/** What is asked of the server, and the topic that it is about; undefined for a signal, which is no request. */
function request({ kind, ...given }) {
  const key = given.key && { 'idempotency-key': given.key }
  if (kind === 'event') {
    const query = new URLSearchParams()
    for (const name of ['type', 'ttl']) if (given[name]) query.set(name, given[name])
    const type = given.format === 'json' ? JSON_TYPE : 'text/plain'
    return {
      ...{ topic: given.topic, method: 'POST', headers: { 'content-type': type, ...key }, body: given.data },
      path: `events/${given.topic.split('/').map(encodeURIComponent).join('/')}${query.size > 0 ? `?${query}` : ''}`
    }
  }
  if (kind === 'notification') {
    const { to, title, priority, data } = given
    const body = JSON.stringify({ to, title, priority, ...(data && { body: data }) })
    return {
      ...{ topic: `notifications/${to}`, method: 'POST', path: 'notifications', body },
      headers: { 'content-type': JSON_TYPE, ...key }
    }
  }
  if (kind !== 'dashboard') return undefined
  return {
    ...{ topic: `dashboards/${given.dashboard}`, method: 'PATCH', body: given.data },
    path: `dashboards/${encodeURIComponent(given.dashboard)}`,
    headers: { 'content-type': 'application/merge-patch+json' }
  }
}

async function send() {
  const given = fields()
  show($('sent'), '')
  try {
    show($('sent'), given.kind === 'signal' ? await sendSignal(given) : await sendRequest(request(given)))
  } catch (error) {
    show($('sent'), `Refused: ${error.message}`)
  }
  showRequest()
}

async function sendSignal({ topic, data }) {
  await signal(topic, parsed(data))
  return 'Sent to who listens over a WebSocket now'
}

async function sendRequest({ path, method, headers, body }) {
  const response = await patchOrPut(path, { method, headers, body })
  const { id, ids } = await response.json().catch(() => ({}))
  if (response.headers.has('idempotent-replayed')) return 'It was stored before, by this key'
  const stored = id ?? Object.values(ids ?? {})[0] ?? response.headers.get('etag')
  return stored ? `Stored: ${stored}` : 'Stored'
}

/** A dashboard that is not there yet begins with its first patch. */
async function patchOrPut(path, init) {
  try {
    return await ask(path, init)
  } catch (error) {
    if (init.method !== 'PATCH' || error.status !== 404) throw error
    return ask(path, { ...init, method: 'PUT', headers: { 'content-type': JSON_TYPE } })
  }
}

function parsed(text) {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

/** The request as a command, and what the token lacks for it. */
function showRequest() {
  const given = fields()
  const asked = request(given)
  const lack = lacking('publish', asked?.topic ?? given.topic)
  $('send-lack').hidden = !lack
  show($('send-lack'), `To send this, the page needs ${lack}.`)
  for (const part of document.querySelectorAll('[data-copy=send-command], .command:has(#send-command)'))
    part.hidden = !asked
  if (asked) show($('send-command'), curlOf(asked))
}

function curlOf({ path, method, headers, body }) {
  const sent = Object.entries(headers).filter(([, value]) => value !== 'text/plain')
  return [
    'curl',
    ...(method === 'POST' ? [] : ['-X', method]),
    ...(token ? ['-H "Authorization: Bearer $TOKEN"'] : []),
    ...sent.map(([name, value]) => `-H ${quoted(`${name}: ${value}`)}`),
    ...['-d', quoted(body)],
    quoted(new URL(path, document.baseURI).href)
  ].join(' ')
}

/** As a shell takes it. */
function quoted(text) {
  return /^[\w:/.%~-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
