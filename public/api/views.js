import { KEPT } from './received.js'
import { EXAMPLE, Socket } from './socket.js'

const STATES = {
  open: 'Live: what comes shows here.',
  stopped: 'Stopped from here.',
  ended: 'Ended by the server.',
  broken: 'The connection broke.'
}

const COLUMNS = { stream: ['Time', 'Type', 'Id', 'Data'], socket: ['Time', 'Way', 'Message'] }

/** The components, made with the React that Swagger UI has. */
export function viewsOf({ createElement: h, useEffect, useState, useSyncExternalStore }) {
  /** Said by a screen reader when it changes, and only then: it is there before its text. */
  function Status({ text }) {
    const [said, say] = useState('')
    useEffect(() => say(text), [text])
    return h('p', { role: 'status', className: 'ringside-state' }, said)
  }

  /** Events or messages, newest first, and the button that ends them. */
  function Log({ source, kind, name, stop }) {
    const { received } = source
    useSyncExternalStore(received.subscribe, received.readVersion)
    // it is of no use to anybody once it can't be seen
    useEffect(() => () => source.stop(), [source])
    const { state, reason, rows, count } = received
    const columns = COLUMNS[kind]
    return h(
      'section',
      { className: 'ringside-log', 'aria-label': name, 'data-state': state },
      h(Status, { text: [STATES[state], reason].filter(Boolean).join(' ') }),
      h(
        'button',
        // it keeps the focus
        {
          ...{ type: 'button', className: 'btn ringside-stop', 'aria-disabled': state !== 'open' },
          onClick: () => source.stop()
        },
        stop
      ),
      h('span', { className: 'ringside-count' }, countText(count)),
      h(
        'div',
        { className: 'ringside-rows', tabIndex: 0, role: 'group', 'aria-label': `${name}: the newest first` },
        h(
          'table',
          null,
          h('thead', null, h('tr', null, ...columns.map(column => h('th', { scope: 'col' }, column)))),
          h(
            'tbody',
            null,
            rows.map(row =>
              h('tr', { key: row.number }, ...cellsOf(row, kind).map(text => h('td', null, text)))
            )
          )
        )
      )
    )
  }

  /** What Swagger UI's own view of an answer lacks: the events of a stream, and an error in words. */
  function Tried({ response, stream }) {
    const words = wordsOf(response)
    if (words) return h('p', { role: 'alert', className: 'ringside-refusal' }, words)
    return stream ? h(Log, { source: stream, kind: 'stream', name: 'Events', stop: 'Stop' }) : null
  }

  /** OpenAPI has no words for it, so Swagger UI has no form for it. */
  function WebSocketTry({ readToken }) {
    const [socket, setSocket] = useState(null)
    const [text, setText] = useState(EXAMPLE)
    const connect = () => setSocket(new Socket(readToken()))
    const send = event => {
      event.preventDefault()
      socket?.send(text)
    }
    return h(
      'details',
      { className: 'ringside-socket' },
      h('summary', null, 'Try the WebSocket'),
      h(
        'form',
        { onSubmit: send },
        h('button', { type: 'button', className: 'btn', onClick: connect }, 'Connect'),
        h(
          'label',
          null,
          'Message',
          h('input', { value: text, spellCheck: false, onChange: ({ target }) => setText(target.value) })
        ),
        h('button', { className: 'btn' }, 'Send')
      ),
      socket && h(Log, { source: socket, kind: 'socket', name: 'Messages', stop: 'Close' })
    )
  }

  return { Tried, WebSocketTry }
}

function countText(count) {
  return count > KEPT ? `${count} came; the newest ${KEPT} are shown` : `${count} came`
}

function cellsOf({ at, type, id, data }, kind) {
  const time = new Date(at).toLocaleTimeString('en-GB')
  return kind === 'stream' ? [time, type, id, data] : [time, type, data]
}

/** An error (RFC 9457) as a sentence; undefined for what is none. `response`: as Swagger UI keeps it. */
function wordsOf(response) {
  const status = response?.get('status')
  if (!(status >= 400)) return undefined
  try {
    const { title, detail, errors = [] } = JSON.parse(response.get('text'))
    const more = errors
      .map(({ path, message }) => `${path}: ${message}`)
      .filter(each => !detail.includes(each))
    return [`${title} (${status}): ${detail}`, ...more].join('. ')
  } catch {
    return undefined
  }
}
