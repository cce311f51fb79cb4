import uPlot from './chart/uPlot.esm.js'
import { subscribe } from './client.js'
import { mergePatch } from './merge-patch.js'
import { readRaw } from './raw.js'

const HOST = 'dashboards/host'
const TICKERS = 'tickers/*'
/** The last event of each topic, so that the page has something to show at once. */
const REWIND = 1
const HEARTBEAT_S = 5
const DROP_MS = 3000
const CHART_S = 120
/** A line of a few seconds doesn't fill the chart. */
const CHART_LEAST_S = 30
const TREND_POINTS = 60
const TREND_LEAST = 20
const FLASH_MS = 2500
const KEPT_IDS = 10_000
const KEPT_BLOCKS = 200
/** How long an open stream stays empty before the page says that there is nothing to see. */
const QUIET_MS = 3000

/** Where the server asks for tokens, the page is opened with `#token=…`: what stands there is not sent with it. */
const TOKEN = new URLSearchParams(location.hash.slice(1)).get('token')
// nor does it stay in the address, where others would see it, and the history keep it
if (TOKEN) window.history.replaceState(null, '', location.pathname + location.search)

const $ = id => document.getElementById(id)

// --- what the page knows ---

/** For whoever wants to check the promise: every id that came, in order. */
const seen = { ids: [], start: '', opened: 0, events: 0, replayed: 0, gaps: 0 }

let host = {}
/** Seconds, CPU in percent, event-loop delay in milliseconds; a null breaks the line. */
const chartData = [[], [], []]
const quotes = new Map()
/** How far this browser's clock is ahead of the broker's, as far as known, with the time that an event travels. */
let clockLead = Infinity
/** When the stream was resumed, by the broker's clock: what is older was missed and is replayed. */
let resumedAt = -Infinity
/** What came back with the last resume, and the last gap that was announced. */
let resume = null
let gap = null

/** The client's state, or `dropped` while the button holds; why, and until when it waits, by the clock that measures. */
const stream = { state: 'connecting', reason: '', until: 0, subscription: null, returning: 0 }

window.ringside = {
  ...{ ids: seen.ids, seen, host: () => host },
  get lastEventId() {
    return stream.subscription.cursor ?? ''
  }
}

// --- the stream ---

/** Opens it, or opens it anew where it stopped. */
function open() {
  clearTimeout(stream.returning)
  stream.subscription = subscribe([HOST, TICKERS], {
    ...{ url: '.', rewind: REWIND, after: stream.subscription?.cursor, heartbeat: HEARTBEAT_S },
    // known beforehand, so that an EventSource will do
    types: ['message', 'patch', 'snapshot', 'deleted', 'quote'],
    ...(TOKEN && { token: TOKEN }),
    // a browser opens six connections at the most, over all its tabs
    shared: true,
    ...{ onEvent: received, onGap: missed, onState: became }
  })
  became('connecting')
}

function drop() {
  stream.subscription.close()
  stream.returning = setTimeout(open, DROP_MS)
  became('dropped', { reason: 'Closed by this page', delay: DROP_MS })
}

function became(state, { reason = '', delay = 0 } = {}) {
  const wasOpen = isOpen(stream.state)
  Object.assign(stream, { state, reason, until: performance.now() + delay })
  if (isOpen(state) && !wasOpen) opened()
  render()
}

function isOpen(state) {
  return ['catching-up', 'live', 'stale', 'polling'].includes(state)
}

function opened() {
  const { cursor = '' } = stream.subscription
  seen.opened++
  seen.start ||= cursor
  if (seen.opened === 1) return
  resumedAt = performance.now() - (Number.isFinite(clockLead) ? clockLead : 0)
  resume = { after: cursor, events: 0 }
}

function received({ id, topic, type, time, data }) {
  seen.events++
  seen.ids.push(id)
  if (seen.ids.length > KEPT_IDS) seen.ids.shift()
  // the quickest journey tells most about the clocks
  clockLead = Math.min(clockLead, performance.now() - time)
  const replayed = time < resumedAt
  if (replayed) {
    seen.replayed++
    resume.events++
  }
  if (topic === HOST) updateHost(type, data, time)
  else if (type === 'quote') updateQuote(data, replayed)
  else if (type === 'deleted') removeQuote(data.symbol)
  render()
}

