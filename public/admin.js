import { subscribe } from './client.js'
import { keepToken, keptToken } from './token.js'

const LIVE = ['instances', 'connections', 'topics', 'gaps'].map(name => `$ringside/${name}`)
/** An instance that has told nothing for so long is not shown any more, in milliseconds. */
const GONE_MS = 10_000
const MOST_NOTES = 100
/** How often the page of connections is asked for where nothing says that it has changed, in milliseconds. */
const RELOAD_MS = 5000
/** What is said where there is nothing to say. */
const ABOUT = 'All instances together, live. What is done here is in the log, with who did it.'
const PAGE = 50

const $ = id => document.getElementById(id)

// --- what is known ---

/** What each instance has told last, and when; the busiest topics of each; the newest gaps and refusals. */
const instances = new Map()
const topics = new Map()
let notes = { gaps: [], refusals: [] }
let page = { connections: [], total: 0, next: null }
let after = ''
/** What numbers each instance has told of its connections, and when the page of them was asked for. */
const counted = new Map()
let loadedAt = 0
let subscription
let isLacking = false

// --- asking ---

async function ask(path, method = 'GET') {
  const headers = keptToken() === '' ? {} : { authorization: `Bearer ${keptToken()}` }
  const answer = await fetch(`admin/api/${path}`, { method, headers })
  const body = await answer.json()
  if (answer.ok) return body
  throw Object.assign(new Error(body.detail ?? `status ${answer.status}`), { status: answer.status })
}

/** Asks, and says what went wrong; undefined then. */
async function tryTo(what, path, method) {
  try {
    const body = await ask(path, method)
    lack('')
    if (body.unanswered?.length > 0) {
      const names = body.unanswered.map(({ host, pid }) => `${host} (${pid})`).join(', ')
      say(`${what}: no answer from ${names}; what is shown does not tell of them.`, 'bad')
    }
    return body
  } catch (error) {
    if (error.status === 401 || error.status === 403) lack(error)
    else say(`${what}: ${error.message}`, 'bad')
  }
}

function say(text, kind = '') {
  $('notice').textContent = text || ABOUT
  $('notice').dataset.kind = kind
}

/** Every panel says what it lacks. */
function lack(error) {
  isLacking = error !== ''
  const text = isLacking
    ? `This panel needs a token whose claim "ringside" has "admin": true (${error.message}).`
    : ''
  for (const panel of document.querySelectorAll('.lack'))
    if (panel.textContent !== text) panel.textContent = text
}

// --- live ---

function begin() {
  subscription?.close()
  subscription = undefined
  instances.clear()
  topics.clear()
  notes = { gaps: [], refusals: [] }
  after = ''
  void loadAll()
}

async function loadAll() {
  const told = await tryTo('Instances', 'instances')
  if (!told) return void (showAll(), showState('closed', 'needs a token'))
  for (const instance of told.instances) instances.set(instance.id, { ...instance, seen: Date.now() })
  subscription = subscribe(LIVE, {
    url: new URL('./', location.href),
    ...(keptToken() !== '' && { token: keptToken() }),
    onEvent: take,
    onState: (state, why) => showState(state, why?.reason)
  })
  const recent = await tryTo('Gaps', 'gaps')
  if (recent) notes = recent
  showAll()
  await loadConnections()
  await loadTopics()
  await loadSettings()
}

const TAKES = {
  instances: told => instances.set(told.id, { ...told, seen: Date.now() }),
  topics: ({ instance, rows }) => topics.set(instance, rows),
  gaps({ instance, gaps, refusals }) {
    const add = (news, known) =>
      [...news.map(note => ({ instance, ...note })).reverse(), ...known].slice(0, MOST_NOTES)
    notes = { gaps: add(gaps, notes.gaps), refusals: add(refusals, notes.refusals) }
  },
  // how many there are says whether the page that is shown has changed; how far they are behind changes slowly
  connections({ instance, ...counts }) {
    const text = JSON.stringify(counts)
    const isNew = counted.get(instance) !== text
    counted.set(instance, text)
    if (isNew || Date.now() - loadedAt > RELOAD_MS) soon(loadConnections)
  }
}

function take({ type, data }) {
  TAKES[type]?.(data)
  soon(showAll)
}

