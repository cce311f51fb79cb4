/** The live page: joins its parts. What comes goes one way: the stream tells them, and each shows its own. */
import { startBell } from './bell.js'
import { points } from './chart.js'
import { startCopying } from './copy.js'
import { startCursors } from './cursors.js'
import { host, startHost } from './host.js'
import { startIdentity } from './identity.js'
import { startJob } from './job.js'
import { listenTo, startListening } from './listen.js'
import { startPanels } from './panels.js'
import { startQuotes } from './quotes.js'
import { sendTo, startSending } from './send.js'
import { open, seen, stream } from './stream.js'
import { startStreamCard } from './stream-card.js'
import { marks, startTimeline } from './timeline.js'
import { startTopics } from './topics.js'

// for whoever wants to look inside, from the browser's console
window.ringside = {
  ...{ ids: seen.ids, seen, stream, host: () => host, points, marks },
  get lastEventId() {
    return stream.cursor
  }
}

startStreamCard()
startTimeline()
startPanels()
startHost()
startQuotes()
startJob()
startBell()
startCursors()
startTopics(topic => {
  listenTo(topic)
  sendTo(topic)
})
startListening()
startSending()
startIdentity()
startCopying()
open()