function missed(announced) {
  const { topics } = announced
  seen.gaps++
  gap = announced
  if (topics.includes(HOST)) {
    // patches without those before them would make a document that never was
    host = {}
    addPoint((chartData[0].at(-1) ?? 0) + 0.001, null, null)
  }
  // what comes next doesn't follow what is here
  if (topics.some(topic => topic.startsWith('tickers/')))
    for (const quote of quotes.values()) quote.prices = []
  render()
}

function updateHost(type, data, time) {
  if (type === 'deleted') host = {}
  else host = type === 'snapshot' ? data : mergePatch(host, data)
  addPoint(time / 1000, cpuPercent(), host.eventLoop?.p99 ?? null)
}

function addPoint(seconds, cpu, delay) {
  const [times] = chartData
  chartData.forEach((column, index) => column.push([seconds, cpu, delay][index]))
  const old = times.findIndex(time => time >= seconds - CHART_S)
  for (const column of chartData) column.splice(0, old)
}

function cpuPercent() {
  const cores = coreShares()
  return cores.length > 0 ? (100 * cores.reduce((sum, share) => sum + share)) / cores.length : null
}

/** How much of each core is in use, from 0 to 1. Who may write this dashboard may write anything into it. */
function coreShares() {
  const cores = host.cpu?.cores
  return Array.isArray(cores) ? cores.filter(share => typeof share === 'number') : []
}

function updateQuote({ symbol, price, date, recorded }, replayed) {
  const before = quotes.get(symbol)
  // recorded prices start over at their end: that is no change of price
  const follows = before && !(typeof date === 'string' && Date.parse(date) < Date.parse(before.date))
  const prices = [...(follows ? before.prices : []), price].slice(-TREND_POINTS)
  // several may come before they are shown
  const flash = replayed || Boolean(before?.flash)
  // a quote may have anything but a symbol and a price
  const day = typeof date === 'string' ? date : undefined
  quotes.set(symbol, { row: before?.row, symbol, price, date: day, recorded, prices, flash, changed: true })
}

function removeQuote(symbol) {
  quotes.get(symbol)?.row?.remove()
  quotes.delete(symbol)
}

// --- the page shows ---

let drawing = 0

/** Shows what is known, once a frame however many events came. */
function render() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0
    renderStream()
    renderQuiet()
    renderHost()
    renderQuotes()
  })
}

const STATE_NAMES = {
  ...{
    connecting: 'Connecting',
    'catching-up': 'Catching up',
    live: 'Live',
    stale: 'Stale',
    polling: 'Polling'
  },
  ...{ offline: 'Offline', closed: 'Refused', dropped: 'Dropped' }
}

function renderStream() {
  const { state, reason, until } = stream
  const dropped = state === 'dropped'
  const seconds = Math.ceil((until - performance.now()) / 1000)
  $('stream').dataset.state = state
  show($('state'), STATE_NAMES[state])
  // not in a live region: a countdown read out aloud would be a nuisance
  show($('detail'), reason && seconds > 0 ? `${reason}, back in ${seconds} s` : reason)
  if (seconds > 0) setTimeout(render, 500)
  show($('last-id'), stream.subscription.cursor ?? '–')
  for (const name of ['events', 'replayed', 'gaps']) show($(name), seen[name].toLocaleString('en'))
  show($('drop'), dropped ? 'Resume now' : 'Drop the connection')
  $('note').classList.toggle('told', resume !== null)
  if (resume) show($('note'), `Resumed after ${resume.after}: ${count(resume.events, 'event')} replayed.`)
  $('gap').hidden = !gap
  if (gap)
    show(
      $('gap'),
      `Gap (${gap.reason}): events of ${gap.topics.join(', ')} after ${gap.after} are no longer held.`
    )
}

let openSince = 0

function renderQuiet() {
  if (stream.state === 'live') openSince ||= performance.now()
  if (openSince && seen.events === 0 && performance.now() - openSince < QUIET_MS) setTimeout(render, QUIET_MS)
  const quiet = openSince > 0 && seen.events === 0 && performance.now() - openSince >= QUIET_MS
  $('quiet').hidden = !quiet
  $('panels').hidden = quiet
}