/** What is due: each is done once, a moment later. */
const due = new Set()

function soon(work) {
  if (due.has(work)) return
  due.add(work)
  setTimeout(() => {
    due.delete(work)
    if (!document.hidden && !isLacking) void work()
  }, 900)
}

async function loadConnections() {
  loadedAt = Date.now()
  const query = new URLSearchParams({ limit: PAGE, ...(after && { after }) })
  for (const { name, value } of $('filter').elements) if (name && value) query.set(name, value)
  const told = await tryTo('Connections', `connections?${query}`)
  if (!told) return
  page = told
  showConnections()
}

async function loadTopics() {
  const told = await tryTo('Topics', 'topics?limit=50')
  if (told) topics.set('', told.topics)
  showTopics()
}

async function loadSettings() {
  const told = await tryTo('Settings', 'settings')
  if (told) showSettings(told.inForce)
}

// --- showing ---

/**
 * Makes the rows of a table these ones. A row is kept for as long as its key is there, and of a cell only what changes is
 * written: who stands on a button in it stays there.
 */
function fill(body, items, keyOf, cellsOf, actsOf) {
  const known = new Map([...body.rows].map(row => [row.dataset.key, row]))
  items.forEach((item, index) => {
    const key = keyOf(item)
    const row = known.get(key) ?? newRow(key, actsOf?.(item))
    known.delete(key)
    cellsOf(item).forEach((cell, at) => setCell(row, at, cell))
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null)
  })
  for (const row of known.values()) row.remove()
}

function newRow(key, acts) {
  const row = document.createElement('tr')
  row.dataset.key = key
  if (!acts) return row
  const cell = row.appendChild(document.createElement('td'))
  cell.className = 'acts'
  for (const { name, label, act } of acts) {
    const button = cell.appendChild(document.createElement('button'))
    Object.assign(button, { type: 'button', className: 'quiet', textContent: name, onclick: act })
    button.setAttribute('aria-label', label)
  }
  return row
}

/** A cell is a text, or `{ text, small, kind, number, meter }`. */
function setCell(row, at, given) {
  const {
    text = '',
    small = '',
    kind = '',
    number = false,
    meter
  } = typeof given === 'string' ? { text: given } : given
  let cell = row.cells[at]
  if (!cell || cell.className === 'acts') {
    cell = row.insertBefore(document.createElement('td'), cell ?? null)
    if (number) cell.classList.add('number')
    if (meter) cell.append(document.createElement('meter'), ' ')
    // the words beside it say the same
    cell.firstChild?.setAttribute?.('aria-hidden', 'true')
    cell.append(document.createElement('span'), document.createElement('small'))
  }
  const [bar] = cell.getElementsByTagName('meter')
  if (bar && meter) Object.assign(bar, { max: meter.max || 1, value: meter.value })
  const [words] = cell.getElementsByTagName('span')
  const [below] = cell.getElementsByTagName('small')
  if (words.textContent !== text) words.textContent = text
  if (words.className !== kind) words.className = kind
  if (below.textContent !== small) below.textContent = small
}

function showState(state, reason) {
  const words = { live: 'Live', connecting: 'Connecting', closed: 'Not connected', offline: 'Offline' }
  $('state').dataset.state = state
  const text = `${words[state] ?? state}${reason ? `: ${reason}` : ''}`
  if ($('state').textContent !== text) $('state').textContent = text
}

function showAll() {
  const now = Date.now()
  for (const [id, { seen }] of instances) {
    if (!subscription || now - seen <= GONE_MS) continue
    for (const known of [instances, topics, counted]) known.delete(id)
  }
  showInstances([...instances.values()].sort((a, b) => a.started - b.started))
  showTopics()
  showNotes()
}

