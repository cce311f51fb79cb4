/** The host's panel: the dashboard `dashboards/host`, and its history as a chart. */
import { addPoint, breakLine, drawChart } from './chart.js'
import { $, element, mark, show } from './dom.js'
import { render } from './frame.js'
import { mergePatch } from './merge-patch.js'
import { HOST, on } from './stream.js'
import { duration, gib, number } from './text.js'

export let host = {}

export function startHost() {
  on('event', ({ topic, type, data, time }) => {
    if (topic !== HOST) return
    if (type === 'deleted') host = {}
    else host = type === 'snapshot' ? data : mergePatch(host, data)
    addPoint(time / 1000, cpuPercent(), typeof host.eventLoop?.p99 === 'number' ? host.eventLoop.p99 : null)
    render(draw)
  })
  on('gap', ({ topics }) => {
    if (topics.includes(HOST)) {
      // patches without those before them would make a document that never was
      host = {}
      breakLine()
    }
    render(draw)
  })
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

function draw() {
  const { memory, load, eventLoop } = host
  const cpu = cpuPercent()
  show($('host-name'), typeof host.name === 'string' ? host.name : '')
  show($('uptime'), host.uptime === undefined ? '–' : duration(host.uptime))
  show($('cpu'), number(cpu ?? undefined, 0, ' %'))
  show(
    $('load'),
    load ? [load['1m'], load['5m'], load['15m']].map(value => number(value, 2)).join(' · ') : '–'
  )
  show($('memory'), memory ? `${gib(memory.total - memory.free)} of ${gib(memory.total)}` : '–')
  show($('rss'), memory ? number(memory.process / 2 ** 20, 0, ' MiB') : '–')
  show($('loop'), eventLoop ? `${number(eventLoop.mean, 1)} · ${number(eventLoop.p99, 1)} ms` : '–')
  show($('connections'), number(host.connections))
  drawCores(coreShares())
  drawChart()
  if (cpu !== null)
    mark($('chart'), 'aria-label', `Chart of the last two minutes: CPU now ${number(cpu)} percent`)
}

function drawCores(cores) {
  const list = $('cores')
  while (list.children.length > cores.length) list.lastChild.remove()
  while (list.children.length < cores.length) list.append(newCore(list.children.length))
  cores.forEach((share, index) => {
    const [, bar, percent] = list.children[index].children
    bar.style.setProperty('--share', share)
    mark(bar, 'aria-valuenow', String(Math.round(100 * share)))
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