function renderHost() {
  const { memory, load, eventLoop } = host
  show($('host-name'), host.name ?? '')
  show($('uptime'), host.uptime === undefined ? '–' : duration(host.uptime))
  show($('cpu'), number(cpuPercent() ?? undefined, 0, ' %'))
  show(
    $('load'),
    load ? [load['1m'], load['5m'], load['15m']].map(value => number(value, 2)).join(' · ') : '–'
  )
  show($('memory'), memory ? `${gib(memory.total - memory.free)} of ${gib(memory.total)}` : '–')
  show($('rss'), memory ? `${number(memory.process / 2 ** 20, 0)} MiB` : '–')
  show($('loop'), eventLoop ? `${number(eventLoop.mean, 1)} · ${number(eventLoop.p99, 1)} ms` : '–')
  show($('connections'), number(host.connections, 0))
  renderCores(coreShares())
  renderChart()
}

function renderCores(cores) {
  const list = $('cores')
  while (list.children.length > cores.length) list.lastChild.remove()
  while (list.children.length < cores.length) list.append(newCore(list.children.length))
  cores.forEach((share, index) => {
    const [, bar, percent] = list.children[index].children
    bar.style.setProperty('--share', share)
    bar.setAttribute('aria-valuenow', Math.round(100 * share))
    show(percent, number(100 * share, 0, ' %'))
  })
}

function newCore(index) {
  const item = element('li')
  const bar = element('span', 'bar')
  bar.role = 'meter'
  bar.ariaLabel = `Core ${index}`
  bar.ariaValueMin = '0'
  bar.ariaValueMax = '100'
  item.append(element('span', '', index), bar, element('span', 'percent'))
  return item
}

// --- the chart ---

let chart

function renderChart() {
  const box = $('chart')
  if (box.clientWidth === 0) return
  chart ??= newChart(box)
  chart.setData(chartData)
  const cpu = cpuPercent()
  if (cpu !== null) box.ariaLabel = `Chart of the last two minutes: CPU now ${number(cpu, 0)} percent`
}

function newChart(box) {
  const colour = name => () => getComputedStyle(document.documentElement).getPropertyValue(name)
  const axis = { stroke: colour('--muted'), font: '12px system-ui, sans-serif', ticks: { show: false } }
  const grid = { stroke: colour('--line'), width: 1 }
  const line = { width: 1.5, points: { show: false } }
  const options = {
    width: box.clientWidth,
    height: box.clientHeight,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { range: (_chart, first, last) => [Math.min(first, last - CHART_LEAST_S), last] },
      cpu: { range: [0, 100] },
      loop: { range: (_chart, _least, most) => [0, Math.max(10, most * 1.1)] }
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 26,
        space: 70,
        values: (_chart, ticks) => ticks.map(clockTime)
      },
      { ...axis, grid, scale: 'cpu', size: 34, incrs: [25], values: (_chart, ticks) => ticks.map(String) },
      { ...axis, grid: { show: false }, scale: 'loop', side: 1, size: 38 }
    ],
    series: [
      {},
      { ...line, scale: 'cpu', stroke: colour('--cpu') },
      { ...line, scale: 'loop', stroke: colour('--loop'), dash: [4, 3] }
    ]
  }
  const made = new uPlot(options, chartData, box)
  new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(box)
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => made.redraw(false, true))
  return made
}

// --- the tickers ---

