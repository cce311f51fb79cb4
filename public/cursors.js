/** The board of the demo: what is needed for it is loaded, and it is joined, when somebody first points at it. */
import { $, show } from './dom.js'
import { JOB, on } from './stream.js'

export function startCursors() {
  // the demo has one job, and who runs it runs the demo
  on('event', ({ topic }) => {
    if (topic === JOB) $('cursors').hidden = false
  })
  for (const what of ['pointerenter', 'focus']) $('board').addEventListener(what, begin)
}

async function begin() {
  for (const what of ['pointerenter', 'focus']) $('board').removeEventListener(what, begin)
  try {
    const { join } = await import('./board.js')
    await join()
  } catch (error) {
    show($('board-state'), error.message)
  }
}
