/** The job's panel: how far the demo's job is. */
import { $, show } from './dom.js'
import { render } from './frame.js'
import { JOB, on } from './stream.js'
import { number } from './text.js'

let progress = {}

export function startJob() {
  on('event', ({ topic, data }) => {
    if (topic !== JOB || typeof data !== 'object' || data === null) return
    progress = data
    render(draw)
  })
}

function draw() {
  const { title, done, of, date, highest } = progress
  show($('job-name'), String(title ?? '–'))
  const share = done / of
  $('job-progress').value = Number.isFinite(share) ? share : 0
  const result = highest ? `the highest so far ${number(highest.price, 2)}, on ${highest.date}` : ''
  show($('job-detail'), `${number(done)} of ${number(of)} days, at ${date}; ${result}`)
}
