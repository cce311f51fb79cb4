/** Which panels there are: those that something has come for, and those that the page may not read, which say so. */
import { lacking } from './access.js'
import { $, show } from './dom.js'
import { INBOX, isOpen, on, seen, stream } from './stream.js'

/** How long nothing may come before the page shows what it has all the same, in milliseconds. */
const PATIENCE_MS = 3000

const panels = [...document.querySelectorAll('[data-topic]')]

export function startPanels() {
  const command = `curl -d 'Hello!' ${new URL('events/hello', document.baseURI).href}`
  show($('quiet-command'), command)
  on('event', ({ topic }) => {
    const panel = panels.find(({ dataset }) => covers(dataset.topic, topic))
    if (!panel?.hidden) return
    panel.hidden = false
    decide()
  })
  on('state', () => {
    // what the rings held has come by now, if they held anything
    if (['live', 'polling', 'stale'].includes(stream.state)) decide()
    if (stream.refused.length === 0) return
    refuse(stream.refused)
    decide()
  })
  setTimeout(decide, PATIENCE_MS)
}

function covers(filter, topic) {
  return filter === topic || filter === topic.replace(/[^/]*$/, '*')
}

/** From here on the page is seen: all at once, so that nothing is pushed away by what comes after it. */
function decide() {
  $('quiet').hidden = !isOpen() || seen.events > 0 || stream.refused.length > 0
  $('panels').hidden = panels.every(({ hidden }) => hidden) && $('bell').hidden
  $('rest').hidden = false
}

/** Says which claim each panel lacks. */
function refuse(refused) {
  for (const panel of panels) {
    const { topic } = panel.dataset
    if (!refused.includes(topic)) continue
    panel.hidden = false
    lack(panel, lacking('subscribe', topic) || 'a token that may')
  }
  if (refused.includes(INBOX)) {
    $('bell').hidden = false
    lack($('bell'), 'a token with a “sub”')
  }
}

function lack(panel, what) {
  const note = panel.querySelector('.lacks')
  panel.classList.add('refused')
  note.hidden = false
  show(note, `Not to be read by this page. It needs ${what}.`)
}
