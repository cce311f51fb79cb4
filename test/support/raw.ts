import { connect } from 'node:net'
import type { Test } from 'tap'
import type { Address } from './app.ts'
import { inTime } from './inbox.ts'

/** A bare connection: what is sent and what comes back, byte for byte (as latin1). */
export interface RawConnection {
  readonly text: () => string
  send(text: string): void
  /** Resolves with what has come once it holds this. */
  until(what: string | RegExp): Promise<string>
  /** Resolves with everything once the other side has ended the connection. */
  readonly closed: Promise<string>
  destroy(): void
}

export function rawConnection(t: Test, { port }: Pick<Address, 'port'>): RawConnection {
  const socket = connect({ host: '127.0.0.1', port })
  let text = ''
  const looks = new Set<() => void>()
  const all = new Promise<string>(resolve => socket.on('close', () => resolve(text)))
  socket.setEncoding('latin1')
  socket.on('error', () => {}) // 'close' follows
  socket.on('data', (chunk: string) => {
    text += chunk
    for (const look of looks) look()
  })
  t.teardown(() => socket.destroy())
  return {
    text: () => text,
    send: sent => void socket.write(sent, 'latin1'),
    until(what) {
      const found = new Promise<string>((resolve, reject) => {
        const look = () => {
          if (typeof what === 'string' ? text.includes(what) : what.test(text)) resolve(text)
        }
        looks.add(look)
        look()
        void all.then(() => reject(new Error(`the connection has ended; it brought ${JSON.stringify(text)}`)))
      })
      return inTime(found, String(what), () => text)
    },
    get closed() {
      return inTime(all, 'the end of the connection', () => text)
    },
    destroy: () => socket.destroy()
  }
}