function renderQuotes() {
  const all = [...quotes.values()].sort((a, b) => (a.symbol < b.symbol ? -1 : 1))
  for (const [index, quote] of all.entries()) {
    if (!quote.row)
      $('quotes').insertBefore((quote.row = newRow(quote.symbol)), $('quotes').children[index] ?? null)
    if (quote.changed) renderQuote(quote)
    quote.changed = quote.flash = false
  }
  $('recorded').hidden = !all.some(quote => quote.recorded)
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

function renderQuote({ row, price, date, prices, flash }) {
  const [, priceCell, changeCell, dateCell, trendCell] = row.children
  show(priceCell, number(price, 2))
  const before = prices.at(-2)
  const change = before ? (100 * (price - before)) / before : undefined
  show(
    changeCell,
    change === undefined
      ? '–'
      : `${change < 0 ? '▼' : change > 0 ? '▲' : ''} ${number(Math.abs(change), 1)} %`
  )
  changeCell.className = `number ${change < 0 ? 'down' : change > 0 ? 'up' : ''}`
  show(dateCell, date === undefined ? '–' : shortDate(date))
  trendCell.querySelector('polyline').setAttribute('points', points(prices))
  if (!flash) return
  row.classList.add('replayed')
  setTimeout(() => row.classList.remove('replayed'), FLASH_MS)
}

/** The prices as the points of a line in a box of 100 by 24. */
function points(prices) {
  const least = Math.min(...prices)
  const range = Math.max(...prices) - least || 1
  const step = 100 / (Math.max(prices.length, TREND_LEAST) - 1)
  const start = 100 - step * (prices.length - 1)
  return prices
    .map((price, index) => `${start + index * step},${22 - (20 * (price - least)) / range}`)
    .join(' ')
}

// --- any topic ---

let listening = null

$('drop').addEventListener('click', () => {
  if (stream.state === 'dropped') open()
  else drop()
})

$('topic').addEventListener('input', showCommands)

$('listen').addEventListener('submit', event => {
  event.preventDefault()
  if (listening) listening.abort()
  else listen($('topic').value.trim())
})

/** Shows what comes on a topic, exactly as `curl -N` would, until it is stopped. */
async function listen(topic) {
  listening = new AbortController()
  $('raw').replaceChildren()
  show($('listen-button'), 'Stop')
  show($('topic-state'), `Listening to ${topic}`)
  let end = 'Stopped'
  try {
    await readRaw(topicQuery(topic), TOKEN, addBlock, listening.signal)
  } catch (error) {
    end = `Refused: ${error.message}`
  }
  listening = null
  show($('listen-button'), 'Listen')
  show($('topic-state'), end)
}

function addBlock(text) {
  $('raw').prepend(element('li', '', text))
  if ($('raw').children.length > KEPT_BLOCKS) $('raw').lastChild.remove()
}

/** With its last ten events; those of a wildcard in an envelope, which tells their topic. */
function topicQuery(topic) {
  const encoded = encodeURIComponent(topic).replaceAll('%2F', '/')
  return `topic=${encoded}&rewind=10${topic.endsWith('*') ? '&envelope=true' : ''}`
}

/** The commands for the topic in the box. Quoted, because a topic may hold what a shell would read. */
function showCommands() {
  const topic = $('topic').value.trim() || 'hello'
  const base = new URL('events', document.baseURI).href
  show($('listen-command'), `curl -N ${quoted(`${base}?${topicQuery(topic)}`)}`)
  const path = topic.split('/').map(encodeURIComponent).join('/')
  const wildcard = topic.endsWith('*')
  const feed = /^(tickers|dashboards|notifications)\//.test(topic)
  $('publish-row').hidden = wildcard || feed
  const target = wildcard || feed ? 'hello' : path
  for (const code of document.querySelectorAll('[data-publish]')) {
    show(code, `curl -d 'Hello!' ${quoted(`${base}/${target}`)}`)
  }
}

function quoted(text) {
  return /^[\w:/.%~-]+$/.test(text) ? text : `'${text.replaceAll("'", '%27')}'`
}

// --- small things ---

/** Touches the page only where it changes, so that a screen reader and the layout are left in peace. */
function show(target, text) {
  if (target.textContent !== text) target.textContent = text
}

function element(name, className = '', text = '') {
  const made = document.createElement(name)
  made.className = className
  made.textContent = text
  return made
}

function svgElement(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value)
  return made
}

function number(value, digits, unit = '') {
  if (typeof value !== 'number') return '–'
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits }) + unit
}

function count(many, what) {
  return `${many.toLocaleString('en')} ${what}${many === 1 ? '' : 's'}`
}

function gib(bytes) {
  return `${number(bytes / 2 ** 30, 1)} GiB`
}

function duration(seconds) {
  const minutes = Math.floor(seconds / 60)
  const hours = Math.floor(minutes / 60)
  const days = Math.floor(hours / 24)
  if (days > 0) return `${days} d ${hours % 24} h`
  return hours > 0 ? `${hours} h ${minutes % 60} min` : `${minutes} min`
}

function clockTime(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString('en-GB')
}

/** One form for `Jan 1 2000` and `2000-01-03`; what is no date stays as it is. */
function shortDate(text) {
  const date = new Date(`${text} UTC`)
  return Number.isNaN(date.getTime()) ? text : date.toISOString().slice(0, 10)
}

showCommands()
open()
