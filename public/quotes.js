/** The tickers' panel: the latest quote of each symbol, and where its price has been. */
import { $, element, show, svgElement } from './dom.js'
import { render } from './frame.js'
import { on } from './stream.js'
import { number, shortDate } from './text.js'

const TREND_POINTS = 60
const TREND_LEAST = 20
/** How often a trend is drawn at the most, in milliseconds: it is by far the dearest of a row. */
const TREND_MS = 1000
const FLASH_MS = 2500

/** By symbol. */
const quotes = new Map()
/** In the order of their rows. */
let symbols = []
const changed = new Set()
/** Whose trends are not drawn as they are. */
const late = new Set()
let later = 0

export function startQuotes() {
  on('event', ({ topic, type, data }, isMissed) => {
    if (!topic.startsWith('tickers/')) return
    if (type === 'quote') update(data, isMissed)
    else if (type === 'deleted') remove(data.symbol)
  })
  on('gap', ({ topics }) => {
    // what comes next doesn't follow what is here
    if (topics.some(topic => topic.startsWith('tickers/')))
      for (const quote of quotes.values()) quote.prices.length = 0
  })
}

function update({ symbol, price, date, recorded }, isMissed) {
  const quote = quotes.get(symbol) ?? { symbol, prices: [], drawnAt: -Infinity }
  // recorded prices start over at their end: that is no change of price
  if (typeof date === 'string' && Date.parse(date) < Date.parse(quote.date)) quote.prices.length = 0
  quote.prices.push(price)
  if (quote.prices.length > TREND_POINTS) quote.prices.shift()
  // a quote may have anything but a symbol and a price
  Object.assign(quote, { price, date: typeof date === 'string' ? date : undefined, recorded })
  // several may come before they are shown
  quote.flash ||= isMissed
  quotes.set(symbol, quote)
  changed.add(quote)
  late.add(quote)
  render(draw)
}

function remove(symbol) {
  const quote = quotes.get(symbol)
  if (!quote) return
  quote.row?.remove()
  quotes.delete(symbol)
  changed.delete(quote)
  late.delete(quote)
  symbols = symbols.filter(each => each !== symbol)
}

function draw() {
  for (const quote of changed) {
    if (!quote.row) insert(quote)
    drawRow(quote)
    if (quote.recorded) $('recorded').hidden = false
  }
  changed.clear()
  drawTrends()
}

function drawTrends() {
  const now = performance.now()
  for (const quote of late) {
    if (now - quote.drawnAt < TREND_MS) continue
    late.delete(quote)
    drawTrend(quote, now)
  }
  clearTimeout(later)
  // with the next frame that shows something, or else by itself
  if (late.size > 0) later = setTimeout(() => render(drawTrends), TREND_MS)
}

function insert(quote) {
  quote.row = newRow(quote.symbol)
  const next = symbols.findIndex(symbol => symbol > quote.symbol)
  const at = next < 0 ? symbols.length : next
  $('quotes').insertBefore(quote.row, $('quotes').children[at] ?? null)
  symbols.splice(at, 0, quote.symbol)
}

function newRow(symbol) {
  const row = element('tr')
  row.dataset.symbol = symbol
  const name = element('th', '', symbol)
  name.scope = 'row'
  const trend = element('td', 'trend')
  const svg = svgElement('svg', { viewBox: '0 0 100 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' })
  svg.append(svgElement('polyline', {}))
  trend.append(svg)
  row.append(name, element('td', 'number'), element('td', 'number'), element('td', 'date'), trend)
  return row
}

function drawRow(quote) {
  const { row, price, date, prices } = quote
  const [, priceCell, changeCell, dateCell] = row.children
  show(priceCell, number(price, 2))
  const before = prices.at(-2)
  const change = before ? (100 * (price - before)) / before : undefined
  const sign = change < 0 ? '▼' : change > 0 ? '▲' : ''
  show(changeCell, change === undefined ? '–' : `${sign} ${number(Math.abs(change), 1, ' %')}`)
  const className = `number ${change < 0 ? 'down' : change > 0 ? 'up' : ''}`
  if (changeCell.className !== className) changeCell.className = className
  show(dateCell, date === undefined ? '–' : shortDate(date))
  if (!quote.flash) return
  quote.flash = false
  row.classList.add('replayed')
  setTimeout(() => row.classList.remove('replayed'), FLASH_MS)
}

function drawTrend(quote, now) {
  quote.drawnAt = now
  quote.row?.querySelector('polyline').setAttribute('points', pointsOf(quote.prices))
}

/** The prices as the points of a line in a box of 100 by 24. */
function pointsOf(prices) {
  const least = Math.min(...prices)
  const range = Math.max(...prices) - least || 1
  const step = 100 / (Math.max(prices.length, TREND_LEAST) - 1)
  const start = 100 - step * (prices.length - 1)
  return prices
    .map((price, index) => {
      const x = start + index * step
      return `${x.toFixed(1)},${(22 - (20 * (price - least)) / range).toFixed(1)}`
    })
    .join(' ')
}
