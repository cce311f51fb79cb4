/** The chart of the host: two lines over two minutes, and what happened to the stream meanwhile. */
import { $ } from './dom.js'
import { clockTime } from './text.js'
import { marks } from './timeline.js'

const SPAN_S = 120
/** A line of a few seconds doesn't fill the chart. */
const LEAST_S = 30

/** Seconds, CPU in percent, event-loop delay in milliseconds; a null breaks the line. */
const data = [[], [], []]

let chart
let isLoading = false

export function addPoint(seconds, cpu, delay) {
  const [times] = data
  // what is drawn is drawn from left to right
  if (seconds < (times.at(-1) ?? 0)) return
  const point = [seconds, cpu, delay]
  data.forEach((column, index) => column.push(point[index]))
  const old = times.findIndex(time => time >= seconds - SPAN_S)
  if (old > 0) for (const column of data) column.splice(0, old)
}

/** How many there are. */
export const points = () => data[0].length

/** What comes next doesn't follow what is there. */
export function breakLine() {
  if (data[0].length > 0) addPoint(data[0].at(-1) + 0.001, null, null)
}

/** Draws what has come. Only a page that has something to draw loads what draws it. */
export function drawChart() {
  if (chart) return chart.setData(data)
  if (isLoading || $('chart').clientWidth === 0) return
  isLoading = true
  void import('uplot').then(({ default: UPlot }) => (chart = makeChart(UPlot, $('chart'))))
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name)

function makeChart(UPlot, box) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize)
  const axis = {
    stroke: () => colour('--muted'),
    font: `${0.75 * rem}px system-ui, sans-serif`,
    ticks: { show: false }
  }
  const grid = { stroke: () => colour('--line'), width: 1 }
  const line = { width: 1.5, points: { show: false } }
  const none = { show: false }
  const made = new UPlot(
    {
      ...{ width: box.clientWidth, height: box.clientHeight, legend: none, cursor: none },
      scales: {
        x: { range: (_chart, first, last) => [Math.min(first, last - LEAST_S), last] },
        cpu: { range: [0, 100] },
        loop: { range: (_chart, _least, most) => [0, Math.max(10, most * 1.1)] }
      },
      axes: [
        {
          ...{ ...axis, grid: none, size: 1.6 * rem, space: 4.5 * rem },
          values: (_chart, ticks) => ticks.map(tick => clockTime(1000 * tick))
        },
        {
          ...axis,
          grid,
          scale: 'cpu',
          size: 2.1 * rem,
          incrs: [25],
          values: (_chart, ticks) => ticks.map(String)
        },
        { ...axis, grid: none, scale: 'loop', side: 1, size: 2.4 * rem }
      ],
      series: [
        {},
        { ...line, scale: 'cpu', stroke: () => colour('--cpu') },
        { ...line, scale: 'loop', stroke: () => colour('--loop'), dash: [4, 3] }
      ],
      hooks: { drawAxes: [drawBreaks], draw: [drawGaps] }
    },
    data,
    box
  )
  new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: box.clientHeight })).observe(box)
  for (const query of ['(prefers-color-scheme: dark)', '(forced-colors: active)'])
    matchMedia(query).addEventListener('change', () => made.redraw(false, true))
  return made
}

/** Behind the lines: from when to when nothing came, and what was replayed then. */
function drawBreaks({ ctx, bbox, valToPos, scales }) {
  for (const { kind, from, to } of marks) {
    if (kind !== 'break') continue
    const left = Math.max(bbox.left, valToPos(from / 1000, 'x', true))
    const right = Math.min(bbox.left + bbox.width, valToPos(Math.min(to / 1000, scales.x.max), 'x', true))
    if (right <= left) continue
    ctx.fillStyle = colour('--flash')
    ctx.fillRect(left, bbox.top, right - left, bbox.height)
  }
}

/** Before them: where events are missing. */
function drawGaps({ ctx, bbox, valToPos }) {
  for (const { kind, from } of marks) {
    const x = valToPos(from / 1000, 'x', true)
    if (kind !== 'gap' || x < bbox.left || x > bbox.left + bbox.width) continue
    ctx.save()
    ctx.strokeStyle = ctx.fillStyle = colour('--bad')
    ctx.lineWidth = devicePixelRatio
    ctx.setLineDash([4, 3])
    ctx.beginPath()
    ctx.moveTo(x, bbox.top)
    ctx.lineTo(x, bbox.top + bbox.height)
    ctx.stroke()
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`
    ctx.textAlign = x > bbox.left + bbox.width / 2 ? 'right' : 'left'
    ctx.fillText(' gap ', x, bbox.top + 11 * devicePixelRatio)
    ctx.restore()
  }
}
