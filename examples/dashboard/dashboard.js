import { subscribe } from '/live/client.js'
import { onToken, signedIn } from '/login/session.js'

/** How far back the history goes. */
const HISTORY = '10m'
/** How many values are drawn of each. */
const MOST = 200
/** A value that is older is shown as stale, although the connection lives: whoever measures it has fallen silent. */
const STALE_MS = Number(new URLSearchParams(location.search).get('stale') ?? 60_000)

const find = selector => document.querySelector(selector)

/** By symbol: what is shown, and its values, the oldest first. */
const rows = new Map()
/** Whether what is published comes at once. */
let isLive = false

function take({ time, data: { symbol, price } }) {
  if (!rows.has(symbol)) rows.set(symbol, { element: addElement(symbol), values: [] })
  const row = rows.get(symbol)
  row.values.push({ time, price })
  if (row.values.length > MOST) row.values.shift()
  show(row)
}

function addElement(symbol) {
  const element = find('#value').content.firstElementChild.cloneNode(true)
  element.dataset.symbol = element.querySelector('h2').textContent = symbol
  find('#values').append(element)
  return element
}

function show({ element, values }) {
  const { time, price } = values.at(-1)
  element.querySelector('output').textContent = price
  element.querySelector('time').textContent = new Date(time).toLocaleTimeString()
  element.querySelector('polyline').setAttribute('points', pointsOf(values.map(each => each.price)))
  showAge({ element, values })
}

function showAge({ element, values }) {
  element.classList.toggle('stale', !isLive || Date.now() - values.at(-1).time > STALE_MS)
}

/** A line through these, from the left to the right of 100 by 30. */
function pointsOf(prices) {
  const [low, high] = [Math.min(...prices), Math.max(...prices)]
  const x = index => (prices.length > 1 ? (index / (prices.length - 1)) * 100 : 100)
  const y = price => 29 - ((price - low) / (high - low || 1)) * 28
  return prices.map((price, index) => `${x(index)},${y(price)}`).join(' ')
}

function showAges() {
  for (const row of rows.values()) showAge(row)
}

setInterval(showAges, Math.min(1000, STALE_MS / 4))

await signedIn()
subscribe('tickers/*', {
  url: '/live',
  onToken,
  since: HISTORY, // what the ring has of it comes first, and then what is new
  onEvent: take,
  // the history has a hole; the numbers are right again with the next event of each
  onGap: ({ topics }) =>
    (find('#missed').textContent = `Some of the history is missing: ${topics.join(', ')}`),
  onState(state) {
    find('#state').textContent = find('#state').dataset.state = state
    isLive = state === 'live' || state === 'polling'
    showAges()
  }
})
