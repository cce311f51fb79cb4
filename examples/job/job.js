import { subscribe } from '/live/client.js'
import { onToken, post, signedIn } from '/login/session.js'

const find = selector => document.querySelector(selector)

// --- what is known of the job, kept across a reload ---

/** How far it is, and up to where that is so. */
let job

/** The job that the address names. */
function load() {
  const id = location.hash.slice(1)
  job = JSON.parse(sessionStorage.getItem(id)) ?? {
    id,
    rows: 0,
    prices: [],
    isDone: false,
    cursor: undefined
  }
}

function take({ id, type, data }) {
  if (type === 'begun') job.rows = data.rows
  else if (type === 'row') job.prices[data.row - 1] = data.price
  else if (type === 'end') job.isDone = true
  // together with what it stands for: a reload finds both, or neither
  job.cursor = id
  sessionStorage.setItem(job.id, JSON.stringify(job))
}

// --- the page ---

function show() {
  const { rows, prices, isDone } = job
  const sum = prices.reduce((sum, price) => sum + price, 0)
  find('#progress').max = rows || 1
  find('#progress').value = prices.length
  find('#done').textContent = isDone
    ? `${rows} rows, ${sum.toFixed(1)} in all`
    : `${prices.length} of ${rows} rows`
  find('#rows').replaceChildren(
    ...prices.map((price, index) => {
      const item = document.createElement('li')
      item.textContent = `${index + 1}: ${price.toFixed(1)}`
      return item
    })
  )
}

function showState(state) {
  find('#state').textContent = find('#state').dataset.state = state
}

// --- the stream ---

let stream

/** Follows the job from where the page is; from its beginning, where it knows nothing of it. */
function follow() {
  stream?.close()
  load()
  show()
  find('#job').hidden = !job.id
  if (!job.id) return showState('idle')
  stream = subscribe(`jobs/${job.id}`, {
    url: '/live',
    onToken,
    after: job.cursor,
    rewind: 1000,
    onEvent(event) {
      take(event)
      show()
    },
    // it comes to `ended` by itself: nothing is asked any more then
    onState: showState,
    onGap: () => (find('#problem').textContent = 'Some of it is missing: it is no longer kept.')
  })
}

find('#start').onsubmit = async event => {
  event.preventDefault()
  const rows = event.target.elements.rows.value
  try {
    location.hash = (await post('/jobs', { rows })).id
  } catch (error) {
    find('#problem').textContent = error.message
  }
}
globalThis.addEventListener('hashchange', follow)
await signedIn()
follow()