function showInstances(all) {
  const acts = ({ id, host, pid }) => [
    {
      name: 'Drain',
      label: `Drain ${host} ${pid}`,
      act: () =>
        confirmed(
          `Drain ${host} (${pid})?`,
          'It takes no new streams and ends the open ones; their clients come back on other instances.',
          () => act(`Draining ${host}`, `instances/${id}/drain`, 'POST')
        )
    }
  ]
  fill($('instances'), all, ({ id }) => id, instanceCells, acts)
  const kinds = Object.keys(all[0]?.memory.kinds ?? {})
  const sums = kinds.map(kind => ({ kind, held: all.map(({ memory }) => memory.kinds[kind]) }))
  fill(
    $('budget'),
    [...sums, { kind: 'all', held: all.map(({ memory }) => memory.held) }].filter(() => all.length > 0),
    ({ kind }) => kind,
    ({ kind, held }) => [
      kind,
      number(bytes(held.reduce((sum, each) => sum + each, 0))),
      number(bytes(Math.max(0, ...held)))
    ]
  )
}

function instanceCells({
  id,
  host,
  pid,
  worker,
  version,
  started,
  connections,
  memory,
  eventLoop,
  store,
  ...rest
}) {
  const { sse, ndjson, poll, ws, lagging, conflated } = connections
  const { unready, draining } = rest
  const state = draining ? ['draining', 'wait'] : unready ? [unready, 'bad'] : ['ready', 'good']
  const trouble = store.unusable ?? store.unwritable
  return [
    { text: `${host} (${pid})`, small: `${id}${worker === null ? '' : `, worker ${worker}`}, ${version}` },
    { text: state[0], kind: state[1] },
    { ...number(String(sse + ndjson + poll + ws)), small: `${sse} sse, ${ws} ws` },
    number(String(lagging), lagging > 0 ? 'wait' : ''),
    number(String(conflated)),
    {
      text: memory.limit === null ? bytes(memory.held) : `${bytes(memory.held)} of ${bytes(memory.limit)}`,
      meter: { max: memory.limit ?? memory.held, value: memory.held }
    },
    number(bytes(memory.rss)),
    number(`${eventLoop.p99} ms`, eventLoop.p99 > 100 ? 'wait' : ''),
    { text: store.kind, kind: store.up && !trouble ? '' : 'bad', small: trouble ?? (store.up ? '' : 'away') },
    duration(Date.now() - started)
  ]
}

function showConnections() {
  const { connections, total, next } = page
  $('connection-count').textContent = `${total} in all`
  $('next').disabled = next === null
  fill($('connections'), connections, ({ id }) => id, connectionCells, connectionActs)
}

function connectionActs({ id, user, address }) {
  const one = {
    name: 'Disconnect',
    label: `Disconnect ${user ?? address}, ${id}`,
    act: () => act('Disconnected', `connections/${id}`, 'DELETE')
  }
  if (user === null) return [one]
  const all = {
    name: 'Disconnect user',
    label: `Disconnect user ${user}`,
    act: () =>
      confirmed(
        `Disconnect ${user}?`,
        'All connections of this user are ended, on all instances. They come back if their tokens still hold.',
        () => act(`Disconnected ${user}`, `users/${encodeURIComponent(user)}/connections`, 'DELETE')
      )
  }
  return [one, all]
}

function connectionCells({
  address,
  agent,
  user,
  transport,
  topics,
  topicCount,
  since,
  lagging,
  lag,
  backlog,
  rate
}) {
  const more = topicCount > topics.length ? ` and ${topicCount - topics.length} more` : ''
  return [
    { text: address ?? '–', small: agent ?? '' },
    user ?? '–',
    { text: transport, small: rate === null ? '' : `${rate} a second` },
    topics.join(', ') + more,
    number(duration(Date.now() - since)),
    number(lag < 1000 ? '–' : duration(lag), lagging ? 'wait' : ''),
    number(backlog === 0 ? '–' : bytes(backlog), lagging ? 'wait' : '')
  ]
}

/** Those of all instances together, as the API does it. */
function showTopics() {
  const all = new Map()
  const lists = topics.size > 1 ? [...topics].filter(([instance]) => instance !== '') : [...topics]
  for (const row of lists.flatMap(([, rows]) => rows)) {
    const known = all.get(row.topic)
    if (!known) all.set(row.topic, row)
    else {
      const subscribers = known.subscribers + row.subscribers
      all.set(row.topic, { ...known, subscribers, rate: Math.max(known.rate, row.rate) })
    }
  }
  const sorted = [...all.values()].sort((a, b) => b.rate - a.rate || b.subscribers - a.subscribers)
  fill($('topics'), sorted, ({ topic }) => topic, topicCells, topicActs)
}

