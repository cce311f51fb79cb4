import { RingsideError } from './error.ts'
import { checkOptions, type ConnectOptions } from './options.ts'
import { call, Ended, Reconnection } from './reconnect.ts'
import type { Connection } from './socket.ts'

type Socket = typeof import('./socket.ts')

/**
 * What makes connections, as the server hands it out beside this file. Each attempt has an address of its own, because a
 * browser may remember that a module could not be loaded.
 */
function load(attempt: number): Promise<Socket> {
  const address = `./client-socket.js${attempt > 0 ? `?${attempt}` : ''}`
  return import(address) as Promise<Socket>
}

/** JSON as it is now: whoever has asked may change it before it is sent. */
function copyOf<Json>(json: Json): Json {
  // bytes are refused, by whoever sends
  return ArrayBuffer.isView(json) ? json : (JSON.parse(JSON.stringify({ json })) as { json: Json }).json
}

/**
 * Opens the connection; see `Connection`. Throws a `TypeError` for a `url` that is none. Most pages only listen, which
 * needs no WebSocket: so the code is loaded here, as often as it takes, and what is asked meanwhile waits in its order.
 */
export function connect(options: ConnectOptions = {}): Pick<Connection, keyof Connection> {
  checkOptions(options)
  /** What is here until the connection is. */
  const loading = new Reconnection({}, (state, why) => call(options.onState, state, why))
  const { closed } = loading
  let connection: Connection | undefined
  const loaded = new Promise<Connection>((resolve, reject) => {
    closed.onabort = () => reject(new RingsideError('closed', 'the connection was closed'))
    const run = async () => {
      for (let attempt = 0; !closed.aborted; attempt++) {
        try {
          const { connect } = await load(attempt)
          if (closed.aborted) return
          resolve((connection = connect(options)))
          loading.close()
        } catch (cause) {
          // which names the file
          await loading.comeBack(new Ended((cause as Error).message, {}, cause))
        }
      }
    }
    void run()
  })
  loaded.catch(() => {}) // whoever asks is told

  return {
    get state() {
      return (connection ?? loading).state
    },
    subscribe: async (topics, options) => {
      const copy = copyOf(topics)
      return (await loaded).subscribe(copy, options)
    },
    publish: async (topic, data, options) => {
      const copy = copyOf(data)
      return (await loaded).publish(topic, copy, options)
    },
    signal: async (topic, data) => {
      const copy = copyOf(data)
      return (await loaded).signal(topic, copy)
    },
    join: async (topic, options) => (await loaded).join(topic, options),
    read: async ids => {
      const copy = copyOf(ids)
      return (await loaded).read(copy)
    },
    ping: async () => (await loaded).ping(),
    close: () => (connection ?? loading).close()
  }
}