function topicActs({ topic }) {
  // a wildcard has no ring of its own
  if (topic === '*' || topic.endsWith('/*')) return []
  return [
    {
      name: 'Delete ring',
      label: `Delete ring of ${topic}`,
      act: () =>
        confirmed(
          `Delete what is held of ${topic}?`,
          'Its events and its state are gone for good; readers are told a gap, "lost".',
          () => act(`Deleted ${topic}`, `topics/${encodeURIComponent(topic)}`, 'DELETE')
        )
    }
  ]
}

function topicCells({ topic, rate, subscribers, events, oldest, bytes: size, last }) {
  return [
    topic,
    number(String(rate)),
    number(String(subscribers)),
    number(String(events)),
    number(oldest === null ? '–' : duration(Date.now() - oldest)),
    number(bytes(size)),
    last ? { text: `${time(last.time)} ${last.type}`, small: last.topic === topic ? '' : last.topic } : '–'
  ]
}

function showNotes() {
  const keyOf = ({ instance, time, reason, what = '', topics = [] }) =>
    [instance, time, what, reason, ...topics].join(' ')
  fill(
    $('gaps'),
    notes.gaps.slice(0, MOST_NOTES),
    keyOf,
    ({ time: at, reason, topics: some, topicCount, count }) => [
      time(at),
      reason,
      some.join(', ') + (topicCount > some.length ? ` and ${topicCount - some.length} more` : ''),
      number(String(count))
    ]
  )
  fill($('refusals'), notes.refusals.slice(0, MOST_NOTES), keyOf, ({ time: at, what, reason, count }) => [
    time(at),
    what,
    reason,
    number(String(count))
  ])
}

function showSettings(inForce) {
  const parts = inForce.flatMap(({ instances: ids, settings, rules }) => {
    const head = document.createElement('p')
    head.textContent = inForce.length > 1 ? `On ${ids.join(', ')}` : 'The same on all instances'
    const list = document.createElement('dl')
    const named = Object.entries(settings).sort(([one], [other]) => (one < other ? -1 : 1))
    const told = [...named, ...rules.map((rule, at) => [`TOPICS ${at + 1}`, rule])]
    for (const [name, value] of told) {
      const [term, detail] = [document.createElement('dt'), document.createElement('dd')]
      term.textContent = name
      detail.textContent = typeof value === 'string' ? value || '–' : JSON.stringify(value)
      list.append(term, detail)
    }
    return [head, list]
  })
  $('settings').replaceChildren(...parts)
}

// --- acts ---

async function act(what, path, method) {
  const done = await tryTo(what, path, method)
  if (!done) return
  if (!done.unanswered?.length) say(`${what}${done.disconnected > 1 ? ` (${done.disconnected})` : ''}.`)
  soon(loadConnections)
  soon(loadTopics)
}

function confirmed(title, text, then) {
  const dialog = $('confirm')
  $('confirm-title').textContent = title
  $('confirm-text').textContent = text
  dialog.returnValue = ''
  dialog.onclose = () => dialog.returnValue === 'yes' && void then()
  dialog.showModal()
}

$('login').addEventListener('submit', event => {
  event.preventDefault()
  keepToken($('token').value.trim())
  $('token').value = ''
  say('')
  begin()
})

$('forget').addEventListener('click', () => {
  keepToken('')
  say('The token is forgotten.')
  begin()
})

$('filter').addEventListener('submit', event => {
  event.preventDefault()
  after = ''
  void loadConnections()
})

$('first').addEventListener('click', () => {
  after = ''
  void loadConnections()
})

$('next').addEventListener('click', () => {
  after = page.next ?? ''
  void loadConnections()
})

// --- words ---

function number(text, kind = '') {
  return { text, kind, number: true }
}

function bytes(count) {
  if (count < 1024) return `${count} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length, Math.floor(Math.log2(count) / 10))
  return `${(count / 1024 ** power).toFixed(1)} ${units[power - 1]}`
}

function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`
  return `${Math.floor(seconds / 86_400)} d`
}

function time(ms) {
  return new Date(ms).toLocaleTimeString()
}

say('')
begin()
